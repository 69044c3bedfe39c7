//! Turning an image upright, as `PIL.ImageOps.exif_transpose` does.

use crate::families::ImageSize;

use super::Raster;

/// An EXIF orientation, 1 to 8: how the stored image must be turned and mirrored.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(super) struct Orientation(u8);

impl Orientation {
    /// Nothing to do.
    pub(super) const UPRIGHT: Self = Self(1);

    /// From the number in an EXIF block; unknown numbers mean upright.
    pub(super) fn from_exif(number: u8) -> Self {
        if (1..=8).contains(&number) { Self(number) } else { Self::UPRIGHT }
    }

    /// From an XMP packet: `tiff:Orientation="6"` or `<tiff:Orientation>6<`, the first of them.
    pub(super) fn from_xmp(packet: &[u8]) -> Self {
        const KEY: &[u8] = b"tiff:Orientation";
        let value = |at: usize| match &packet[at + KEY.len()..] {
            [b'=', b'"', digit @ b'0'..=b'9', ..] | [b'>', digit @ b'0'..=b'9', ..] => Some(digit - b'0'),
            _ => None,
        };
        let found = (0..packet.len()).filter(|at| packet[*at..].starts_with(KEY)).find_map(value);
        found.map_or(Self::UPRIGHT, Self::from_exif)
    }

    fn mirrors_rows(self) -> bool {
        matches!(self.0, 2 | 3 | 7 | 8)
    }

    fn mirrors_columns(self) -> bool {
        matches!(self.0, 3 | 4 | 6 | 7)
    }

    fn swaps_sides(self) -> bool {
        self.0 >= 5
    }

    /// The upright image.
    pub(super) fn apply(self, raster: Raster) -> Raster {
        if self == Self::UPRIGHT {
            return raster;
        }
        let (width, height) = (raster.size.width as isize, raster.size.height as isize);
        let (mut start, mut step_x, mut step_y) = (0, 1, width);
        if self.mirrors_rows() {
            start += width - 1;
            step_x = -1;
        }
        if self.mirrors_columns() {
            start += (height - 1) * width;
            step_y = -width;
        }
        let size = if self.swaps_sides() { ImageSize::new(raster.size.height, raster.size.width) } else { raster.size };
        let steps = if self.swaps_sides() { (step_y, step_x) } else { (step_x, step_y) };
        Raster { size, pixels: walk(&raster.pixels, size, start, steps) }
    }
}

/// Copies pixels starting at `start`, moving by the first step inside a row and by the second between rows.
fn walk(pixels: &[u8], size: ImageSize, start: isize, (in_row, between): (isize, isize)) -> Vec<u8> {
    let mut turned = Vec::with_capacity(pixels.len());
    for y in 0..size.height as isize {
        let row = start + y * between;
        for x in 0..size.width as isize {
            let at = (row + x * in_row) as usize * 3;
            turned.extend_from_slice(&pixels[at..at + 3]);
        }
    }
    turned
}
