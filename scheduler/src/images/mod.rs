//! Where the pixels and the embedding of each image are: the shard's image memory, as the router sees it.
//!
//! An image is known from the first sequence that needs it until nobody does and the shard holds nothing of it.
//!
//! ```text
//!            take_uploads        ready           encode
//!   Wanted ───────────────▶ Uploading ─────▶ Ready ─────▶ Resident
//!      ▲                                       │ not needed   │ evicted
//!      │ still needed when the plan            ▼              ▼
//!      └───────────── is committed ───────── Forgetting ◀─────┘
//! ```
//!
//! `Doomed` is what the next plan forgets although it may be needed: an embedding whose encoding failed, and
//! pixels that have to make room for more urgent ones.
//!
//! `Forgetting` lasts until the plan that forgets is committed. Uploads do not travel in order with plans, so
//! pixels sent earlier could arrive before the shard forgets and would be dropped with the old ones.
//!
//! Every queue and sum here follows from `Image` values alone; [`ImageCache::change`] is the only place that
//! changes one, and takes it out of all indexes before and puts it into all after.

mod uploads;

use std::collections::BTreeSet;

use crate::hash::KeyMap;
use crate::sequence::Arrival;
use crate::sequences::Ticket;
use crate::types::ImageKey;

#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(crate) enum ImageState {
    Wanted,
    Uploading { rank: u32 },
    Ready { rank: u32 },
    Resident,
    Doomed,
    Forgetting,
}

/// What evicting an embedding costs, cheapest first.
#[derive(Copy, Clone, Debug, Eq, PartialEq, Ord, PartialOrd)]
enum Loss {
    /// Nothing: nobody needs it.
    Nothing,
    /// A second upload.
    Upload,
    /// A second upload for a sequence that is in the middle of its tokens.
    Progress,
}

#[derive(Clone, Debug)]
struct Image {
    num_tokens: u32,
    state: ImageState,
    /// Sequences that have tokens of it to compute.
    num_users: u32,
    /// Sequences whose next token is inside of it.
    num_inside: u32,
    /// Age of the oldest sequence that asked for it since it became known.
    arrival: Arrival,
    /// Sequences that do nothing until its pixels are there.
    waiters: BTreeSet<Ticket>,
    last_used: u64,
}

impl Image {
    fn loss(&self) -> Loss {
        match (self.num_users, self.num_inside) {
            (0, _) => Loss::Nothing,
            (_, 0) => Loss::Upload,
            _ => Loss::Progress,
        }
    }

    fn must_be_forgotten(&self) -> bool {
        match self.state {
            ImageState::Ready { .. } => self.num_users == 0,
            ImageState::Doomed => true,
            _ => false,
        }
    }
}

#[derive(Debug)]
pub(crate) struct ImageCache {
    images: KeyMap<ImageKey, Image>,
    capacity: u64,
    max_pending_tokens: u64,
    world_size: u32,
    next_rank: u32,
    /// Images uploaded beyond the limit, as long as the shard has their pixels.
    urgent: Vec<ImageKey>,

    /// Images in state `Wanted`, those of the oldest sequences first.
    upload_queue: BTreeSet<(Arrival, ImageKey)>,
    num_uploading: usize,
    /// Tokens of images in state `Uploading` or `Ready`.
    pending_tokens: u64,
    /// Images in state `Resident`, in the order in which they are evicted.
    evictable: BTreeSet<(Loss, u64, ImageKey)>,
    resident_tokens: u64,
    /// Images that the next plan forgets whatever else it does.
    to_forget: BTreeSet<ImageKey>,

    /// Counts uses; what was used since `plan_began` is used by the plan being made.
    uses: u64,
    plan_began: u64,
    evicted_by_plan: Vec<ImageKey>,
}

/// Sizes of an [`ImageCache`], in image tokens, and the number of ranks.
pub(crate) struct ImageLimits {
    pub(crate) capacity: u32,
    pub(crate) max_pending_tokens: u32,
    pub(crate) world_size: u32,
}

impl ImageCache {
    pub(crate) fn new(limits: &ImageLimits) -> Self {
        Self {
            images: KeyMap::default(),
            capacity: u64::from(limits.capacity),
            max_pending_tokens: u64::from(limits.max_pending_tokens),
            world_size: limits.world_size,
            next_rank: 0,
            urgent: Vec::new(),
            upload_queue: BTreeSet::new(),
            num_uploading: 0,
            pending_tokens: 0,
            evictable: BTreeSet::new(),
            resident_tokens: 0,
            to_forget: BTreeSet::new(),
            uses: 0,
            plan_began: 0,
            evicted_by_plan: Vec::new(),
        }
    }

