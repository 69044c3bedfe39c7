//! Images of a request: from the addresses the client wrote to decoded pictures. Which addresses may be fetched and how
//! large a picture may be is the image loader's business.

use metrics::{counter, histogram};

use super::Api;
use super::error::{ApiError, ErrorKind};
use crate::images::{Detail, ImageError, ImageFault, ImageLimits, ImageSource, LoadedImage, WantedImage};

/// Data URIs are decoded beside the async workers when they have this many bytes together.
const PARSE_INLINE_BYTES: usize = 256 << 10;

/// An image as a client names it.
#[derive(Debug)]
pub(super) struct ImageLink {
    pub(super) url: String,
    pub(super) detail: Detail,
}

impl From<String> for ImageLink {
    fn from(url: String) -> Self {
        Self { url, detail: Detail::default() }
    }
}

/// What `field` says of the detail of an image: `low`, or `high` or `auto`, which are one here.
pub(super) fn detail(field: &str, value: Option<&str>) -> Result<Detail, ApiError> {
    match value {
        None | Some("auto" | "high") => Ok(Detail::Full),
        Some("low") => Ok(Detail::Low),
        Some(_) => Err(ApiError::field(field, "must be `low`, `high` or `auto`")),
    }
}

/// Loads the images in order. All of them or the first error.
pub(super) async fn load(api: &Api, links: Vec<ImageLink>) -> Result<Vec<LoadedImage>, ApiError> {
    if links.is_empty() {
        return Ok(Vec::new());
    }
    let Some(loader) = &api.images else { return Err(ApiError::validation("this model takes no images")) };
    let images = loader.load(wanted(links, loader.limits()).await?).await?;
    images.iter().for_each(record);
    Ok(images)
}

/// Counts before it decodes: a data URI costs its length.
async fn wanted(links: Vec<ImageLink>, limits: &ImageLimits) -> Result<Vec<WantedImage>, ApiError> {
    let (count, limit, max_bytes) = (links.len(), limits.max_images, limits.max_bytes);
    if count > limit {
        return Err(ImageError::TooMany { count, limit }.into());
    }
    if links.iter().map(|link| link.url.len()).sum::<usize>() < PARSE_INLINE_BYTES {
        return parse(&links, max_bytes);
    }
    let parsed = tokio::task::spawn_blocking(move || parse(&links, max_bytes)).await;
    parsed.unwrap_or_else(|_| Err(ApiError::new(ErrorKind::Internal, "the images could not be read")))
}

fn parse(links: &[ImageLink], max_bytes: u64) -> Result<Vec<WantedImage>, ApiError> {
    let wanted = links.iter().enumerate().map(|(index, link)| {
        let source = ImageSource::parse(&link.url, max_bytes);
        let source = source.map_err(|error| ImageFault::from(error).at(index, links.len()))?;
        if let ImageSource::Inline(bytes) = &source {
            counter!("tgi_image_bytes").increment(bytes.len() as u64);
        }
        Ok(WantedImage { source, detail: link.detail })
    });
    wanted.collect()
}

fn record(image: &LoadedImage) {
    counter!("tgi_image_count").increment(1);
    counter!("tgi_image_pixels").increment(u64::from(image.size.width) * u64::from(image.size.height));
    counter!("tgi_image_cache_hits").increment(u64::from(image.from_cache));
    histogram!("tgi_image_fetch_duration").record(image.timings.fetch);
    histogram!("tgi_image_decode_duration").record(image.timings.decode);
    histogram!("tgi_image_resize_duration").record(image.timings.resize);
}
