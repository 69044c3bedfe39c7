//! Encoded bytes to RGB8 pixels, upright.
//!
//! The format is read from the bytes, never from what a client or server declared: PNG, JPEG, WebP, GIF, BMP, and
//! nothing else. Dimensions are read and judged before a pixel is decoded, and the decoders get the same limits again.
//! A decoder that panics costs its image, not the process.
//!
//! The reference is Pillow followed by the Hugging Face processor's `convert_to_rgb`:
//!
//! - The EXIF orientation (or, without one, the XMP orientation) is applied first.
//! - **Transparency is composited on white**, with Pillow's rounding. The processors of transformers 5.23 do this;
//!   older ones, and `transformers.image_utils.load_image`, drop the alpha channel and show whatever colour a file
//!   hides under its transparent pixels, which is black more often than not.
//! - Colour with 16 bits a channel keeps the high byte. Grey with 16 bits **clips** at 255, as Pillow's `I;16` does.
//! - CMYK is taken as inverted, as Photoshop writes it. Colour profiles are ignored.
//! - Of an animation the first frame counts.
//! - A file that ends early is refused, not filled up with grey.
//!
//! Known differences, each where Pillow departs from the format's own rules: a transparent colour of a PNG with 2 or 4
//! bits of grey is honoured, and the part of a GIF's canvas that its first frame leaves uncovered is white.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::families::ImageSize;

use super::error::ImageFault;
use super::limits::{DECODE_BYTES_PER_PIXEL, ImageLimits};

mod convert;
mod format;
mod jpeg;
mod orientation;
mod others;
#[cfg(test)]
mod tests;

pub use format::Format;

/// RGB8 pixels, rows packed.
#[derive(Clone, Eq, PartialEq)]
pub struct Raster {
    /// Columns and rows.
    pub size: ImageSize,
    /// `width * height * 3` bytes.
    pub pixels: Vec<u8>,
}

/// What the first bytes of a file say, judged against the limits.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub struct Header {
    /// The format its content has.
    pub format: Format,
    /// Its size as stored, before orientation.
    pub size: ImageSize,
}

impl Header {
    /// Bytes a decoder may need for this image.
    pub fn decode_bytes(&self) -> u64 {
        self.size.pixels().saturating_mul(DECODE_BYTES_PER_PIXEL)
    }
}

/// A decoder's own error says nothing a client may see.
struct DecodeFailed;

/// Reads format and dimensions and judges them; decodes nothing.
pub fn read_header(bytes: &[u8], limits: &ImageLimits) -> Result<Header, ImageFault> {
    let format = Format::of(bytes)?;
    let size = guarded(format, || match format {
        Format::Jpeg => jpeg::size(bytes),
        _ => others::size(format, bytes),
    })?;
    judge(size, limits)?;
    Ok(Header { format, size })
}

/// Decodes an image whose header was read from the same bytes.
pub fn decode(bytes: &[u8], header: Header) -> Result<Raster, ImageFault> {
    let (raster, orientation) = guarded(header.format, || match header.format {
        Format::Jpeg => jpeg::decode(bytes, header),
        _ => others::decode(bytes, header),
    })?;
    // The rest of the pipeline indexes by size; a decoder that returned another amount must not get that far.
    if raster.size != header.size || raster.pixels.len() as u64 != header.size.pixels() * 3 {
        return Err(undecodable(header.format));
    }
    Ok(orientation.apply(raster))
}

fn judge(size: ImageSize, limits: &ImageLimits) -> Result<(), ImageFault> {
    let ImageSize { width, height } = size;
    let sides = 1..=limits.max_side;
    if !sides.contains(&width) || !sides.contains(&height) {
        return Err(ImageFault::Side { width, height, limit: limits.max_side });
    }
    if size.pixels() > limits.max_pixels {
        return Err(ImageFault::TooManyPixels { width, height, limit: limits.max_pixels });
    }
    Ok(())
}

fn guarded<T>(format: Format, work: impl FnOnce() -> Result<T, DecodeFailed>) -> Result<T, ImageFault> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(DecodeFailed)) | Err(_) => Err(undecodable(format)),
    }
}

fn undecodable(format: Format) -> ImageFault {
    ImageFault::Undecodable { format: format.name() }
}
