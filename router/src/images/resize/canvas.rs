//! Resizing pixels on a larger canvas without making the canvas: a line of pixels on its square would take thousands
//! of times its own memory. No pixel differs from padding first and resizing then.

use crate::families::{Filter, ImageSize};

use super::{Axis, CHANNELS, Rows, vertical_first};

/// Rows that are put on the canvas at once.
const STRIP: usize = 32;

/// Where pixels lie on an area of one colour.
#[derive(Copy, Clone)]
pub(in crate::images) struct Canvas {
    pub(in crate::images) size: ImageSize,
    /// Columns left of the pixels, and rows above them.
    pub(in crate::images) corner: (u32, u32),
    pub(in crate::images) colour: [u8; CHANNELS],
}

/// Pixels that exist at a time while a canvas is resized to `size`; `None` where all of it must be made.
pub(in crate::images) fn between(canvas: ImageSize, size: ImageSize) -> Option<ImageSize> {
    let rows_first = vertical_first((canvas.width as usize, canvas.height as usize), size);
    (!rows_first).then_some(ImageSize::new(size.width, canvas.height))
}

impl Canvas {
    /// `rows` on this canvas, which they fit.
    pub(in crate::images) fn with(&self, rows: Rows<'_>) -> Vec<u8> {
        let above = self.corner.1 as usize;
        let mut pixels = self.blank(above);
        pixels.extend(self.strip(rows));
        pixels.extend(self.blank(self.size.height as usize - above - rows.height));
        pixels
    }

    /// The same, resized to `size`. The caller has asked [`between`].
    pub(in crate::images) fn resized(&self, rows: Rows<'_>, size: ImageSize, filter: Filter) -> Vec<u8> {
        let axis = |from: u32, to: u32| Axis::new(from as usize, to as usize, 0..to as usize, filter);
        let (x, y) = (axis(self.size.width, size.width), axis(self.size.height, size.height));
        let between = self.narrowed(rows, &x);
        let halfway = Rows::packed(&between, ImageSize::new(size.width, self.size.height));
        y.vertical(halfway.part(0..x.outputs, y.source.clone())).unwrap_or(between)
    }

    /// Every row of the canvas after the horizontal pass.
    fn narrowed(&self, rows: Rows<'_>, x: &Axis) -> Vec<u8> {
        let narrow = |pixels: Vec<u8>, height: usize| {
            let wide = Rows::packed(&pixels, ImageSize::new(self.size.width, height as u32));
            x.horizontal(wide.part(x.source.clone(), 0..height)).unwrap_or(pixels)
        };
        let (above, blank) = (self.corner.1 as usize, narrow(self.blank(1), 1));
        let mut narrowed = blank.repeat(above);
        for start in (0..rows.height).step_by(STRIP) {
            let strip = rows.part(0..rows.width, start..rows.height.min(start + STRIP));
            narrowed.extend(narrow(self.strip(strip), strip.height));
        }
        narrowed.extend(blank.repeat(self.size.height as usize - above - rows.height));
        narrowed
    }

    fn blank(&self, height: usize) -> Vec<u8> {
        self.colour.repeat(self.size.width as usize * height)
    }

    /// `rows` as wide as the canvas.
    fn strip(&self, rows: Rows<'_>) -> Vec<u8> {
        let mut pixels = self.blank(rows.height);
        let start = self.corner.0 as usize * CHANNELS;
        for (row, target) in rows.each().zip(pixels.chunks_exact_mut(self.size.width as usize * CHANNELS)) {
            target[start..][..row.len()].copy_from_slice(row);
        }
        pixels
    }
}
