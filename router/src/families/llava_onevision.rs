//! `llava_onevision`: as LLaVA-NeXT, but the rows of a large canvas are scaled down to a budget of views; and in a
//! prompt with several images each is one padded square with one newline.

use std::sync::Arc;

use serde_json::Value;
use text_generation_scheduler::TokenId;

use super::anyres::AnyRes;
use super::clip::FixedGrid;
use super::settings::{self, InvalidSetting};
use super::{ImageLayout, ImageRejected, ImageSize, Piece, VlmFamily};

/// The rows are left as they are up to this many times the side that the budget allows.
const TOLERANCE: f64 = 1.1;

struct LlavaOnevision {
    anyres: AnyRes,
    max_views: u32,
    several: Arc<FixedGrid>,
    image_token: TokenId,
}

pub(super) fn build(config: &Value, processor: &Value) -> Result<Arc<dyn VlmFamily>, InvalidSetting> {
    let anyres = AnyRes::new(config, processor)?;
    let several = FixedGrid::padded(config, processor, anyres.patches.size(), anyres.patches.num_tokens + 1)?;
    let (max_views, image_token) = (max_views(config)?, settings::image_token(config)?);
    Ok(Arc::new(LlavaOnevision { anyres, max_views, several: Arc::new(several), image_token }))
}

impl VlmFamily for LlavaOnevision {
    fn layout(&self, image: ImageSize) -> Result<ImageLayout, ImageRejected> {
        let ImageSize { width, height } = self.shrunk(self.anyres.unpadded(image)?);
        let num_tokens = self.anyres.patches.num_tokens + (width + 1) * height;
        Ok(ImageLayout { views: self.anyres.views(image)?, pieces: vec![Piece::Tokens(num_tokens)] })
    }

    fn image_token(&self) -> TokenId {
        self.image_token
    }

    fn anchor(&self) -> TokenId {
        self.image_token
    }

    fn several(&self) -> Option<Arc<dyn VlmFamily>> {
        Some(self.several.clone())
    }

    /// As one of several: not tiled.
    fn low_detail(&self) -> Option<Arc<dyn VlmFamily>> {
        self.several()
    }
}

impl LlavaOnevision {
    /// Columns and rows within the budget.
    fn shrunk(&self, patches: ImageSize) -> ImageSize {
        let budget = self.max_views * self.anyres.patches.side.pow(2);
        let ratio = (patches.pixels() as f64 / f64::from(budget)).sqrt();
        if ratio > TOLERANCE {
            ImageSize::new(floor_divide(patches.width, ratio), floor_divide(patches.height, ratio))
        } else {
            patches
        }
    }
}

/// Python's `length // ratio`, which is not the rounded-down quotient where that was rounded up to a whole number.
fn floor_divide(length: u32, ratio: f64) -> u32 {
    let length = f64::from(length);
    ((length - length % ratio) / ratio).round() as u32
}

/// The number in `anyres_max_<number>`.
fn max_views(config: &Value) -> Result<u32, InvalidSetting> {
    let written = config.get("vision_aspect_ratio").and_then(Value::as_str).unwrap_or_default();
    let number = written.strip_prefix("anyres_max_").and_then(|number| number.parse().ok());
    number.filter(|views| (1..=255).contains(views)).ok_or_else(|| {
        InvalidSetting::unsupported("vision_aspect_ratio", "must be \"anyres_max_\" and a number from 1 to 255")
    })
}
