//! Where blocking image work runs: a bounded number of threads beside the async runtime, a bounded queue in front of
//! them, and a bound on the bytes all decoders hold together.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::error::ImageFault;
use super::limits::ImageLimits;

/// Bytes that one permit of the byte bound stands for.
const BYTES_PER_PERMIT: u64 = 64 << 10;

/// Runs blocking work within the limits.
pub(super) struct DecodePool {
    places: Arc<Semaphore>,
    threads: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
    byte_permits: u32,
}

/// The right to wait for a thread. Leaving (dropping it) makes room for somebody else.
pub(super) struct Place {
    _permit: OwnedSemaphorePermit,
}

impl DecodePool {
    pub(super) fn new(limits: &ImageLimits) -> Self {
        let threads = limits.decode_threads.max(1);
        let most = u64::from(u32::MAX).min(Semaphore::MAX_PERMITS as u64);
        let byte_permits = (limits.max_decoded_bytes_in_flight / BYTES_PER_PERMIT).clamp(1, most) as u32;
        Self {
            places: Arc::new(Semaphore::new(threads + limits.max_waiting_decodes)),
            threads: Arc::new(Semaphore::new(threads)),
            bytes: Arc::new(Semaphore::new(byte_permits as usize)),
            byte_permits,
        }
    }

    /// A place in the queue, or [`ImageFault::Busy`] at once when there is none.
    pub(super) fn enter(&self) -> Result<Place, ImageFault> {
        let permit = self.places.clone().try_acquire_owned().map_err(|_| ImageFault::Busy)?;
        Ok(Place { _permit: permit })
    }

    /// Runs `work` on a thread of the pool once `bytes` are free. Dropping the future before then means it never runs.
    ///
    /// An image that needs more than the bound may still run, alone.
    pub(super) async fn run<T, F>(&self, _place: &Place, bytes: u64, work: F) -> Result<T, ImageFault>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        let permits = bytes.div_ceil(BYTES_PER_PERMIT).min(u64::from(self.byte_permits)) as u32;
        let closed = |_| ImageFault::Internal;
        let memory = self.bytes.clone().acquire_many_owned(permits).await.map_err(closed)?;
        let thread = self.threads.clone().acquire_owned().await.map_err(closed)?;
        let blocking = move || {
            // Held by the work itself: a caller that leaves must not free what is still in use.
            let _held = (memory, thread);
            work()
        };
        tokio::task::spawn_blocking(blocking).await.map_err(|_| ImageFault::Internal)
    }
}
