//! What a ViT of the CLIP line makes of one view: a token for each patch and, in CLIP, one for the class.
//!
//! Counted from `config.json` alone. Processors have numbers for it too (`patch_size`, `num_additional_image_tokens`,
//! `num_image_tokens`), but older checkpoints lack them, and where they differ the model refuses every image.

use serde_json::Value;

use super::settings::{self, InvalidSetting};
use super::{ImageSize, Rect};

/// Pixels a side that no encoder of this kind reaches; a larger number is a broken checkpoint.
const MAX_SIDE: u32 = 1 << 11;

/// The patches of one square view.
#[derive(Copy, Clone, Debug)]
pub(super) struct PatchGrid {
    /// Pixels a side of the view.
    pub(super) view: u32,
    /// Patches a side.
    pub(super) side: u32,
    /// Embeddings of a view, after what `vision_feature_select_strategy` drops.
    pub(super) num_tokens: u32,
}

impl PatchGrid {
    /// Reads the encoder of `config`.
    pub(super) fn new(config: &Value) -> Result<Self, InvalidSetting> {
        let whole = Self::whole(config)?;
        Ok(Self { num_tokens: whole.num_tokens.saturating_sub(dropped(config)?), ..whole })
    }

    /// The same with nothing dropped, for models that have no such setting.
    pub(super) fn whole(config: &Value) -> Result<Self, InvalidSetting> {
        let vision = config.get("vision_config").unwrap_or(&Value::Null);
        let (view, patch) = (settings::positive(vision, "image_size")?, settings::positive(vision, "patch_size")?);
        let side = view / patch;
        if side == 0 || view > MAX_SIDE {
            let reason = format!("a view of {view} pixels a side has no patches of {patch}");
            return Err(InvalidSetting::unsupported("patch_size", reason));
        }
        Ok(Self { view, side, num_tokens: side * side + u32::from(has_class_token(vision)?) })
    }

    /// What is left when squares of `kernel` patches a side become one embedding each; the rest at the edges is lost.
    pub(super) fn pooled(self, kernel: u32) -> Self {
        let side = self.side.checked_div(kernel).unwrap_or(0);
        Self { num_tokens: side * side, ..self }
    }

    /// Refuses a processor that writes another number of tokens for a view than the model makes.
    pub(super) fn check_written(self, written: u32) -> Result<u32, InvalidSetting> {
        let made = self.num_tokens;
        if written == made && made > 0 {
            return Ok(made);
        }
        let reason = format!("the processor writes {written} tokens for an image, the model makes {made}");
        Err(InvalidSetting::unsupported("image_seq_length", reason))
    }

    /// The size of the view.
    pub(super) fn size(self) -> ImageSize {
        ImageSize::new(self.view, self.view)
    }

    /// The views that a canvas is cut into, row by row.
    pub(super) fn tiles(self, canvas: ImageSize) -> impl Iterator<Item = Rect> {
        let starts = move |length: u32| (0..length / self.view).map(move |tile| tile * self.view);
        starts(canvas.height).flat_map(move |y| starts(canvas.width).map(move |x| Rect { x, y, size: self.size() }))
    }

    /// Refuses a processor whose views are not what the encoder takes.
    pub(super) fn check_view(self, view: ImageSize) -> Result<(), InvalidSetting> {
        if view == self.size() {
            return Ok(());
        }
        let ImageSize { width, height } = view;
        let reason = format!("the processor makes {width}x{height} pixels, the encoder takes {0}x{0}", self.view);
        Err(InvalidSetting::unsupported("size", reason))
    }
}

fn has_class_token(vision: &Value) -> Result<bool, InvalidSetting> {
    match vision.get("model_type").and_then(Value::as_str) {
        Some("clip_vision_model") => Ok(true),
        Some("siglip_vision_model") => Ok(false),
        _ => Err(InvalidSetting::unsupported("vision_config", "only CLIP and SigLIP encoders are supported")),
    }
}

/// Tokens left out at the front: the strategy `default` takes the first one for a class token, whatever the encoder.
fn dropped(config: &Value) -> Result<u32, InvalidSetting> {
    match config.get("vision_feature_select_strategy").and_then(Value::as_str) {
        Some("default") => Ok(1),
        Some("full") => Ok(0),
        _ => Err(InvalidSetting::unsupported("vision_feature_select_strategy", "must be \"default\" or \"full\"")),
    }
}
