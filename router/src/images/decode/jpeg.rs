//! JPEG through `libjpeg-turbo-rs`, whose pixels equal libjpeg-turbo's and so Pillow's. It is strict here: a file it
//! does not understand is refused rather than shown with other pixels.

use libjpeg_turbo_rs::{DecodeLimits, Decoder, PixelFormat};

use crate::families::ImageSize;

use super::orientation::Orientation;
use super::{DecodeFailed, Header, Raster, convert};

/// Scans of one file. Progressive encoders write 6 to 20; each scan costs a pass over the whole image.
const MAX_SCANS: usize = 64;

pub(super) fn size(bytes: &[u8]) -> Result<ImageSize, DecodeFailed> {
    Ok(size_of(&open(bytes, DecodeLimits { max_scans: MAX_SCANS, ..DecodeLimits::strict() })?))
}

pub(super) fn decode(bytes: &[u8], header: Header) -> Result<(Raster, Orientation), DecodeFailed> {
    let limits = DecodeLimits {
        max_width: header.size.width as usize,
        max_height: header.size.height as usize,
        max_pixels: header.size.pixels(),
        max_scans: MAX_SCANS,
        max_memory: Some(header.decode_bytes()),
    };
    let mut decoder = open(bytes, limits)?;
    let orientation = orientation(&decoder);
    let layout = output_layout(&decoder)?;
    decoder.set_output_format(layout);
    let image = decoder.decode_image().map_err(|_| DecodeFailed)?;
    let size = size_of(&decoder);
    Ok((Raster { size, pixels: to_rgb(image.data, layout) }, orientation))
}

fn open(bytes: &[u8], limits: DecodeLimits) -> Result<Decoder<'_>, DecodeFailed> {
    let decoder = Decoder::new_with_limits(bytes, limits).map_err(|_| DecodeFailed)?;
    let frame = decoder.header();
    // Twelve bits and lossless frames are other codecs under the same name; Pillow refuses them too.
    if frame.precision == 8 && !frame.is_lossless { Ok(decoder) } else { Err(DecodeFailed) }
}

fn size_of(decoder: &Decoder<'_>) -> ImageSize {
    ImageSize::new(u32::from(decoder.header().width), u32::from(decoder.header().height))
}

fn orientation(decoder: &Decoder<'_>) -> Orientation {
    match decoder.exif_orientation() {
        Some(number) => Orientation::from_exif(number),
        None => decoder.xmp_data().map_or(Orientation::UPRIGHT, Orientation::from_xmp),
    }
}

fn output_layout(decoder: &Decoder<'_>) -> Result<PixelFormat, DecodeFailed> {
    match decoder.header().components.len() {
        1 => Ok(PixelFormat::Grayscale),
        3 => Ok(PixelFormat::Rgb),
        4 => Ok(PixelFormat::Cmyk),
        _ => Err(DecodeFailed),
    }
}

fn to_rgb(data: Vec<u8>, layout: PixelFormat) -> Vec<u8> {
    match layout {
        PixelFormat::Grayscale => convert::grey(&data),
        PixelFormat::Cmyk => convert::cmyk(&data),
        _ => data,
    }
}
