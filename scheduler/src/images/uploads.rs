//! Pixels: which are sent when, to which rank, and what happens when they arrive or do not.

use std::collections::BTreeSet;

use super::{ImageCache, ImageState};
use crate::sequences::Ticket;
use crate::types::ImageKey;

impl ImageCache {
    /// Images to upload now, each with the rank that gets it: `urgent` first, if it is wanted, then as the queue has
    /// them, as long as the limit allows. `urgent` may go beyond the limit, but only beside other such images that are
    /// used together with it.
    pub(crate) fn take_uploads(&mut self, urgent: Option<ImageKey>, together: &[ImageKey]) -> Vec<(ImageKey, u32)> {
        self.forget_urgent();
        let urgent = urgent.filter(|key| self.state(*key) == Some(ImageState::Wanted));
        let mut uploads = Vec::new();
        while let Some(key) = urgent.filter(|_| uploads.is_empty()).or(self.first_in_queue()) {
            let fits = self.fits(key);
            let is_alone = self.num_uploading == 0 && self.urgent.iter().all(|earlier| together.contains(earlier));
            if !fits && (urgent != Some(key) || !is_alone) {
                break;
            }
            if !fits {
                self.urgent.push(key);
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

    /// If an urgent upload of `key` must wait for earlier ones whose pixels are neither used yet nor will be used
    /// together with it, those are given up.
    pub(crate) fn make_way_for(&mut self, key: ImageKey, together: &[ImageKey]) {
        self.forget_urgent();
        if self.state(key) != Some(ImageState::Wanted) || self.fits(key) {
            return;
        }
        for earlier in self.urgent.clone() {
            if !together.contains(&earlier) && matches!(self.state(earlier), Some(ImageState::Ready { .. })) {
                self.change(earlier, |image| image.state = ImageState::Doomed);
            }
        }
    }

    /// Leaves out those of which the shard has no pixels any more.
    fn forget_urgent(&mut self) {
        let Self { urgent, images, .. } = self;
        urgent.retain(|key| {
            images.get(key).is_some_and(|image| !matches!(image.state, ImageState::Wanted | ImageState::Resident))
        });
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
