//! What the images of one request may use together.

use std::sync::atomic::{AtomicU64, Ordering};

use super::error::ImageFault;
use super::limits::ImageLimits;

/// Bytes and pixels that a request has left. Shared by its images, which load side by side.
pub(super) struct RequestBudget {
    bytes: AtomicU64,
    pixels: AtomicU64,
    max_bytes: u64,
    max_pixels: u64,
}

impl RequestBudget {
    pub(super) fn new(limits: &ImageLimits) -> Self {
        let (max_bytes, max_pixels) = (limits.max_request_bytes, limits.max_request_pixels);
        Self { bytes: AtomicU64::new(max_bytes), pixels: AtomicU64::new(max_pixels), max_bytes, max_pixels }
    }

    pub(super) fn take_bytes(&self, bytes: u64) -> Result<(), ImageFault> {
        take(&self.bytes, bytes).ok_or(ImageFault::TooManyRequestBytes { limit: self.max_bytes })
    }

    pub(super) fn take_pixels(&self, pixels: u64) -> Result<(), ImageFault> {
        take(&self.pixels, pixels).ok_or(ImageFault::TooManyRequestPixels { limit: self.max_pixels })
    }
}

fn take(left: &AtomicU64, amount: u64) -> Option<()> {
    let taken = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(amount));
    taken.ok().map(|_| ())
}
