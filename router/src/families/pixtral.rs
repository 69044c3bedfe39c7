//! Pixtral's geometry: an image keeps its ratio, up to a largest size, and is cut into patches row by row. Behind each
//! row stands a marker, so the decoder can tell its shape. Shared by `llava` with a Pixtral encoder and `mistral3`.

use std::sync::Arc;

use serde_json::Value;
use text_generation_scheduler::TokenId;

use super::settings::{self, InvalidSetting};
use super::{Filter, ImageLayout, ImageRejected, ImageSize, LOW_DETAIL_TOKENS, Piece, View, VlmFamily};

/// No encoder of this kind is larger; a larger number is a broken checkpoint.
const MAX_SIDE: u32 = 1 << 15;

/// One view of a variable size; a run of image tokens and a marker for each row.
#[derive(Clone)]
struct PatchRows {
    /// Larger images shrink to fit into it.
    largest: ImageSize,
    /// Side of the square that becomes one embedding.
    patch: u32,
    filter: Filter,
    image_token: TokenId,
    row_end: String,
    image_end: String,
}

pub(super) fn build(config: &Value, processor: &Value) -> Result<Arc<dyn VlmFamily>, InvalidSetting> {
    Ok(Arc::new(PatchRows {
        largest: largest(processor)?,
        patch: patch(processor)?,
        filter: settings::filter(processor)?,
        image_token: settings::image_token(config)?,
        row_end: settings::text_or(processor, "image_break_token", "[IMG_BREAK]")?,
        image_end: settings::text_or(processor, "image_end_token", "[IMG_END]")?,
    }))
}

impl VlmFamily for PatchRows {
    fn layout(&self, image: ImageSize) -> Result<ImageLayout, ImageRejected> {
        let ImageSize { width, height } = image;
        if image.pixels() == 0 {
            return Err(ImageRejected::Empty { width, height });
        }
        let grid = self.grid(image).ok_or(ImageRejected::AspectRatio { width, height })?;
        let size = ImageSize::new(grid.width * self.patch, grid.height * self.patch);
        Ok(ImageLayout { views: vec![View::resized(size, self.filter)], pieces: self.rows(grid) })
    }

    fn image_token(&self) -> TokenId {
        self.image_token
    }

    fn anchor(&self) -> TokenId {
        self.image_token
    }

    /// The processor's own with a smaller `size`.
    fn low_detail(&self) -> Option<Arc<dyn VlmFamily>> {
        let side = LOW_DETAIL_TOKENS.isqrt().saturating_mul(self.patch);
        let largest = ImageSize::new(self.largest.width.min(side), self.largest.height.min(side));
        let low = Self { largest, ..self.clone() };
        (largest != self.largest).then(|| Arc::new(low) as Arc<dyn VlmFamily>)
    }
}

impl PatchRows {
    /// Columns and rows of patches: the last ones may stick out, and the image is stretched over them.
    fn grid(&self, image: ImageSize) -> Option<ImageSize> {
        let (width, height) = (f64::from(image.width), f64::from(image.height));
        let ratio = (height / f64::from(self.largest.height)).max(width / f64::from(self.largest.width));
        let fitted = |side: f64| if ratio > 1.0 { (side / ratio).floor() as u32 } else { side as u32 };
        let grid = ImageSize::new(fitted(width).div_ceil(self.patch), fitted(height).div_ceil(self.patch));
        // The processor finds no pixel in the short side of a line.
        (grid.pixels() > 0).then_some(grid)
    }

    fn rows(&self, grid: ImageSize) -> Vec<Piece> {
        let end = |row| if row == grid.height { &self.image_end } else { &self.row_end };
        let row = |row| [Piece::Tokens(grid.width), Piece::Text(end(row).clone().into())];
        (1..=grid.height).flat_map(row).collect()
    }
}

fn largest(processor: &Value) -> Result<ImageSize, InvalidSetting> {
    if !settings::flag(processor, "do_resize")? {
        return Err(InvalidSetting::unsupported("do_resize", "images must be resized to whole patches"));
    }
    if settings::optional_flag(processor, "do_center_crop")? {
        return Err(InvalidSetting::unsupported("do_center_crop", "cutting is not supported"));
    }
    let size = processor.get("size").unwrap_or(&Value::Null);
    let largest = if settings::is_absent(size, "longest_edge") {
        settings::size(processor, "size")?
    } else {
        let edge = settings::positive(size, "longest_edge")?;
        ImageSize::new(edge, edge)
    };
    if largest.width.max(largest.height) > MAX_SIDE {
        return Err(InvalidSetting::unsupported("size", format!("no side may exceed {MAX_SIDE} pixels")));
    }
    Ok(largest)
}

/// The outer processor's patches, merged as the projector merges them; it overrules the image processor's own.
fn patch(processor: &Value) -> Result<u32, InvalidSetting> {
    let patch = settings::integer_or(processor, "processor_patch_size", 16)?;
    let merged = settings::integer_or(processor, "spatial_merge_size", 1)?;
    patch.checked_mul(merged).filter(|side| (1..=MAX_SIDE).contains(side)).ok_or_else(|| {
        InvalidSetting::unsupported("patch_size", format!("{patch} pixels merged by {merged} make no patch"))
    })
}
