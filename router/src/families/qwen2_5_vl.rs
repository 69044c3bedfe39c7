//! `qwen2_5_vl`: to the router the same as `qwen2_vl`; its windows are the encoder's business.

use std::sync::Arc;

use serde_json::Value;

use super::VlmFamily;
use super::settings::InvalidSetting;
use super::smart_resize::SmartResize;

pub(super) fn build(config: &Value, processor: &Value) -> Result<Arc<dyn VlmFamily>, InvalidSetting> {
    Ok(Arc::new(SmartResize::new(config, processor)?))
}
