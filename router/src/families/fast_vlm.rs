//! `fast_vlm`: a convolutional encoder whose whole feature map, one token per cell, goes to the decoder.

use std::sync::Arc;

use serde_json::Value;

use super::clip::FixedGrid;
use super::settings::{self, InvalidSetting};
use super::{ImageSize, VlmFamily};

/// No encoder of this kind yields more; a larger number is a broken checkpoint.
const MAX_TOKENS: u64 = 1 << 16;

pub(super) fn build(config: &Value, processor: &Value) -> Result<Arc<dyn VlmFamily>, InvalidSetting> {
    // The library refuses any other value: a feature map has no class token that could be dropped.
    let strategy = processor.get("vision_feature_select_strategy").and_then(Value::as_str);
    if strategy != Some("full") {
        return Err(InvalidSetting::unsupported("vision_feature_select_strategy", "must be \"full\""));
    }
    Ok(Arc::new(FixedGrid::new(config, processor, |view| num_tokens(processor, view))?))
}

/// Tokens per image as `LlavaProcessor` counts them; the config of the encoder, which is timm's, knows no patches.
fn num_tokens(processor: &Value, view: ImageSize) -> Result<u32, InvalidSetting> {
    let patch = settings::positive(processor, "patch_size")?;
    let extra = settings::integer_or(processor, "num_additional_image_tokens", 0)?;
    let counted = ImageSize::new(view.width / patch, view.height / patch).pixels() + u64::from(extra);
    u32::try_from(counted).ok().filter(|counted| (1..=MAX_TOKENS).contains(&u64::from(*counted))).ok_or_else(|| {
        InvalidSetting::unsupported("patch_size", format!("the processor's grid gives {counted} tokens per image"))
    })
}
