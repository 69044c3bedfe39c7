//! Pixels of one view, as they go to the shard.

use bytes::Bytes;

use crate::families::ImageSize;

/// Packed RGB8 pixels of one view.
#[derive(Clone, Eq, PartialEq)]
pub struct RgbView {
    /// Columns and rows.
    pub size: ImageSize,
    /// `width * height * 3` bytes.
    pub pixels: Bytes,
}
