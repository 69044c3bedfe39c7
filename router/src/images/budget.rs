//! What the images of one request may use together, and what the encoded bytes of all requests may.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::error::ImageFault;
use super::limits::ImageLimits;

/// Bytes that one permit of [`SourceMemory`] stands for.
const BYTES_PER_PERMIT: u64 = 1 << 10;

/// Encoded bytes that all requests hold together. A request that would exceed it is refused, not queued: requests
/// that each wait for the others' memory would wait for ever.
pub(super) struct SourceMemory(Arc<Semaphore>);

/// Bytes and pixels that a request has left. Shared by its images, which load side by side; dropped with the request.
pub(super) struct RequestBudget {
    bytes: AtomicU64,
    pixels: AtomicU64,
    max_bytes: u64,
    max_pixels: u64,
    memory: Arc<Semaphore>,
    held: Mutex<Option<OwnedSemaphorePermit>>,
}

impl SourceMemory {
    pub(super) fn new(limits: &ImageLimits) -> Self {
        let permits = (limits.max_source_bytes_in_flight / BYTES_PER_PERMIT).min(Semaphore::MAX_PERMITS as u64);
        Self(Arc::new(Semaphore::new(permits as usize)))
    }

    /// The budget of a request that begins now.
    pub(super) fn budget(&self, limits: &ImageLimits) -> RequestBudget {
        // One image within its own limits always fits, whatever an operator set for the whole request.
        let max_bytes = limits.max_request_bytes.max(limits.max_bytes);
        let max_pixels = limits.max_request_pixels.max(limits.max_pixels);
        RequestBudget {
            bytes: AtomicU64::new(max_bytes),
            pixels: AtomicU64::new(max_pixels),
            max_bytes,
            max_pixels,
            memory: self.0.clone(),
            held: Mutex::default(),
        }
    }
}

impl RequestBudget {
    /// Room for encoded bytes that are about to be kept.
    pub(super) fn take_bytes(&self, bytes: u64) -> Result<(), ImageFault> {
        take(&self.bytes, bytes).ok_or(ImageFault::TooManyRequestBytes { limit: self.max_bytes })?;
        let permits = u32::try_from(bytes.div_ceil(BYTES_PER_PERMIT)).map_err(|_| ImageFault::Busy)?;
        let permit = self.memory.clone().try_acquire_many_owned(permits).map_err(|_| ImageFault::Busy)?;
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        match held.as_mut() {
            Some(all) => all.merge(permit),
            None => *held = Some(permit),
        }
        Ok(())
    }

    /// Room for the pixels of an image that is about to be decoded.
    pub(super) fn take_pixels(&self, pixels: u64) -> Result<(), ImageFault> {
        take(&self.pixels, pixels).ok_or(ImageFault::TooManyRequestPixels { limit: self.max_pixels })
    }
}

fn take(left: &AtomicU64, amount: u64) -> Option<()> {
    let taken = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(amount));
    taken.ok().map(|_| ())
}

#[cfg(test)]
mod tests;
