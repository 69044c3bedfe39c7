//! `llava` (1.5): one square for a CLIP or SigLIP encoder.

use std::sync::Arc;

use serde_json::Value;

use super::VlmFamily;
use super::clip::FixedGrid;
use super::patches::PatchGrid;
use super::settings::InvalidSetting;

pub(super) fn build(config: &Value, processor: &Value) -> Result<Arc<dyn VlmFamily>, InvalidSetting> {
    let patches = PatchGrid::new(config)?;
    let count = |view| patches.check_view(view).map(|()| patches.num_tokens);
    Ok(Arc::new(FixedGrid::new(config, processor, count)?))
}
