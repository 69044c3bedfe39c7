//! Model families: what an image of a given size becomes for a given model.
//!
//! Arithmetic on sizes only. Nothing here sees a pixel, a file or a request; every constant comes from the
//! checkpoint's own `config.json` and processor settings. The truth each family is measured against is the model's
//! Hugging Face processor with its Pillow backend. A new family is one file here, its module line and its row in
//! [`FAMILIES`]. A type without a row is left to that processor itself, if transformers knows it (`processor`).

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use serde_json::Value;
use text_generation_scheduler::{Placeholder, Positions, TokenId};

mod anyres;
mod clip;
mod fast_vlm;
mod gemma3;
mod geometry;
mod idefics2;
mod idefics3;
mod internvl;
mod llava;
mod llava_next;
mod llava_onevision;
mod paligemma;
mod patches;
mod pixtral;
mod processor;
mod qwen2_5_vl;
mod qwen2_vl;
mod qwen3_vl;
mod settings;
mod smart_resize;
#[cfg(test)]
mod tests;

pub use geometry::{Filter, ImageSize, Operation, Rect, View};
pub use processor::{AskProcessor, ImageMarks, of};
use settings::InvalidSetting;

/// A part of what the processor writes where the chat template wrote an image's anchor.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Piece {
    /// This many image tokens, one for each embedding.
    Tokens(u32),
    /// Text, tokenised together with the text beside it; control tokens in it count.
    Text(Cow<'static, str>),
    /// Text on the border of an image: two images that touch share it, and a word behind it is set off by a blank.
    Border(Cow<'static, str>),
}

/// What an image becomes: its views, in encoder order, and what stands for it in the prompt.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ImageLayout {
    /// How each view is made of the original, in encoder order.
    pub views: Vec<View>,
    /// What replaces the anchor.
    pub pieces: Vec<Piece>,
}

impl ImageLayout {
    /// One view, and nothing but image tokens.
    pub fn plain(view: View, num_tokens: u32) -> Self {
        Self { views: vec![view], pieces: vec![Piece::Tokens(num_tokens)] }
    }

    /// Embeddings the encoder makes of it.
    pub fn num_tokens(&self) -> u32 {
        let tokens = |piece: &Piece| if let Piece::Tokens(count) = piece { *count } else { 0 };
        self.pieces.iter().map(tokens).fold(0, u32::saturating_add)
    }

    /// What the encoder's work grows with: pixels it sees or, where the shard resizes, embeddings it makes.
    pub fn cost(&self, size: ImageSize) -> u64 {
        let whole = self.views.iter().all(|view| view.0.is_empty());
        if whole { u64::from(self.num_tokens()) } else { self.num_pixels(size) }
    }

    /// Pixels the encoder sees of an image of `size`.
    pub fn num_pixels(&self, size: ImageSize) -> u64 {
        let pixels = self.views.iter().filter_map(|view| view.output(size)).map(ImageSize::pixels);
        pixels.fold(0, u64::saturating_add)
    }
}

/// An image by its sizes alone.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ImageShape {
    /// Size of the (EXIF-oriented) original.
    pub size: ImageSize,
    /// Sizes of its views, in encoder order.
    pub views: Vec<ImageSize>,
    /// Embeddings it becomes.
    pub num_tokens: u32,
}

/// An image whose place in the expanded prompt is known.
#[derive(Copy, Clone, Debug)]
pub struct PlacedImage<'a> {
    /// Index of its first image token in the prompt.
    pub offset: u32,
    /// Its runs of image tokens in the prompt, in order.
    pub runs: &'a [Placeholder],
    /// Size of the (EXIF-oriented) original.
    pub size: ImageSize,
    /// What the image became.
    pub layout: &'a ImageLayout,
}

/// A prompt after every anchor was replaced by its image's tokens.
#[derive(Copy, Clone, Debug)]
pub struct PlacedPrompt<'a> {
    /// All token ids.
    pub token_ids: &'a [TokenId],
    /// Its images, in order.
    pub images: &'a [PlacedImage<'a>],
}

/// What a processor writes into a prompt: the token that begins a text behind the last image, and `ending` at the end.
/// It refuses a prompt without an image.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub struct Frame {
    /// Tokenised together with the text before it.
    pub ending: &'static str,
}

/// This model cannot take an image of this size. The text is meant for the client.
#[derive(Copy, Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ImageRejected {
    /// No pixels at all.
    #[error("an image needs at least one pixel, this one is {width}x{height}")]
    Empty {
        /// Columns.
        width: u32,
        /// Rows.
        height: u32,
    },
    /// The resized side does not fit the arithmetic of the processor.
    #[error("the aspect ratio of a {width}x{height} image is too extreme for this model")]
    AspectRatio {
        /// Columns.
        width: u32,
        /// Rows.
        height: u32,
    },
    /// The model's own processor, or what shards hold, sets the limit.
    #[error("this model takes no image of {width}x{height} pixels")]
    Size {
        /// Columns.
        width: u32,
        /// Rows.
        height: u32,
    },
    /// A shard was asked and said nothing: no fault of the image.
    #[error("the model did not answer in time")]
    Unanswered,
}

