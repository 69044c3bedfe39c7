//! From a conversation, or from `inputs` with images between, to token ids with every image in its place.
//!
//! `template` renders, `marks` finds user text in what was rendered, `encode` tokenises it so that user text never
//! becomes a control token, `expand` puts image tokens where the anchors are. Nothing here loads an image, knows a
//! route's JSON, or decides how many tokens are too many.

use std::sync::Arc;

use text_generation_scheduler::TokenId;
use tokio::sync::Semaphore;

mod assemble;
mod context;
mod conversation;
mod encode;
mod error;
mod expand;
mod finished;
mod markdown;
mod marks;
mod place;
mod pool;
mod probe;
mod python;
mod render;
mod spanned;
mod template;
#[cfg(test)]
mod tests;
mod tool_probe;

pub use conversation::{Content, Conversation, Message, Part, Role, Segment};
pub use encode::InvalidTokenizer;
pub use error::PromptError;
pub use finished::{Prompt, SpanKind, TokenSpan, Tokenized};
pub use template::{InvalidTemplate, TemplateLimits};
pub use tool_probe::{PROBE_FUNCTION, ToolTemplate};

use crate::detokenize::{InvalidDecoder, TokenTable};
use crate::families::VlmFamily;
use crate::images::LoadedImage;
use crate::prepared::{PreparedModel, RawPrompt};
use assemble::Built;
use encode::Encoder;
use place::ImageMarks;
use render::Renderer;

/// Bounds on the work for one prompt.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub struct PromptLimits {
    /// Longest text of a request, in bytes, all its pieces together.
    pub max_text_bytes: usize,
    /// Texts up to this many bytes are tokenised where they are; longer ones on the blocking pool.
    pub inline_bytes: usize,
    /// Longer texts that are tokenised at the same time; others wait.
    pub max_parallel: usize,
    /// Bounds on a rendering of the chat template.
    pub template: TemplateLimits,
}

impl Default for PromptLimits {
    fn default() -> Self {
        Self { max_text_bytes: 4 << 20, inline_bytes: 2 << 10, max_parallel: 2, template: TemplateLimits::default() }
    }
}

