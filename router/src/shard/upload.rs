//! Pixels on their way to the rank that will encode them, in pieces that never hold up the step stream.

use futures::stream;
use text_generation_proto as pb;

use super::{ShardError, ShardGroup};
use crate::images::LoadedImage;

/// Sends the views of one image to `rank`.
pub async fn put_image(
    group: &ShardGroup,
    rank: usize,
    image: &LoadedImage,
    num_tokens: u32,
) -> Result<(), ShardError> {
    let chunks = chunks(image, num_tokens);
    let answer = group.client(rank).put_image(stream::iter(chunks)).await;
    answer.map_err(super::group::refused(rank, "PutImage"))?;
    Ok(())
}

fn chunks(image: &LoadedImage, num_tokens: u32) -> Vec<pb::ImageChunk> {
    let mut chunks = vec![pb::ImageChunk { header: Some(header(image, num_tokens)), ..Default::default() }];
    let mut offset = 0;
    for view in image.views.iter() {
        for start in (0..view.pixels.len()).step_by(pb::IMAGE_CHUNK_BYTES) {
            let end = view.pixels.len().min(start + pb::IMAGE_CHUNK_BYTES);
            chunks.push(pb::ImageChunk { header: None, offset, data: view.pixels.slice(start..end) });
            offset += (end - start) as u64;
        }
    }
    chunks
}

fn header(image: &LoadedImage, num_tokens: u32) -> pb::ImageHeader {
    let views = image.views.iter();
    pb::ImageHeader {
        key: image.key.0.to_vec().into(),
        original_width: image.size.width,
        original_height: image.size.height,
        views: views.map(|view| pb::ViewSize { width: view.size.width, height: view.size.height }).collect(),
        num_tokens,
    }
}
