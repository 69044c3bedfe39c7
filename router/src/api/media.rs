//! Images of a request: from the addresses the client wrote to decoded pictures. Which addresses may be fetched and how
//! large a picture may be is the image loader's business.

use metrics::{counter, histogram};

use super::Api;
use super::error::ApiError;
use crate::images::{ImageError, ImageFault, ImageLimits, ImageSource, LoadedImage};

/// Loads the images in order. All of them or the first error.
pub(super) async fn load(api: &Api, urls: &[String]) -> Result<Vec<LoadedImage>, ApiError> {
    if urls.is_empty() {
        return Ok(Vec::new());
    }
    let Some(loader) = &api.images else { return Err(ApiError::validation("this model takes no images")) };
    let images = loader.load(parse(urls, loader.limits())?).await?;
    images.iter().for_each(record);
    Ok(images)
}

/// Counts before it decodes: a data URI costs its length.
fn parse(urls: &[String], limits: &ImageLimits) -> Result<Vec<ImageSource>, ApiError> {
    let (count, limit) = (urls.len(), limits.max_images);
    if count > limit {
        return Err(ImageError::TooMany { count, limit }.into());
    }
    let sources = urls.iter().enumerate().map(|(index, url)| {
        ImageSource::parse(url, limits.max_bytes).map_err(|error| ImageFault::from(error).at(index, count).into())
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
