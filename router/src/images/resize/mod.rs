//! Resizing that equals Pillow (13.0 and later) byte for byte.
//!
//! Pillow resizes in two passes, clips to 8 bits after each, and so depends on which pass comes first; version 13
//! changed that order. [`PILLOW_RULE`] names the behaviour and is part of every image's identity. Like Pillow, a pass
//! is skipped where the size does not change, and filters widen when they shrink (antialiasing) but never when they
//! enlarge. Unlike Pillow, only the kept rectangle of the result is computed, which changes no pixel of it.
//!
//! `scalar` is the definition; `avx2` is the same arithmetic for machines that have it.

use std::ops::Range;

use crate::families::{Filter, ImageSize, Rect};

#[cfg(target_arch = "x86_64")]
mod avx2;
mod canvas;
mod kernel;
mod scalar;
#[cfg(test)]
mod tests;

pub(super) use canvas::{Canvas, between};
use kernel::Kernel;

/// The Pillow version whose pass order this is. Change it together with [`vertical_first`].
pub const PILLOW_RULE: u8 = 13;

/// Bytes of an RGB8 pixel.
pub(super) const CHANNELS: usize = 3;

/// Rows of RGB8 pixels inside a larger buffer.
#[derive(Copy, Clone)]
pub(super) struct Rows<'a> {
    /// Starts with the first pixel; may hold bytes beyond the last.
    pixels: &'a [u8],
    /// Bytes from one row to the next.
    stride: usize,
    width: usize,
    height: usize,
}

impl<'a> Rows<'a> {
    /// All rows of a packed image. The caller has checked the length.
    pub(super) fn packed(pixels: &'a [u8], size: ImageSize) -> Self {
        let (width, height) = (size.width as usize, size.height as usize);
        debug_assert_eq!(pixels.len(), width * height * CHANNELS);
        Self { pixels, stride: width * CHANNELS, width, height }
    }

    /// The part of these rows inside `rect`, which must fit.
    pub(super) fn cut(self, rect: Rect) -> Self {
        let (x, y) = (rect.x as usize, rect.y as usize);
        self.part(x..x + rect.size.width as usize, y..y + rect.size.height as usize)
    }

    fn part(self, columns: Range<usize>, rows: Range<usize>) -> Self {
        let start = rows.start * self.stride + columns.start * CHANNELS;
        Self { pixels: &self.pixels[start..], width: columns.len(), height: rows.len(), ..self }
    }

    fn row(&self, y: usize) -> &'a [u8] {
        &self.pixels[y * self.stride..][..self.width * CHANNELS]
    }

    /// Columns and rows.
    pub(super) fn size(&self) -> ImageSize {
        ImageSize::new(self.width as u32, self.height as u32)
    }

    /// The rows, first to last.
    pub(super) fn each(self) -> impl Iterator<Item = &'a [u8]> {
        (0..self.height).map(move |y| self.row(y))
    }

    /// The pixels, packed.
    pub(super) fn to_vec(self) -> Vec<u8> {
        let mut pixels = Vec::with_capacity(self.width * CHANNELS * self.height);
        self.each().for_each(|row| pixels.extend_from_slice(row));
        pixels
    }
}

/// What one dimension needs: which source lines, and how they are weighted (`None`: taken as they are).
struct Axis {
    source: Range<usize>,
    kernel: Option<Kernel>,
    outputs: usize,
}

impl Axis {
    fn new(from: usize, to: usize, kept: Range<usize>, filter: Filter) -> Self {
        let outputs = kept.len();
        if from == to {
            return Self { source: kept, kernel: None, outputs };
        }
        let kernel = Kernel::new(from, to, kept, filter);
        Self { source: kernel.source(), kernel: Some(kernel), outputs }
    }

    fn horizontal(&self, rows: Rows<'_>) -> Option<Vec<u8>> {
        self.kernel.as_ref().map(|kernel| horizontal(rows, kernel))
    }

    fn vertical(&self, rows: Rows<'_>) -> Option<Vec<u8>> {
        self.kernel.as_ref().map(|kernel| vertical(rows, kernel))
    }
}

/// The rectangle `kept` of `rows` resized to `size`: packed RGB8.
pub(super) fn resize(rows: Rows<'_>, size: ImageSize, kept: Rect, filter: Filter) -> Vec<u8> {
    let range = |start: u32, length: u32| start as usize..start as usize + length as usize;
    let x = Axis::new(rows.width, size.width as usize, range(kept.x, kept.size.width), filter);
    let y = Axis::new(rows.height, size.height as usize, range(kept.y, kept.size.height), filter);
    let needed = rows.part(x.source.clone(), y.source.clone());
    if vertical_first((rows.width, rows.height), size) {
        two_passes(needed, |rows| y.vertical(rows), |rows| x.horizontal(rows), (needed.width, y.outputs))
    } else {
        two_passes(needed, |rows| x.horizontal(rows), |rows| y.vertical(rows), (x.outputs, needed.height))
    }
}

fn two_passes(
    rows: Rows<'_>,
    first: impl Fn(Rows<'_>) -> Option<Vec<u8>>,
    second: impl Fn(Rows<'_>) -> Option<Vec<u8>>,
    (width, height): (usize, usize),
) -> Vec<u8> {
    let Some(between) = first(rows) else {
        return second(rows).unwrap_or_else(|| rows.to_vec());
    };
    let halfway = Rows { pixels: &between, stride: width * CHANNELS, width, height };
    second(halfway).unwrap_or(between)
}

/// Pillow 13: the vertical pass comes first if it removes more than twice as many lines as the horizontal one.
fn vertical_first((width, height): (usize, usize), size: ImageSize) -> bool {
    let removed_rows = height as i64 - i64::from(size.height);
    let removed_columns = width as i64 - i64::from(size.width);
    removed_rows > 0 && removed_rows > 2 * removed_columns
}

fn horizontal(rows: Rows<'_>, kernel: &Kernel) -> Vec<u8> {
    #[cfg(target_arch = "x86_64")]
    if let Some(pixels) = avx2::horizontal(rows, kernel) {
        return pixels;
    }
    scalar::horizontal(rows, kernel)
}

fn vertical(rows: Rows<'_>, kernel: &Kernel) -> Vec<u8> {
    #[cfg(target_arch = "x86_64")]
    if let Some(pixels) = avx2::vertical(rows, kernel) {
        return pixels;
    }
    scalar::vertical(rows, kernel)
}
