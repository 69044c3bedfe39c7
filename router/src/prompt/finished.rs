//! What comes out: the finished prompt, and the tokens of a text for those who ask to see them.

use std::fmt;
use std::ops::Range;

use text_generation_scheduler::{ImageSpec, Placeholder, Positions, TokenId};

use crate::images::LoadedImage;

/// What the engine generates from.
#[derive(Clone, Default)]
pub struct Prompt {
    /// Token ids, every image already a run of tokens.
    pub token_ids: Vec<TokenId>,
    /// The runs of image tokens, in order.
    pub placeholders: Vec<Placeholder>,
    /// Position ids.
    pub positions: Positions,
    /// The images, one for every place in the prompt.
    pub images: Vec<LoadedImage>,
    /// Ranges of tokens that attend to each other both ways.
    pub both_ways: Vec<Range<u32>>,
    /// What was tokenised: an image token stands for each run of them.
    pub text: String,
}

/// Numbers only: what a client wrote does not belong in a log.
impl fmt::Debug for Prompt {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Prompt")
            .field("tokens", &self.token_ids.len())
            .field("placeholders", &self.placeholders)
            .finish_non_exhaustive()
    }
}

impl Prompt {
    /// Every different image once, with the number of embeddings it yields.
    pub fn image_specs(&self) -> Vec<ImageSpec> {
        let mut specs: Vec<ImageSpec> = Vec::new();
        for placeholder in &self.placeholders {
            let num_tokens = placeholder.image_offset + placeholder.length;
            match specs.iter_mut().find(|spec| spec.key == placeholder.image) {
                Some(spec) => spec.num_tokens = spec.num_tokens.max(num_tokens),
                None => specs.push(ImageSpec { key: placeholder.image, num_tokens }),
            }
        }
        specs
    }

    /// Tokens that stand for images, separators not counted.
    pub fn image_tokens(&self) -> u32 {
        self.placeholders.iter().map(|placeholder| placeholder.length).sum()
    }
}

/// What a token stands for.
#[derive(Copy, Clone, Debug, Eq, PartialEq, Hash)]
pub enum SpanKind {
    /// Text.
    Text,
    /// A part of an image, or a separator between its parts.
    Image,
}

/// One token of a text.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TokenSpan {
    /// Its id.
    pub id: TokenId,
    /// The part of the text it stands for; empty for tokens that stand for none of it.
    pub text: String,
    /// First byte of that part in [`Tokenized::text`].
    pub start: usize,
    /// The byte after it.
    pub stop: usize,
    /// What it stands for.
    pub kind: SpanKind,
}

/// The tokens of a text.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Tokenized {
    /// What was tokenised: an image token stands for each run of them.
    pub text: String,
    /// Its tokens, images expanded.
    pub tokens: Vec<TokenSpan>,
}
