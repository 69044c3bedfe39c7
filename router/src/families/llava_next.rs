//! `llava_next` (LLaVA 1.6, Granite Vision): the squeezed image, then the rows of its canvas without padding, each with
//! a newline at its end.

use std::sync::Arc;

use serde_json::Value;
use text_generation_scheduler::TokenId;

use super::anyres::AnyRes;
use super::clip::FixedGrid;
use super::settings::{self, InvalidSetting};
use super::{ImageLayout, ImageRejected, ImageSize, Piece, VlmFamily};

struct LlavaNext {
    anyres: AnyRes,
    /// The squeezed image alone, with the newline that the model puts behind what has no rows.
    squeezed: Arc<FixedGrid>,
    image_token: TokenId,
}

pub(super) fn build(config: &Value, processor: &Value) -> Result<Arc<dyn VlmFamily>, InvalidSetting> {
    let anyres = AnyRes::new(config, processor)?;
    let squeezed = FixedGrid::stretched(config, processor, anyres.patches.size(), anyres.patches.num_tokens + 1)?;
    Ok(Arc::new(LlavaNext { anyres, squeezed: Arc::new(squeezed), image_token: settings::image_token(config)? }))
}

impl VlmFamily for LlavaNext {
    fn layout(&self, image: ImageSize) -> Result<ImageLayout, ImageRejected> {
        let ImageSize { width, height } = self.anyres.unpadded(image)?;
        let num_tokens = self.anyres.patches.num_tokens + (width + 1) * height;
        Ok(ImageLayout { views: self.anyres.views(image)?, pieces: vec![Piece::Tokens(num_tokens)] })
    }

    fn image_token(&self) -> TokenId {
        self.image_token
    }

    fn anchor(&self) -> TokenId {
        self.image_token
    }

    fn low_detail(&self) -> Option<Arc<dyn VlmFamily>> {
        Some(self.squeezed.clone())
    }
}
