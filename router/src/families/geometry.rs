//! Sizes, rectangles and what is done to pixels: the words in which a family says how an image is cut and resized.

/// Width and height in pixels.
#[derive(Copy, Clone, Debug, Eq, PartialEq, Hash)]
pub struct ImageSize {
    /// Columns.
    pub width: u32,
    /// Rows.
    pub height: u32,
}

impl ImageSize {
    /// A size of `width` columns and `height` rows.
    pub const fn new(width: u32, height: u32) -> Self {
        Self { width, height }
    }

    /// Width times height, without overflow.
    pub const fn pixels(self) -> u64 {
        self.width as u64 * self.height as u64
    }
}

/// A rectangle of pixels; `x` and `y` name its upper left corner.
#[derive(Copy, Clone, Debug, Eq, PartialEq, Hash)]
pub struct Rect {
    /// First column.
    pub x: u32,
    /// First row.
    pub y: u32,
    /// Columns and rows.
    pub size: ImageSize,
}

impl Rect {
    /// The whole of an image of this size.
    pub const fn whole(size: ImageSize) -> Self {
        Self { x: 0, y: 0, size }
    }

    /// Whether this rectangle has area and lies inside an image of `size`.
    pub fn fits(self, size: ImageSize) -> bool {
        let inside = |start: u32, length: u32, limit: u32| length > 0 && length <= limit && start <= limit - length;
        inside(self.x, self.size.width, size.width) && inside(self.y, self.size.height, size.height)
    }
}

/// Pillow's resampling filters, as processors name them. `NEAREST` is left out: no family uses it for photographs.
#[derive(Copy, Clone, Debug, Eq, PartialEq, Hash)]
pub enum Filter {
    /// `Image.BOX`
    Box,
    /// `Image.BILINEAR`
    Bilinear,
    /// `Image.HAMMING`
    Hamming,
    /// `Image.BICUBIC`
    Bicubic,
    /// `Image.LANCZOS`
    Lanczos,
}

/// One thing done to pixels.
#[derive(Copy, Clone, Debug, Eq, PartialEq, Hash)]
pub enum Operation {
    /// Keeps a rectangle.
    Cut(Rect),
    /// Resizes everything to `size`.
    Resize {
        /// The new size.
        size: ImageSize,
        /// How pixels are weighed.
        filter: Filter,
    },
    /// Puts the pixels on a larger canvas of one colour, with their upper left corner at `x`, `y`.
    Pad {
        /// Size of the canvas.
        size: ImageSize,
        /// Columns of the canvas left of the pixels.
        x: u32,
        /// Rows of the canvas above the pixels.
        y: u32,
        /// Its colour.
        colour: [u8; 3],
    },
}

impl Operation {
    /// The size this makes of an image of `size`; `None` if it does not fit one.
    pub fn output(self, size: ImageSize) -> Option<ImageSize> {
        match self {
            Self::Cut(rect) => rect.fits(size).then_some(rect.size),
            Self::Resize { size, .. } => (size.pixels() > 0).then_some(size),
            Self::Pad { size: canvas, x, y, .. } => Rect { x, y, size }.fits(canvas).then_some(canvas),
        }
    }
}

/// One image piece the vision encoder receives: what is done, in this order, to the (EXIF-oriented) original.
///
/// Views of one layout that begin with the same operations share their pixels up to there.
#[derive(Clone, Debug, Default, Eq, PartialEq, Hash)]
pub struct View(pub Vec<Operation>);

impl View {
    /// The whole image, resized.
    pub fn resized(size: ImageSize, filter: Filter) -> Self {
        Self(vec![Operation::Resize { size, filter }])
    }

    /// This view with another operation at its end.
    #[must_use]
    pub fn then(&self, operation: Operation) -> Self {
        Self(self.0.iter().copied().chain([operation]).collect())
    }

    /// The size of the pixels that leave this view of an image of `size`; `None` if an operation does not fit.
    pub fn output(&self, size: ImageSize) -> Option<ImageSize> {
        self.0.iter().try_fold(size, |size, operation| operation.output(size))
    }
}