    pub(crate) fn state(&self, key: ImageKey) -> Option<ImageState> {
        self.images.get(&key).map(|image| image.state)
    }

    pub(crate) fn num_tokens(&self, key: ImageKey) -> Option<u32> {
        self.images.get(&key).map(|image| image.num_tokens)
    }

    /// Whether its pixels or its embedding are on the shard.
    pub(crate) fn is_at_hand(&self, key: ImageKey) -> bool {
        matches!(self.state(key), Some(ImageState::Ready { .. } | ImageState::Resident))
    }

    pub(crate) fn resident_tokens(&self) -> u64 {
        self.resident_tokens
    }

    pub(crate) fn pending_tokens(&self) -> u64 {
        self.pending_tokens
    }

    /// Changes an image, if it is known, and everything that follows from it.
    fn change(&mut self, key: ImageKey, change: impl FnOnce(&mut Image)) {
        let Some(mut image) = self.images.remove(&key) else { return };
        self.unindex(key, &image);
        change(&mut image);
        if image.num_users > 0 || image.state != ImageState::Wanted {
            self.index(key, &image);
            self.images.insert(key, image);
        }
    }

    fn index(&mut self, key: ImageKey, image: &Image) {
        let tokens = u64::from(image.num_tokens);
        match image.state {
            ImageState::Wanted => {
                self.upload_queue.insert((image.arrival, key));
            }
            ImageState::Uploading { .. } => {
                self.num_uploading += 1;
                self.pending_tokens += tokens;
            }
            ImageState::Ready { .. } => self.pending_tokens += tokens,
            ImageState::Resident => {
                self.resident_tokens += tokens;
                self.evictable.insert((image.loss(), image.last_used, key));
            }
            ImageState::Doomed | ImageState::Forgetting => {}
        }
        if image.must_be_forgotten() {
            self.to_forget.insert(key);
        }
    }

    fn unindex(&mut self, key: ImageKey, image: &Image) {
        let tokens = u64::from(image.num_tokens);
        match image.state {
            ImageState::Wanted => {
                self.upload_queue.remove(&(image.arrival, key));
            }
            ImageState::Uploading { .. } => {
                self.num_uploading -= 1;
                self.pending_tokens -= tokens;
            }
            ImageState::Ready { .. } => self.pending_tokens -= tokens,
            ImageState::Resident => {
                self.resident_tokens -= tokens;
                self.evictable.remove(&(image.loss(), image.last_used, key));
            }
            ImageState::Doomed | ImageState::Forgetting => {}
        }
        self.to_forget.remove(&key);
    }

    // --- Who needs what -------------------------------------------------------------------------------------

    /// One more sequence has tokens of the image to compute.
    pub(crate) fn want(&mut self, key: ImageKey, num_tokens: u32, arrival: Arrival) {
        self.images.entry(key).or_insert_with(|| Image {
            num_tokens,
            state: ImageState::Wanted,
            num_users: 0,
            num_inside: 0,
            arrival,
            waiters: BTreeSet::new(),
            last_used: 0,
        });
        self.change(key, |image| {
            image.num_users += 1;
            image.arrival = image.arrival.min(arrival);
        });
    }

    /// One sequence less has.
    pub(crate) fn unwant(&mut self, key: ImageKey) {
        self.change(key, |image| image.num_users -= 1);
    }

    /// The next token of one more sequence is inside the image.
    pub(crate) fn enter(&mut self, key: ImageKey) {
        self.change(key, |image| image.num_inside += 1);
    }

    pub(crate) fn leave(&mut self, key: ImageKey) {
        self.change(key, |image| image.num_inside -= 1);
    }

    pub(crate) fn wait(&mut self, key: ImageKey, ticket: Ticket) {
        self.change(key, |image| {
            image.waiters.insert(ticket);
        });
    }

    pub(crate) fn stop_waiting(&mut self, key: ImageKey, ticket: Ticket) {
        self.change(key, |image| {
            image.waiters.remove(&ticket);
        });
    }

    // --- Embeddings -----------------------------------------------------------------------------------------

    /// From here on `keep` and `encode` mean the next plan: what they name stays until it is made.
    pub(crate) fn begin_plan(&mut self) {
        self.plan_began = self.uses;
    }

    /// Embeddings among these stay while the plan is made.
    pub(crate) fn keep(&mut self, keys: &[ImageKey]) {
        for key in keys {
            if self.state(*key) == Some(ImageState::Resident) {
                self.touch(*key);
            }
        }
    }

