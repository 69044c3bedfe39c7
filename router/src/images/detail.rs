//! How much of an image a request wants to be seen.

use super::source::ImageSource;

/// How much of an image is to be seen.
#[derive(Copy, Clone, Debug, Default, Eq, PartialEq)]
pub enum Detail {
    /// What the model's own processor makes of it.
    #[default]
    Full,
    /// Few tokens, in families that have a smaller form of an image. Others make the same of it.
    Low,
}

/// An image that a request wants.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct WantedImage {
    /// Where its bytes are.
    pub source: ImageSource,
    /// How much of it is to be seen.
    pub detail: Detail,
}

impl From<ImageSource> for WantedImage {
    fn from(source: ImageSource) -> Self {
        Self { source, detail: Detail::Full }
    }
}
