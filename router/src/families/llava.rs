//! `llava` (1.5): one square for a CLIP encoder; the strategy `default` drops the class token.

use std::sync::Arc;

use serde_json::Value;

use super::VlmFamily;
use super::clip::FixedGrid;
use super::settings::InvalidSetting;

pub(super) fn build(config: &Value, processor: &Value) -> Result<Arc<dyn VlmFamily>, InvalidSetting> {
    Ok(Arc::new(FixedGrid::new(config, processor)?))
}