    /// The plan being made uses the embedding.
    fn touch(&mut self, key: ImageKey) {
        self.uses += 1;
        let now = self.uses;
        self.change(key, |image| image.last_used = now);
    }

    /// Tokens of those images whose pixels are there.
    pub(crate) fn tokens_to_encode(&self, keys: &[ImageKey]) -> u32 {
        let images = keys.iter().filter_map(|key| self.images.get(key));
        let ready = images.filter(|image| matches!(image.state, ImageState::Ready { .. }));
        ready.map(|image| image.num_tokens).fold(0, u32::saturating_add)
    }

    /// The plan being made uses these images together, and encodes those whose pixels are there, if the cache has room
    /// or can be given room. Returns them with the ranks that have the pixels. `at_any_loss` allows evicting what
    /// other sequences are in the middle of.
    pub(crate) fn encode(&mut self, keys: &[ImageKey], at_any_loss: bool) -> Option<Vec<(ImageKey, u32)>> {
        let ready = |key: &ImageKey| match self.state(*key) {
            Some(ImageState::Ready { rank }) => Some((*key, rank)),
            _ => None,
        };
        let encoded: Vec<_> = keys.iter().filter_map(ready).collect();
        let victims = if encoded.is_empty() { Vec::new() } else { self.victims(keys, at_any_loss)? };
        for victim in victims {
            self.change(victim, |image| image.state = ImageState::Forgetting);
            self.evicted_by_plan.push(victim);
        }
        for (key, _) in &encoded {
            self.change(*key, |image| image.state = ImageState::Resident);
        }
        self.keep(keys);
        Some(encoded)
    }

    /// What to evict so that these images fit; images larger than the cache fit if nothing else is in it.
    fn victims(&self, keys: &[ImageKey], at_any_loss: bool) -> Option<Vec<ImageKey>> {
        let images = || keys.iter().filter_map(|key| self.images.get(key));
        let tokens: u64 = images().map(|image| u64::from(image.num_tokens)).sum();
        let resident = images().filter(|image| image.state == ImageState::Resident);
        let most_left = self.capacity.saturating_sub(tokens);
        let mut left = self.resident_tokens - resident.map(|image| u64::from(image.num_tokens)).sum::<u64>();
        let mut victims = Vec::new();
        let allowed = |loss: Loss| at_any_loss || loss < Loss::Progress;
        for (_, _, key) in self.evictable.iter().take_while(|(loss, ..)| allowed(*loss)) {
            if left <= most_left {
                break;
            }
            let other = self.images.get(key).filter(|_| !keys.contains(key));
            if let Some(image) = other.filter(|image| image.last_used <= self.plan_began) {
                left -= u64::from(image.num_tokens);
                victims.push(*key);
            }
        }
        (left <= most_left).then_some(victims)
    }

    /// The shard failed to encode it: what it holds, if anything, is not to be used.
    pub(crate) fn doom(&mut self, key: ImageKey) {
        if self.state(key) == Some(ImageState::Resident) {
            self.change(key, |image| image.state = ImageState::Doomed);
        }
    }

    // --- Forgetting -----------------------------------------------------------------------------------------

    pub(crate) fn has_forgets(&self) -> bool {
        !self.to_forget.is_empty() || self.surplus().is_some()
    }

    /// An embedding nobody needs while the cache is over its capacity.
    fn surplus(&self) -> Option<ImageKey> {
        let over = self.resident_tokens > self.capacity;
        let cheapest = self.evictable.first().filter(|(loss, last_used, _)| {
            // A plan still needs what it uses last.
            over && *loss == Loss::Nothing && *last_used <= self.plan_began
        });
        cheapest.map(|(_, _, key)| *key)
    }

    /// Images the finished plan forgets.
    pub(crate) fn take_forgets(&mut self) -> Vec<ImageKey> {
        let mut forgets = std::mem::take(&mut self.evicted_by_plan);
        while let Some(key) = self.to_forget.first().copied().or_else(|| self.surplus()) {
            self.change(key, |image| image.state = ImageState::Forgetting);
            forgets.push(key);
        }
        forgets
    }

    /// The plan that forgot it is committed.
    pub(crate) fn forgotten(&mut self, key: ImageKey) {
        self.change(key, |image| image.state = ImageState::Wanted);
    }

    /// The shard is gone with all it held. What is still needed is wanted again.
    pub(crate) fn lose_shard(&mut self) {
        self.evicted_by_plan.clear();
        let mut keys: Vec<_> = self.images.keys().copied().collect();
        keys.sort_unstable();
        for key in keys {
            self.change(key, |image| image.state = ImageState::Wanted);
        }
    }
}
