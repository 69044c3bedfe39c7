//! Images of a request: from the addresses the client wrote to decoded pictures. Which addresses may be fetched and how
//! large a picture may be is the image loader's business.

use metrics::{counter, histogram};

use super::Api;
use super::error::{ApiError, ErrorKind};
use crate::images::{ImageError, ImageFault, ImageLimits, ImageSource, LoadedImage};

/// Data URIs are decoded beside the async workers when they have this many bytes together.
const PARSE_INLINE_BYTES: usize = 256 << 10;

/// Loads the images in order. All of them or the first error.
pub(super) async fn load(api: &Api, urls: Vec<String>) -> Result<Vec<LoadedImage>, ApiError> {
    if urls.is_empty() {
        return Ok(Vec::new());
    }
    let Some(loader) = &api.images else { return Err(ApiError::validation("this model takes no images")) };
    let images = loader.load(sources(urls, loader.limits()).await?).await?;
    images.iter().for_each(record);
    Ok(images)
}

/// Counts before it decodes: a data URI costs its length.
async fn sources(urls: Vec<String>, limits: &ImageLimits) -> Result<Vec<ImageSource>, ApiError> {
    let (count, limit, max_bytes) = (urls.len(), limits.max_images, limits.max_bytes);
    if count > limit {
        return Err(ImageError::TooMany { count, limit }.into());
    }
    if urls.iter().map(String::len).sum::<usize>() < PARSE_INLINE_BYTES {
        return parse(&urls, max_bytes);
    }
    let parsed = tokio::task::spawn_blocking(move || parse(&urls, max_bytes)).await;
    parsed.unwrap_or_else(|_| Err(ApiError::new(ErrorKind::Internal, "the images could not be read")))
}

fn parse(urls: &[String], max_bytes: u64) -> Result<Vec<ImageSource>, ApiError> {
    let sources = urls.iter().enumerate().map(|(index, url)| {
        let source =
            ImageSource::parse(url, max_bytes).map_err(|error| ImageFault::from(error).at(index, urls.len()))?;
        if let ImageSource::Inline(bytes) = &source {
            counter!("tgi_image_bytes").increment(bytes.len() as u64);
        }
        Ok(source)
    });
    sources.collect()
}

fn record(image: &LoadedImage) {
    counter!("tgi_image_count").increment(1);
    counter!("tgi_image_pixels").increment(u64::from(image.size.width) * u64::from(image.size.height));
    counter!("tgi_image_cache_hits").increment(u64::from(image.from_cache));
    histogram!("tgi_image_fetch_duration").record(image.timings.fetch);
    histogram!("tgi_image_decode_duration").record(image.timings.decode);
    histogram!("tgi_image_resize_duration").record(image.timings.resize);
}
