//! `gemma3`: one square, averaged to fewer tokens, that stand between two marks and blank lines and see each other both
//! ways.
//!
//! `do_pan_and_scan` is not read. The outer processor sets it to false whenever its caller says nothing about it, so
//! that what a checkpoint's image processor says of it has no effect.

use std::ops::Range;
use std::sync::Arc;

use serde_json::Value;
use text_generation_scheduler::TokenId;

use super::clip::FixedGrid;
use super::patches::PatchGrid;
use super::settings::{self, InvalidSetting};
use super::{ImageLayout, ImageRejected, ImageSize, Piece, PlacedPrompt, VlmFamily};

/// `image_seq_length` when a checkpoint leaves it to the processor's class.
const DEFAULT_TOKENS: u32 = 256;

pub(super) fn build(config: &Value, processor: &Value) -> Result<Arc<dyn VlmFamily>, InvalidSetting> {
    let grid = FixedGrid::new(config, processor, |view| num_tokens(config, processor, view))?;
    let mark = |key, default| settings::text_or(processor, key, default);
    let before = format!("\n\n{}", mark("boi_token", "<start_of_image>")?);
    let after = format!("{}\n\n", mark("eoi_token", "<end_of_image>")?);
    Ok(Arc::new(Gemma3 { grid, anchor: settings::integer(config, "boi_token_index")?, before, after }))
}

struct Gemma3 {
    grid: FixedGrid,
    anchor: TokenId,
    before: String,
    after: String,
}

impl VlmFamily for Gemma3 {
    fn layout(&self, image: ImageSize) -> Result<ImageLayout, ImageRejected> {
        let mut layout = self.grid.layout(image)?;
        layout.pieces.insert(0, Piece::Text(self.before.clone().into()));
        layout.pieces.push(Piece::Text(self.after.clone().into()));
        Ok(layout)
    }

    fn image_token(&self) -> TokenId {
        self.grid.image_token()
    }

    fn anchor(&self) -> TokenId {
        self.anchor
    }

    fn both_ways(&self, prompt: &PlacedPrompt<'_>) -> Vec<Range<u32>> {
        prompt.images.iter().flat_map(|image| image.runs).map(|run| run.offset..run.end()).collect()
    }
}

/// What the processor writes for an image, which must be what the model's pooling leaves of its patches.
fn num_tokens(config: &Value, processor: &Value, view: ImageSize) -> Result<u32, InvalidSetting> {
    // Old files have a number of this name in both processors; the outer one's counts.
    let key = "processor_image_seq_length";
    let key = if settings::is_absent(processor, key) { "image_seq_length" } else { key };
    let written = settings::integer_or(processor, key, DEFAULT_TOKENS)?;
    let patches = PatchGrid::whole(config)?;
    patches.check_view(view)?;
    // At least one, as the setting is.
    let side = settings::positive(config, "mm_tokens_per_image")?.isqrt();
    patches.pooled(patches.side / side).check_written(written)
}
