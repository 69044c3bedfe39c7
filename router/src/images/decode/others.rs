//! PNG, WebP, GIF and BMP through the `image` crate, whose pixels equal Pillow's for all common kinds.

use std::io::Cursor;

use image::codecs::bmp::BmpDecoder;
use image::codecs::gif::GifDecoder;
use image::codecs::png::PngDecoder;
use image::codecs::webp::WebPDecoder;
use image::{DynamicImage, ImageDecoder, ImageResult, Limits};

use crate::families::ImageSize;

use super::orientation::Orientation;
use super::{DecodeFailed, Format, Header, Raster, convert};

/// What a decoder may allocate to read a header and the metadata in front of the pixels.
const MAX_HEADER_BYTES: u64 = 8 << 20;

pub(super) fn size(format: Format, bytes: &[u8]) -> Result<ImageSize, DecodeFailed> {
    // No bound on the sides here: `super::judge` refuses them with a message that has the numbers.
    let mut bounds = Limits::default();
    bounds.max_alloc = Some(MAX_HEADER_BYTES);
    let decoder = open(format, bytes, bounds).map_err(|_| DecodeFailed)?;
    Ok(size_of(&decoder))
}

pub(super) fn decode(bytes: &[u8], header: Header) -> Result<(Raster, Orientation), DecodeFailed> {
    let limits = decoder_limits(header);
    let mut decoder = open(header.format, bytes, limits.clone()).map_err(|_| DecodeFailed)?;
    decoder.set_limits(limits).map_err(|_| DecodeFailed)?;
    let size = size_of(&decoder);
    let orientation = orientation(&mut decoder);
    let image =
        without_wide_colour_key(bytes, header.format, DynamicImage::from_decoder(decoder).map_err(|_| DecodeFailed)?);
    let pixels = convert::to_rgb(image).ok_or(DecodeFailed)?;
    Ok((Raster { size, pixels }, orientation))
}

/// Pillow does not apply a PNG's transparent colour to samples of 16 bits.
fn without_wide_colour_key(bytes: &[u8], format: Format, image: DynamicImage) -> DynamicImage {
    // Bit depth and colour type of the first chunk, which always is the header.
    match (format, bytes.get(24..26)) {
        (Format::Png, Some([16, 0])) => image.into_luma16().into(),
        (Format::Png, Some([16, 2])) => image.into_rgb16().into(),
        _ => image,
    }
}

fn open(format: Format, bytes: &[u8], limits: Limits) -> ImageResult<Box<dyn ImageDecoder + '_>> {
    let reader = Cursor::new(bytes);
    Ok(match format {
        Format::WebP => Box::new(WebPDecoder::new(reader)?),
        Format::Gif => Box::new(GifDecoder::new(reader)?),
        Format::Bmp => Box::new(BmpDecoder::new(reader)?),
        Format::Png | Format::Jpeg => Box::new(PngDecoder::with_limits(reader, limits)?),
    })
}

/// What was judged, once more: a decoder that reads other dimensions than its header reader did gets no further.
fn decoder_limits(header: Header) -> Limits {
    let mut bounds = Limits::default();
    bounds.max_alloc = Some(header.decode_bytes() + MAX_HEADER_BYTES);
    bounds.max_image_width = Some(header.size.width);
    bounds.max_image_height = Some(header.size.height);
    bounds
}

fn size_of(decoder: &dyn ImageDecoder) -> ImageSize {
    let (width, height) = decoder.dimensions();
    ImageSize::new(width, height)
}

/// Pillow looks into XMP only when there is no EXIF orientation. Unreadable metadata means upright.
fn orientation(decoder: &mut dyn ImageDecoder) -> Orientation {
    let exif = decoder.exif_metadata().ok().flatten();
    let exif = exif.as_deref().map(|chunk| chunk.strip_prefix(b"Exif\0\0").unwrap_or(chunk));
    if let Some(found) = exif.and_then(image::metadata::Orientation::from_exif_chunk) {
        return Orientation::from_exif(found.to_exif());
    }
    let xmp = decoder.xmp_metadata().ok().flatten();
    xmp.map_or(Orientation::UPRIGHT, |packet| Orientation::from_xmp(&packet))
}
