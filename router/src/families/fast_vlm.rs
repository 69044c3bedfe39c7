//! `fast_vlm`: a convolutional encoder whose whole feature map, one token per cell, goes to the decoder.

use std::sync::Arc;

use serde_json::Value;

use super::VlmFamily;
use super::clip::FixedGrid;
use super::settings::InvalidSetting;

pub(super) fn build(config: &Value, processor: &Value) -> Result<Arc<dyn VlmFamily>, InvalidSetting> {
    // The library refuses any other value: a feature map has no class token that could be dropped.
    let strategy = processor.get("vision_feature_select_strategy").and_then(Value::as_str);
    if strategy != Some("full") {
        return Err(InvalidSetting::unsupported("vision_feature_select_strategy", "must be \"full\""));
    }
    Ok(Arc::new(FixedGrid::new(config, processor)?))
}
