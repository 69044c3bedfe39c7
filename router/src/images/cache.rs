//! Prepared images that may come again: a byte budget, least recently used first out, and one preparation at a time
//! for images that arrive at the same moment.
//!
//! Looked up by the hash of the encoded bytes and the model, never by URL: what a URL names changes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use lru::LruCache;
use tokio::sync::OnceCell;

use super::error::ImageFault;
use super::prepare::PreparedImage;

/// A hash of encoded bytes and model.
pub(super) type SourceKey = [u8; 32];

/// What an entry costs besides its pixels.
const ENTRY_BYTES: u64 = 512;

/// Keeps prepared images within a byte budget.
pub(super) struct ImageCache {
    budget: u64,
    kept: Mutex<Kept>,
}

struct Kept {
    images: LruCache<SourceKey, PreparedImage>,
    bytes: u64,
}

impl ImageCache {
    pub(super) fn new(budget: u64) -> Self {
        Self { budget, kept: Mutex::new(Kept { images: LruCache::unbounded(), bytes: 0 }) }
    }

    pub(super) fn get(&self, key: &SourceKey) -> Option<PreparedImage> {
        lock(&self.kept).images.get(key).cloned()
    }

    pub(super) fn insert(&self, key: SourceKey, image: PreparedImage) {
        let cost = cost(&image);
        if cost > self.budget {
            return;
        }
        let mut kept = lock(&self.kept);
        kept.bytes += cost;
        if let Some(replaced) = kept.images.put(key, image) {
            kept.bytes -= self::cost(&replaced);
        }
        while kept.bytes > self.budget {
            let Some((_, evicted)) = kept.images.pop_lru() else { break };
            kept.bytes -= self::cost(&evicted);
        }
    }
}

fn cost(image: &PreparedImage) -> u64 {
    let pixels: usize = image.views.iter().map(|view| view.pixels.len()).sum();
    let layout = size_of_val(image.layout.pieces.as_slice());
    (pixels + layout) as u64 + ENTRY_BYTES
}

type Outcome = Result<PreparedImage, ImageFault>;
type Cell = OnceCell<Outcome>;

/// Preparations under way.
#[derive(Default)]
pub(super) struct Flights(Mutex<HashMap<SourceKey, Weak<Cell>>>);

/// A share in one preparation. The last share to go forgets it.
pub(super) struct Flight<'a> {
    flights: &'a Flights,
    key: SourceKey,
    cell: Arc<Cell>,
}

impl Flights {
    /// Joins the preparation of `key`, or opens one.
    pub(super) fn join(&self, key: SourceKey) -> Flight<'_> {
        let mut open = lock(&self.0);
        let cell = open.get(&key).and_then(Weak::upgrade).unwrap_or_default();
        open.insert(key, Arc::downgrade(&cell));
        Flight { flights: self, key, cell }
    }
}

impl Flight<'_> {
    /// The outcome, prepared by whoever comes first. If that one leaves before it is done, the next one prepares.
    pub(super) async fn outcome(&self, prepare: impl Future<Output = Outcome>) -> Outcome {
        self.cell.get_or_init(|| prepare).await.clone()
    }
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        let mut open = lock(&self.flights.0);
        // Counted under the lock under which shares are made.
        if Arc::strong_count(&self.cell) == 1 {
            open.remove(&self.key);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
