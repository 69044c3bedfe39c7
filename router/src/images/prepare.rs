//! One image, start to end, on the calling thread: header, limits, decode, layout, views, key. Blocking work that the
//! loader runs on its pool and a benchmark runs directly.

use std::sync::Arc;
use std::time::{Duration, Instant};

use text_generation_scheduler::ImageKey;

use crate::families::{ImageLayout, ImageSize, VlmFamily};

use super::decode::{self, Header};
use super::error::ImageFault;
use super::identity;
use super::limits::ImageLimits;
use super::render;
use super::view::RgbView;

/// The model that images are prepared for.
#[derive(Clone)]
pub struct ImageModel {
    /// What an image becomes.
    pub family: Arc<dyn VlmFamily>,
    /// Names checkpoint, revision and processor settings; part of every image's key.
    pub identity: [u8; 32],
}

impl ImageModel {
    /// The model as it sees each image of a prompt with several.
    pub(super) fn of_several(&self) -> Self {
        let several = |family| Self { family, identity: identity::of_several(&self.identity) };
        self.family.several().map_or_else(|| self.clone(), several)
    }

    /// The model as it sees an image at low detail, if that is another thing to it.
    pub(super) fn of_low_detail(&self) -> Option<Self> {
        let family = self.family.low_detail()?;
        Some(Self { family, identity: identity::of_low_detail(&self.identity) })
    }
}

/// How long each stage took; zero for a stage that a cache made unnecessary.
#[derive(Copy, Clone, Debug, Default, Eq, PartialEq)]
pub struct ImageTimings {
    /// From the request to the last byte, waiting for a place included. Zero for inline images.
    pub fetch: Duration,
    /// Encoded bytes to upright RGB8.
    pub decode: Duration,
    /// RGB8 to views, hashing included.
    pub resize: Duration,
}

/// An image as the shard will see it. Cheap to clone.
#[derive(Clone)]
pub struct PreparedImage {
    /// Names exactly these views of exactly this model.
    pub key: ImageKey,
    /// Size of the upright original.
    pub size: ImageSize,
    /// Views and tokens.
    pub layout: Arc<ImageLayout>,
    /// The pixels of the views, in the layout's order.
    pub views: Arc<Vec<RgbView>>,
    /// `fetch` is zero.
    pub timings: ImageTimings,
}

/// Everything between the bytes of a file and the views of a model.
pub fn prepare_bytes(bytes: &[u8], model: &ImageModel, limits: &ImageLimits) -> Result<PreparedImage, ImageFault> {
    let header = decode::read_header(bytes, limits)?;
    prepare(bytes, header, model)
}

/// The same, for a header that was read and judged before.
pub(super) fn prepare(bytes: &[u8], header: Header, model: &ImageModel) -> Result<PreparedImage, ImageFault> {
    let started = Instant::now();
    let raster = decode::decode(bytes, header)?;
    let decoded = Instant::now();
    let layout = model.family.layout(raster.size)?;
    if !render::fits(&layout, raster.size) {
        return Err(ImageFault::Internal);
    }
    let views = render::render(&raster.pixels, raster.size, &layout.views);
    let key = identity::image_key(&model.identity, raster.size, &layout, &views);
    let timings = ImageTimings { decode: decoded - started, resize: decoded.elapsed(), ..ImageTimings::default() };
    Ok(PreparedImage { key, size: raster.size, layout: Arc::new(layout), views: Arc::new(views), timings })
}

#[cfg(test)]
mod tests;
