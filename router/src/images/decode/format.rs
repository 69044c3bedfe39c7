//! The fixed list of formats, told apart by their first bytes.

use super::ImageFault;

/// A format that is decoded.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub enum Format {
    /// Portable Network Graphics.
    Png,
    /// JPEG, baseline and progressive.
    Jpeg,
    /// WebP, lossy and lossless.
    WebP,
    /// GIF, first frame.
    Gif,
    /// Windows bitmap.
    Bmp,
}

/// Bytes that name a format which is not decoded, so that the refusal can say so.
const REFUSED: &[(&[u8], &str)] = &[
    (b"II*\0", "TIFF files are not supported"),
    (b"MM\0*", "TIFF files are not supported"),
    (b"%PDF", "PDF files are not supported"),
    (b"<svg", "SVG files are not supported"),
    (b"<?xml", "XML and SVG files are not supported"),
    (b"<!DOCTYPE", "this is a web page, not an image"),
    (b"<html", "this is a web page, not an image"),
];

impl Format {
    /// The format of these bytes.
    pub fn of(bytes: &[u8]) -> Result<Self, ImageFault> {
        match bytes {
            [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n', ..] => Ok(Self::Png),
            [0xff, 0xd8, 0xff, ..] => Ok(Self::Jpeg),
            [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Ok(Self::WebP),
            [b'G', b'I', b'F', b'8', b'7' | b'9', b'a', ..] => Ok(Self::Gif),
            [b'B', b'M', ..] => Ok(Self::Bmp),
            _ => Err(ImageFault::Format { found: refusal(bytes) }),
        }
    }

    /// Its usual name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Png => "PNG",
            Self::Jpeg => "JPEG",
            Self::WebP => "WebP",
            Self::Gif => "GIF",
            Self::Bmp => "BMP",
        }
    }
}

fn refusal(bytes: &[u8]) -> &'static str {
    // ISO base media files name their kind in the first box.
    if bytes.get(4..8) == Some(b"ftyp") {
        return "HEIC, AVIF and video files are not supported";
    }
    let named = REFUSED.iter().find(|(magic, _)| bytes.starts_with(magic));
    named.map_or("the bytes are no image", |(_, text)| text)
}