/// How one family of vision-language models sees images.
pub trait VlmFamily: Send + Sync {
    /// What the shard receives for an image of this size, and the tokens that stand for it.
    fn layout(&self, image: ImageSize) -> Result<ImageLayout, ImageRejected>;

    /// The id that is replaced by one embedding.
    fn image_token(&self) -> TokenId;

    /// The id that the chat template writes once per image.
    fn anchor(&self) -> TokenId;

    /// The same as text, for a model whose anchor is no token.
    fn anchor_text(&self) -> Option<&str> {
        None
    }

    /// What the processor writes into every prompt itself. Most leave that to the chat template and the tokenizer.
    fn frame(&self) -> Option<Frame> {
        None
    }

    /// Sides tried when looking for the image that costs the encoder the most.
    fn probe_sides(&self) -> &[u32] {
        &PROBE_SIDES
    }

    /// Ranges of the prompt whose tokens attend to each other both ways, ascending and not overlapping. A range is
    /// computed in one step, so none may be longer than a step.
    fn both_ways(&self, _prompt: &PlacedPrompt<'_>) -> Vec<Range<u32>> {
        Vec::new()
    }

    /// The rules for a prompt with several images, where they are not those for one. Everything else is the same.
    fn several(&self) -> Option<Arc<dyn VlmFamily>> {
        None
    }

    /// The rules for an image that few tokens are to stand for, where the model's processor can be set to make fewer.
    /// Everything else is the same.
    fn low_detail(&self) -> Option<Arc<dyn VlmFamily>> {
        None
    }

    /// Position ids of the expanded prompt. Most families count from zero.
    fn positions(&self, _prompt: &PlacedPrompt<'_>) -> Positions {
        Positions::Sequential
    }
}

/// Most tokens of an image at low detail, in families that give a larger image more of them. About what the others take.
const LOW_DETAIL_TOKENS: u32 = 256;

/// Encoders cost most near squares and at the limits.
const PROBE_SIDES: [u32; 6] = [56, 336, 1024, 2048, 4096, 8192];

type Build = fn(&Value, &Value) -> Result<Arc<dyn VlmFamily>, InvalidSetting>;

/// Families that take images, by the exact `model_type` of `config.json`.
const FAMILIES: &[(&str, Build)] = &[
    ("fast_vlm", fast_vlm::build),
    ("gemma3", gemma3::build),
    ("idefics2", idefics2::build),
    ("idefics3", idefics3::build),
    ("internvl", internvl::build),
    ("llava", llava::build),
    ("llava_next", llava_next::build),
    ("llava_onevision", llava_onevision::build),
    ("mistral3", pixtral::build),
    ("paligemma", paligemma::build),
    ("qwen2_5_vl", qwen2_5_vl::build),
    ("qwen2_vl", qwen2_vl::build),
    ("qwen3_vl", qwen3_vl::build),
    ("smolvlm", idefics3::build),
];

/// Model types that are served without images.
const TEXT_ONLY: &[&str] = &["gemma", "gemma2", "gemma3_text", "granite", "llama", "mistral", "qwen2", "qwen3"];

/// Why no family can be built for a checkpoint.
#[derive(Debug, thiserror::Error)]
pub enum UnsupportedModel {
    /// `config.json` names no known `model_type`.
    #[error("model_type {model_type:?} is not supported; supported are: {known}")]
    UnknownType {
        /// What the checkpoint says, or `""` when it says nothing.
        model_type: String,
        /// What could have been said.
        known: String,
    },
    /// A setting of the checkpoint is missing, has the wrong type, or asks for what this server does not do.
    #[error("{model_type}: {reason}")]
    Setting {
        /// The family that refused.
        model_type: String,
        /// Which setting and why.
        reason: String,
    },
}

impl UnsupportedModel {
    fn unknown(model_type: &str) -> Self {
        let mut known: Vec<&str> = FAMILIES.iter().map(|(name, _)| *name).chain(TEXT_ONLY.iter().copied()).collect();
        known.sort_unstable();
        Self::UnknownType { model_type: model_type.to_owned(), known: known.join(", ") }
    }
}

/// The family of a checkpoint, or `None` for a model that takes no images.
///
/// `config` is the checkpoint's `config.json`, `processor` the processor settings as the prepared model holds them.
pub fn build(config: &Value, processor: &Value) -> Result<Option<Arc<dyn VlmFamily>>, UnsupportedModel> {
    let model_type = config.get("model_type").and_then(Value::as_str).unwrap_or_default();
    if TEXT_ONLY.contains(&model_type) {
        return Ok(None);
    }
    let (_, build) =
        FAMILIES.iter().find(|(name, _)| *name == model_type).ok_or_else(|| UnsupportedModel::unknown(model_type))?;
    build(config, processor)
        .map(Some)
        .map_err(|invalid| UnsupportedModel::Setting { model_type: model_type.to_owned(), reason: invalid.to_string() })
}
