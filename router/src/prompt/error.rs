//! Why a prompt could not be built. Every text is meant for the client: no paths, no library messages.

use text_generation_scheduler::TokenId;

/// Why a prompt could not be built.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum PromptError {
    /// There is no chat template, or it refuses this conversation.
    #[error("{0}")]
    Template(String),
    /// More text than is tokenised for one request.
    #[error("the text has {bytes} bytes; at most {limit} are accepted")]
    TextTooLong {
        /// What was sent.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// Images for a text-only model.
    #[error("this model takes no images")]
    NoImages,
    /// A text alone for a model whose processor takes none.
    #[error("this model answers about images, and the prompt has none")]
    ImageNeeded,
    /// The conversation's image parts and the images given beside it are not the same number.
    #[error("the prompt has room for {places} images, but {images} were given")]
    ImageCount {
        /// Places for an image in the rendered prompt.
        places: usize,
        /// Images given.
        images: usize,
    },
    /// `truncate` would keep only a part of an image.
    #[error(
        "`truncate` = {truncate} would cut image {image}, which takes tokens {start} to {end} of {prompt}: \
         keep {keep} tokens or more to keep it, or {drop} or fewer to leave it out"
    )]
    TruncatedImage {
        /// What was asked for.
        truncate: usize,
        /// The image, counted from 1.
        image: usize,
        /// Its first token, counted from 1.
        start: usize,
        /// Its last token, counted from 1.
        end: usize,
        /// Tokens of the whole prompt.
        prompt: usize,
        /// Tokens that would keep the image.
        keep: usize,
        /// Tokens that would leave it out.
        drop: usize,
    },
    /// The text cannot be kept apart from the model's control tokens.
    #[error("the text cannot be told apart from control tokens of the model")]
    ControlTokens,
    /// A prompt of token ids with one that the tokenizer does not have.
    #[error("{0} is not a token of this model")]
    UnknownToken(TokenId),
    /// A prompt of token ids with one that stands for an image.
    #[error("token {0} stands for an image, which a prompt of token ids cannot bring")]
    MediaToken(TokenId),
    /// A final message is to be continued, but it has no text.
    #[error("the last message has no text that could be continued")]
    NothingToContinue,
    /// The tokenizer failed on this text.
    #[error("the text could not be tokenised")]
    Tokenize,
    /// The server is stopping.
    #[error("the server is shutting down")]
    ShuttingDown,
}
