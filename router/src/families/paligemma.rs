//! `paligemma`, 1 and 2: one square, a token for each patch. The processor frames the prompt, all of which sees itself
//! both ways.

use std::ops::Range;
use std::sync::Arc;

use serde_json::Value;
use text_generation_scheduler::{Positions, TokenId};

use super::clip::FixedGrid;
use super::patches::PatchGrid;
use super::settings::{self, InvalidSetting};
use super::{Frame, ImageLayout, ImageRejected, ImageSize, PlacedPrompt, VlmFamily};

pub(super) fn build(config: &Value, processor: &Value) -> Result<Arc<dyn VlmFamily>, InvalidSetting> {
    let count = |view| {
        let patches = PatchGrid::whole(config)?;
        patches.check_view(view)?;
        patches.check_written(settings::positive(processor, "image_seq_length")?)
    };
    Ok(Arc::new(PaliGemma(FixedGrid::new(config, processor, count)?)))
}

struct PaliGemma(FixedGrid);

impl VlmFamily for PaliGemma {
    fn layout(&self, image: ImageSize) -> Result<ImageLayout, ImageRejected> {
        self.0.layout(image)
    }

    fn image_token(&self) -> TokenId {
        self.0.image_token()
    }

    fn anchor(&self) -> TokenId {
        self.0.anchor()
    }

    fn frame(&self) -> Option<Frame> {
        Some(Frame { ending: "\n" })
    }

    fn both_ways(&self, prompt: &PlacedPrompt<'_>) -> Vec<Range<u32>> {
        let whole = 0..prompt.token_ids.len() as u32;
        if whole.is_empty() { Vec::new() } else { vec![whole] }
    }

    /// They count from one.
    fn positions(&self, prompt: &PlacedPrompt<'_>) -> Positions {
        let next = prompt.token_ids.len() as i32 + 1;
        Positions::Explicit { axes: vec![(1..next).collect()], next }
    }
}
