//! `llava` (1.5): one square for a CLIP or SigLIP encoder. The hub's Pixtral has this type too, with its own encoder and
//! processor.

use std::sync::Arc;

use serde_json::Value;

use super::clip::FixedGrid;
use super::patches::PatchGrid;
use super::settings::InvalidSetting;
use super::{VlmFamily, pixtral};

pub(super) fn build(config: &Value, processor: &Value) -> Result<Arc<dyn VlmFamily>, InvalidSetting> {
    if config.pointer("/vision_config/model_type").and_then(Value::as_str) == Some("pixtral") {
        return pixtral::build(config, processor);
    }
    let patches = PatchGrid::new(config)?;
    let count = |view| patches.check_view(view).map(|()| patches.num_tokens);
    Ok(Arc::new(FixedGrid::new(config, processor, count)?))
}
