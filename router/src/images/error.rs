//! What can go wrong with a request's images. Every text is meant for the client: at most 200 characters, no path, no
//! address, no library's words, and the same words for a URL that was refused as for one that did not answer.

use crate::families::ImageRejected;

use super::source::InvalidImageUrl;

/// Why the images of a request could not be loaded.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ImageError {
    /// More images than one request may have.
    #[error("{count} images in one request, at most {limit} are accepted")]
    TooMany {
        /// Images asked for.
        count: usize,
        /// Images accepted.
        limit: usize,
    },
    /// The media phase of the request took too long.
    #[error("the images were not loaded within {seconds} s")]
    TimedOut {
        /// The limit.
        seconds: u64,
    },
    /// One image failed.
    #[error("{}: {fault}", name(*.index, *.count))]
    Image {
        /// Which, counted from 0.
        index: usize,
        /// Of how many.
        count: usize,
        /// Why.
        fault: ImageFault,
    },
}

/// Only requests with several images need to be told which one.
fn name(index: usize, count: usize) -> String {
    if count > 1 { format!("image {} of {count}", index + 1) } else { "image".to_owned() }
}

/// Why one image could not be loaded.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ImageFault {
    /// The URL is none this server reads.
    #[error(transparent)]
    Url(#[from] InvalidImageUrl),
    /// Refused by policy, unreachable, or answered by something other than an image: deliberately one text.
    #[error("the URL could not be fetched")]
    Unavailable,
    /// The operator turned fetching off.
    #[error("fetching images from URLs is turned off, send them as data: URIs")]
    FetchingOff,
    /// The download was slower than the minimum rate.
    #[error("the download was too slow")]
    TooSlow,
    /// More encoded bytes than accepted.
    #[error("more than {limit} bytes")]
    TooManyBytes {
        /// Bytes accepted.
        limit: u64,
    },
    /// The images of the request together have more encoded bytes than accepted.
    #[error("the images of one request may have {limit} bytes together")]
    TooManyRequestBytes {
        /// Bytes accepted.
        limit: u64,
    },
    /// Not one of the formats that are decoded.
    #[error("{found}, supported are PNG, JPEG, WebP, GIF and BMP")]
    Format {
        /// What the first bytes look like.
        found: &'static str,
    },
    /// Zero pixels, or a side that is too long.
    #[error("{width}x{height} pixels, each side must have 1 to {limit}")]
    Side {
        /// Columns.
        width: u32,
        /// Rows.
        height: u32,
        /// Pixels accepted a side.
        limit: u32,
    },
    /// Too many pixels in one image.
    #[error("{width}x{height} pixels are more than {limit}")]
    TooManyPixels {
        /// Columns.
        width: u32,
        /// Rows.
        height: u32,
        /// Pixels accepted.
        limit: u64,
    },
    /// The images of the request together have too many pixels.
    #[error("the images of one request may have {limit} pixels together")]
    TooManyRequestPixels {
        /// Pixels accepted.
        limit: u64,
    },
    /// Damaged, truncated, or of a kind its decoder does not know.
    #[error("damaged, or a kind of {format} file that is not supported")]
    Undecodable {
        /// The format its first bytes announce.
        format: &'static str,
    },
    /// The model cannot take it.
    #[error(transparent)]
    Rejected(#[from] ImageRejected),
    /// Too many images, or too many bytes of them, wait to be decoded.
    #[error("too many images are waiting to be decoded")]
    Busy,
    /// A fault of the server's own.
    #[error("it could not be processed")]
    Internal,
}

/// What an API needs to know to choose a status.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub enum ImageErrorKind {
    /// The client sent, or pointed to, something that cannot be used.
    Invalid,
    /// Within the rules, but over a limit.
    TooLarge,
    /// Sources that did not answer in time.
    TimedOut,
    /// The server has too much to do; the same request may pass later.
    Overloaded,
    /// The server's own fault.
    Internal,
}

impl ImageError {
    /// The kind an API maps to a status.
    pub fn kind(&self) -> ImageErrorKind {
        match self {
            Self::TooMany { .. } => ImageErrorKind::TooLarge,
            Self::TimedOut { .. } => ImageErrorKind::TimedOut,
            Self::Image { fault, .. } => fault.kind(),
        }
    }
}

impl ImageFault {
    /// The kind an API maps to a status.
    pub fn kind(&self) -> ImageErrorKind {
        match self {
            Self::Url(InvalidImageUrl::TooManyBytes { .. })
            | Self::TooManyBytes { .. }
            | Self::TooManyRequestBytes { .. }
            | Self::Side { .. }
            | Self::TooManyPixels { .. }
            | Self::TooManyRequestPixels { .. } => ImageErrorKind::TooLarge,
            Self::TooSlow => ImageErrorKind::TimedOut,
            // Asking again may help: a shard that is busy or being restarted answers later.
            Self::Busy | Self::Rejected(ImageRejected::Unanswered) => ImageErrorKind::Overloaded,
            Self::Internal => ImageErrorKind::Internal,
            Self::Url(_)
            | Self::Unavailable
            | Self::FetchingOff
            | Self::Format { .. }
            | Self::Undecodable { .. }
            | Self::Rejected(_) => ImageErrorKind::Invalid,
        }
    }

    /// The same fault, of image `index` of `count`.
    pub fn at(self, index: usize, count: usize) -> ImageError {
        ImageError::Image { index, count, fault: self }
    }
}

#[cfg(test)]
mod tests;