/// A prepared model whose prompts cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum InvalidModel {
    /// Its tokenizer.
    #[error(transparent)]
    Tokenizer(#[from] InvalidTokenizer),
    /// Its chat template.
    #[error(transparent)]
    Template(#[from] InvalidTemplate),
    /// Its tokenizer's decoder.
    #[error(transparent)]
    Decoder(#[from] InvalidDecoder),
}

/// Builds prompts for one model. Cheap to clone.
#[derive(Clone)]
pub struct PromptBuilder {
    inner: Arc<Inner>,
    pool: Arc<Semaphore>,
}

struct Inner {
    encoder: Encoder,
    renderer: Option<Renderer>,
    family: Option<Arc<dyn VlmFamily>>,
    /// `None` for a model that takes no images.
    images: Option<ImageMarks>,
    /// What stands for an image in `inputs`.
    image_text: String,
    raw_prompt: RawPrompt,
    bos: Option<String>,
    table: Arc<TokenTable>,
    limits: PromptLimits,
}

impl PromptBuilder {
    /// With default limits.
    pub fn new(model: &PreparedModel, family: Option<Arc<dyn VlmFamily>>) -> Result<Self, InvalidModel> {
        Self::with_limits(model, family, PromptLimits::default())
    }

    /// Compiles the chat template, loads the tokenizer and finds out what the template takes.
    pub fn with_limits(
        model: &PreparedModel,
        family: Option<Arc<dyn VlmFamily>>,
        limits: PromptLimits,
    ) -> Result<Self, InvalidModel> {
        let mut encoder = Encoder::new(&model.tokenizer, &model.control_tokens, &model.media_tokens)?;
        let images = family.as_ref().map(|family| image_marks(&mut encoder, family.as_ref(), model)).transpose()?;
        let anchor = images.as_ref().map(|marks| marks.anchor.as_str());
        let renderer = Renderer::new(model, anchor, limits.template)?;
        let written = renderer.as_ref().and_then(Renderer::image_text);
        let image_text = written.or_else(|| anchor.map(str::to_owned)).unwrap_or_default();
        let inner = Inner {
            encoder,
            renderer,
            family,
            images,
            image_text,
            raw_prompt: model.raw_prompt,
            bos: model.special_token("bos_token"),
            table: Arc::new(TokenTable::new(&model.tokenizer)?),
            limits,
        };
        Ok(Self { inner: Arc::new(inner), pool: Arc::new(Semaphore::new(limits.max_parallel.max(1))) })
    }

    /// The prompt of a chat. Images go to the image parts in order.
    ///
    /// Errors: `Template` without a chat template or when it refuses; `TextTooLong`, `NoImages`, `ImageNeeded`,
    /// `ImageCount`, `ControlTokens`, `NothingToContinue`.
    pub async fn chat(&self, conversation: Conversation, images: Vec<LoadedImage>) -> Result<Prompt, PromptError> {
        let bytes = conversation.text_bytes();
        self.run(bytes, move |inner| inner.chat(&conversation, images, false).map(|built| built.prompt)).await
    }

    /// The tokens of a chat and the text they were made of.
    pub async fn tokenize_chat(
        &self,
        conversation: Conversation,
        images: Vec<LoadedImage>,
    ) -> Result<Tokenized, PromptError> {
        let bytes = conversation.text_bytes();
        self.run(bytes, move |inner| inner.chat(&conversation, images, true).map(Built::tokenized)).await
    }

    /// The prompt of `inputs` on text-generation routes, with the tokenizer's own special tokens around it.
    ///
    /// Special tokens in the text keep their meaning, because clients write chat markup by hand; only tokens that
    /// stand for media become plain text. A model that was trained on chats alone (`raw_prompt: chat`) gets text
    /// without such markup as one user turn. `truncate` keeps the last tokens, counted with images in place.
    ///
    /// Errors: as [`Self::chat`], and `TruncatedImage`.
    pub async fn raw(
        &self,
        segments: Vec<Segment>,
        images: Vec<LoadedImage>,
        truncate: Option<u32>,
    ) -> Result<Prompt, PromptError> {
        let bytes = segments.iter().map(Segment::text_bytes).sum();
        self.run(bytes, move |inner| inner.raw(segments, images, truncate)).await
    }

    /// The prompt of token ids that a client brings. Nothing is added to them; which of them are control tokens is the
    /// client's own business. `truncate` keeps the last ones.
    ///
    /// Errors: `UnknownToken`, `MediaToken`, and `ImageNeeded` for a model that answers about images only.
    pub fn of_ids(&self, ids: Vec<TokenId>, truncate: Option<u32>) -> Result<Prompt, PromptError> {
        self.inner.of_ids(ids, truncate)
    }

    /// The tokens of `inputs`, never as a user turn: offsets are those of the text the client sent, with
    /// [`Tokenized::text`] showing what stands for images.
    pub async fn tokenize(&self, segments: Vec<Segment>, images: Vec<LoadedImage>) -> Result<Tokenized, PromptError> {
        let bytes = segments.iter().map(Segment::text_bytes).sum();
        self.run(bytes, move |inner| inner.raw_text(&segments, images, true).map(Built::tokenized)).await
    }

    /// The tokens of a text without images, with the tokenizer's own special tokens around it or without them.
    pub async fn tokenize_text(&self, text: String, special_tokens: bool) -> Result<Tokenized, PromptError> {
        self.run(text.len(), move |inner| inner.plain_text(&text, special_tokens).map(Built::tokenized)).await
    }

    /// Splits `inputs` at its `![alt](url)` images; URLs are in the order of the image segments.
    pub fn segments(inputs: &str) -> (Vec<Segment>, Vec<String>) {
        markdown::segments(inputs)
    }

    /// Whether [`Self::chat`] has a template to work with.
    pub fn has_chat_template(&self) -> bool {
        self.inner.renderer.is_some()
    }

    /// What the chat template makes of tools; nothing, without a template. Found out anew by every call.
    pub fn tool_template(&self) -> ToolTemplate {
        self.inner.renderer.as_ref().map(Renderer::tool_template).unwrap_or_default()
    }

    /// Whether the model takes images.
    pub fn takes_images(&self) -> bool {
        self.inner.family.is_some()
    }

    /// The tokens of a piece of an answer: plain text, and none of the tokenizer's own around it.
    pub fn plain(&self, text: &str) -> Vec<TokenId> {
        self.inner.encoder.plain(text)
    }

    /// From token ids back to text.
    pub fn table(&self) -> Arc<TokenTable> {
        Arc::clone(&self.inner.table)
    }
}

/// The texts of a family's tokens, which from now on no user text becomes, and of its frame.
fn image_marks(
    encoder: &mut Encoder,
    family: &dyn VlmFamily,
    model: &PreparedModel,
) -> Result<ImageMarks, InvalidTokenizer> {
    let anchor = match family.anchor_text() {
        // If it is a token all the same, `prepare` lists it among the media tokens.
        Some(text) => text.to_owned(),
        None => encoder.forbid_media(family.anchor())?,
    };
    let image_token = encoder.forbid_media(family.image_token())?;
    let Some(frame) = family.frame() else { return Ok(ImageMarks { anchor, image_token, ..ImageMarks::default() }) };
    let bos = model.special_token("bos_token").ok_or_else(|| InvalidTokenizer::MissingToken("bos_token".to_owned()))?;
    Ok(ImageMarks { anchor, image_token, behind_images: bos, ending: frame.ending })
}
