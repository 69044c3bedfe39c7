//! Content identity: two images with the same key are the same input to the same model.
//!
//! BLAKE3 at full width. Every field is of fixed length or preceded by its length, so no two inputs share a byte string.

use blake3::Hasher;
use text_generation_scheduler::ImageKey;

use crate::families::{ImageLayout, ImageSize, Operation, Rect};

use super::resize::PILLOW_RULE;
use super::view::RgbView;

/// Changes when the meaning of any hashed field does.
const VIEWS_DOMAIN: &str = "text-generation-vlm image views 2";
const SOURCE_DOMAIN: &str = "text-generation-vlm image source 1";
const SEVERAL_DOMAIN: &str = "text-generation-vlm several images 1";
const LOW_DETAIL_DOMAIN: &str = "text-generation-vlm low detail 1";

/// Names the views of an image: model, original size, geometry, filter, resizing rule and every pixel.
pub(super) fn image_key(model: &[u8; 32], image: ImageSize, layout: &ImageLayout, views: &[RgbView]) -> ImageKey {
    let mut hasher = Hasher::new_derive_key(VIEWS_DOMAIN);
    hasher.update(model).update(&[PILLOW_RULE]);
    update_size(&mut hasher, image);
    hasher.update(&(views.len() as u64).to_le_bytes());
    for (view, rgb) in layout.views.iter().zip(views) {
        hasher.update(&(view.0.len() as u64).to_le_bytes());
        view.0.iter().for_each(|operation| update_operation(&mut hasher, *operation));
        update_size(&mut hasher, rgb.size);
        hasher.update(&rgb.pixels);
    }
    ImageKey(*hasher.finalize().as_bytes())
}

/// Names the encoded bytes of an image for a model: what the cache of prepared images is looked up by.
pub(super) fn source_key(model: &[u8; 32], bytes: &[u8]) -> [u8; 32] {
    *Hasher::new_derive_key(SOURCE_DOMAIN).update(model).update(bytes).finalize().as_bytes()
}

/// Names a model where the rules for several images are not those for one: its images are cached apart.
pub(super) fn of_several(model: &[u8; 32]) -> [u8; 32] {
    *Hasher::new_derive_key(SEVERAL_DOMAIN).update(model).finalize().as_bytes()
}

/// The same for the rules at low detail.
pub(super) fn of_low_detail(model: &[u8; 32]) -> [u8; 32] {
    *Hasher::new_derive_key(LOW_DETAIL_DOMAIN).update(model).finalize().as_bytes()
}

fn update_size(hasher: &mut Hasher, size: ImageSize) {
    hasher.update(&size.width.to_le_bytes()).update(&size.height.to_le_bytes());
}

/// Each kind begins with its own byte and has a fixed length.
fn update_operation(hasher: &mut Hasher, operation: Operation) {
    match operation {
        Operation::Cut(rect) => update_rect(hasher.update(&[0]), rect),
        Operation::Resize { size, filter } => update_size(hasher.update(&[1, filter as u8]), size),
        Operation::Pad { size, x, y, colour } => {
            update_size(hasher.update(&[2]).update(&colour), size);
            hasher.update(&x.to_le_bytes()).update(&y.to_le_bytes());
        }
    }
}

fn update_rect(hasher: &mut Hasher, rect: Rect) {
    hasher.update(&rect.x.to_le_bytes()).update(&rect.y.to_le_bytes());
    update_size(hasher, rect.size);
}
