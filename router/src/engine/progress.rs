//! What a stream can ask about its sequence beside its tokens.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

/// What the step loop notes about a sequence while it runs.
#[derive(Debug, Default)]
pub(super) struct Progress {
    queue_us: AtomicU64,
    cached_tokens: AtomicU32,
}

impl Progress {
    pub(super) fn started(&self, queued: Duration, cached_tokens: u32) {
        self.queue_us.store(queued.as_micros() as u64, Ordering::Relaxed);
        self.cached_tokens.store(cached_tokens, Ordering::Relaxed);
    }

    pub(super) fn queue_time(&self) -> Duration {
        Duration::from_micros(self.queue_us.load(Ordering::Relaxed))
    }

    pub(super) fn cached_tokens(&self) -> u32 {
        self.cached_tokens.load(Ordering::Relaxed)
    }
}
