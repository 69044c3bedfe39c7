//! Pixels: which are sent when, to which rank, and what happens when they arrive or do not.

use std::collections::BTreeSet;

use super::{ImageCache, ImageState};
use crate::sequences::Ticket;
use crate::types::ImageKey;

impl ImageCache {
    /// Images to upload now, each with the rank that gets it: `urgent` first, if it is wanted, then as the queue has
    /// them, as long as the limit allows. `urgent` may go beyond the limit, but one such image at a time.
    pub(crate) fn take_uploads(&mut self, urgent: Option<ImageKey>) -> Vec<(ImageKey, u32)> {
        let urgent = urgent.filter(|key| self.state(*key) == Some(ImageState::Wanted));
        let mut uploads = Vec::new();
        while let Some(key) = urgent.filter(|_| uploads.is_empty()).or(self.first_in_queue()) {
            let fits = self.fits(key);
            let may_exceed = urgent == Some(key) && self.num_uploading == 0 && self.earlier_urgent(key).is_none();
            if !fits && !may_exceed {
                break;
            }
            if !fits {
                self.urgent = Some(key);
            }
            uploads.push((key, self.begin_upload(key)));
        }
        uploads
    }

    fn first_in_queue(&self) -> Option<ImageKey> {
        self.upload_queue.first().map(|(_, key)| *key)
    }

    /// Whether an upload keeps within the limit, or would be the only one.
    fn fits(&self, key: ImageKey) -> bool {
        let num_tokens = u64::from(self.num_tokens(key).unwrap_or(0));
        self.pending_tokens == 0 || self.pending_tokens + num_tokens <= self.max_pending_tokens
    }

    fn begin_upload(&mut self, key: ImageKey) -> u32 {
        let rank = self.next_rank;
        self.next_rank = (rank + 1) % self.world_size;
        self.change(key, |image| image.state = ImageState::Uploading { rank });
        rank
    }

    /// If an urgent upload of `key` must wait for an earlier one whose pixels are not used yet, those are given up.
    pub(crate) fn make_way_for(&mut self, key: ImageKey) {
        let is_stuck = self.state(key) == Some(ImageState::Wanted) && !self.fits(key);
        if let Some((earlier, ImageState::Ready { .. })) = self.earlier_urgent(key).filter(|_| is_stuck) {
            self.change(earlier, |image| image.state = ImageState::Doomed);
        }
    }

    /// The image last uploaded beyond the limit, if it is another one and the shard still has its pixels.
    fn earlier_urgent(&self, key: ImageKey) -> Option<(ImageKey, ImageState)> {
        let earlier = self.urgent.filter(|earlier| *earlier != key)?;
        let state = self.state(earlier)?;
        let has_pixels = !matches!(state, ImageState::Wanted | ImageState::Resident);
        has_pixels.then_some((earlier, state))
    }

    /// The pixels have arrived. Returns who waited for them.
    pub(crate) fn ready(&mut self, key: ImageKey) -> BTreeSet<Ticket> {
        let Some(ImageState::Uploading { rank }) = self.state(key) else { return BTreeSet::new() };
        let mut waiters = BTreeSet::new();
        self.change(key, |image| {
            image.state = ImageState::Ready { rank };
            waiters = std::mem::take(&mut image.waiters);
        });
        waiters
    }

    /// The pixels will not arrive. Says whether they were expected.
    pub(crate) fn upload_failed(&mut self, key: ImageKey) -> bool {
        let expected = matches!(self.state(key), Some(ImageState::Uploading { .. }));
        if expected {
            self.change(key, |image| image.state = ImageState::Wanted);
        }
        expected
    }
}
