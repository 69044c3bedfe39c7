//! `llava` (1.5): one square for a CLIP encoder; the strategy `default` drops the class token. The hub's Pixtral has this
//! type too, and its own encoder and processor.

use std::sync::Arc;

use serde_json::Value;

use super::clip::FixedGrid;
use super::settings::InvalidSetting;
use super::{VlmFamily, pixtral};

pub(super) fn build(config: &Value, processor: &Value) -> Result<Arc<dyn VlmFamily>, InvalidSetting> {
    if config.pointer("/vision_config/model_type").and_then(Value::as_str) == Some("pixtral") {
        return pixtral::build(config, processor);
    }
    Ok(Arc::new(FixedGrid::new(config, processor)?))
}
