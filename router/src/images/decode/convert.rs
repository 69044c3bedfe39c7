//! Every pixel layout to RGB8, each by the rule of Pillow's mode for it (see the module above for the rules).

use image::DynamicImage;

/// RGB8 bytes of whatever a decoder produced; `None` for layouts that no supported format has.
pub(super) fn to_rgb(image: DynamicImage) -> Option<Vec<u8>> {
    match image {
        DynamicImage::ImageRgb8(pixels) => Some(pixels.into_raw()),
        DynamicImage::ImageLuma8(pixels) => Some(grey(&pixels.into_raw())),
        DynamicImage::ImageLumaA8(pixels) => Some(grey_on_white(&pixels.into_raw())),
        DynamicImage::ImageRgba8(pixels) => Some(on_white(&pixels.into_raw())),
        DynamicImage::ImageLuma16(pixels) => Some(grey(&clipped(&pixels.into_raw()))),
        DynamicImage::ImageLumaA16(pixels) => Some(grey_on_white(&high_bytes(&pixels.into_raw()))),
        DynamicImage::ImageRgb16(pixels) => Some(high_bytes(&pixels.into_raw())),
        DynamicImage::ImageRgba16(pixels) => Some(on_white(&high_bytes(&pixels.into_raw()))),
        _ => None,
    }
}

pub(super) fn grey(pixels: &[u8]) -> Vec<u8> {
    pixels.iter().flat_map(|level| [*level; 3]).collect()
}

fn grey_on_white(pixels: &[u8]) -> Vec<u8> {
    pixels.as_chunks().0.iter().flat_map(|[level, alpha]| [over_white(*level, *alpha); 3]).collect()
}

fn on_white(pixels: &[u8]) -> Vec<u8> {
    pixels
        .as_chunks()
        .0
        .iter()
        .flat_map(|[red, green, blue, alpha]| [red, green, blue].map(|level| over_white(*level, *alpha)))
        .collect()
}

fn high_bytes(samples: &[u16]) -> Vec<u8> {
    samples.iter().map(|sample| (sample >> 8) as u8).collect()
}

fn clipped(samples: &[u16]) -> Vec<u8> {
    samples.iter().map(|sample| (*sample).min(255) as u8).collect()
}

/// `Image.alpha_composite` over opaque white: seven extra bits, and a division by 255 made of shifts.
fn over_white(level: u8, alpha: u8) -> u8 {
    const EXTRA_BITS: u32 = 7;
    let alpha = u32::from(alpha);
    if alpha == 0 {
        return 255;
    }
    let sum = ((u32::from(level) * alpha + 255 * (255 - alpha)) << EXTRA_BITS) + (0x80 << EXTRA_BITS);
    ((((sum >> 8) + sum) >> 8) >> EXTRA_BITS) as u8
}

/// Inverted CMYK (what Photoshop and therefore everyone writes) to RGB8, with Pillow's rounding.
pub(super) fn cmyk(pixels: &[u8]) -> Vec<u8> {
    pixels
        .as_chunks()
        .0
        .iter()
        .flat_map(|[cyan, magenta, yellow, black]| [cyan, magenta, yellow].map(|ink| uninked(*ink, *black)))
        .collect()
}

/// The light that one inverted ink and inverted black leave.
fn uninked(ink: u8, black: u8) -> u8 {
    let (ink, light) = (255 - i32::from(ink), i32::from(black));
    let product = ink * light + 128;
    (light - (((product >> 8) + product) >> 8)).clamp(0, 255) as u8
}
