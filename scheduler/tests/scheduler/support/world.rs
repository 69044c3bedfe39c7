//! Drives scheduler and shard against each other as the engine would, with clients, a network and a model that
//! all misbehave, and compares every token with what its request must give.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;

use text_generation_scheduler::{
    AddError, Config, Event, FinishReason, ImageKey, MAX_STEPS_IN_FLIGHT, NewSequence, Scheduler, SequenceId, Span,
    StepPlan, StepResult, TokenId,
};

use super::model;
use super::rng::Rng;
use super::shard::{self, Odds, Requests, Shard};
use super::workload;

/// What goes wrong, one time in so many opportunities; 0 for never.
#[derive(Copy, Clone, Default)]
pub(crate) struct Chaos {
    pub(crate) shard: Odds,
    pub(crate) abort: u32,
    pub(crate) upload_failure: u32,
    pub(crate) shard_loss: u32,
}

struct Client {
    expected: Vec<TokenId>,
    finish: FinishReason,
    received: usize,
}

/// How often what happened, to see that a simulation did not miss its subject.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) finished: u64,
    pub(crate) failed: u64,
    pub(crate) lost: u64,
    pub(crate) image_failed: u64,
    pub(crate) aborted: u64,
    pub(crate) rejected: u64,
    pub(crate) preemptions: u64,
    pub(crate) prefix_hit_tokens: u64,
    pub(crate) image_hits: u64,
    pub(crate) image_misses: u64,
    /// Tokens that came with the sample they can only follow.
    pub(crate) forced_tokens: u64,
    /// Rows that scored their prompt.
    pub(crate) scored_rows: u64,
    /// Ranges of tokens that attend to each other, and those of them with several placeholders.
    pub(crate) ranges: u64,
    pub(crate) ranges_of_many: u64,
    /// Prompt and answer tokens of the requests that were taken.
    pub(crate) requested_tokens: u64,
    /// Tokens of all rows.
    pub(crate) computed_tokens: u64,
}

pub(crate) struct World {
    pub(crate) rng: Rng,
    pub(crate) config: Config,
    pub(crate) scheduler: Scheduler,
    pub(crate) tally: Tally,
    chaos: Chaos,
    images: BTreeMap<ImageKey, u32>,
    workload: workload::Requests,
    requests: Requests,
    shard: Shard,
    clients: BTreeMap<SequenceId, Client>,
    started: BTreeSet<SequenceId>,
    /// Plans not committed yet, with their results once executed.
    plans: VecDeque<(StepPlan, Option<StepResult>)>,
    uploads: Vec<(ImageKey, u32)>,
}

impl World {
    pub(crate) fn random(seed: u64, chaos: Chaos) -> Self {
        let mut rng = Rng::new(seed);
        let config = workload::config(&mut rng);
        Self::new(config, rng, chaos)
    }

    pub(crate) fn new(config: Config, mut rng: Rng, chaos: Chaos) -> Self {
        let images = workload::images(&mut rng);
        Self {
            scheduler: Scheduler::new(config.clone()).unwrap(),
            shard: Shard::new(&config, images.clone()),
            workload: workload::Requests::new(images.clone(), &mut rng),
            requests: Requests::new(),
            clients: BTreeMap::new(),
            started: BTreeSet::new(),
            plans: VecDeque::new(),
            uploads: Vec::new(),
            tally: Tally::default(),
            rng,
            config,
            chaos,
            images,
        }
    }

    // --- What the outside does ------------------------------------------------------------------------------

    /// One random thing happens.
    pub(crate) fn act(&mut self) {
        match self.rng.range(0, 9) {
            0 | 1 => self.add(),
            2 | 3 => self.finish_upload(),
            4 | 5 => self.execute(),
            6 | 7 => drop(self.commit()),
            _ => drop(self.schedule()),
        }
        if self.rng.one_in(self.chaos.abort) {
            self.abort();
        }
        if self.rng.one_in(self.chaos.shard_loss) {
            self.lose_shard();
        }
        self.take_uploads();
    }

    /// Lets everything end that is still there, without new requests.
    pub(crate) fn drain(&mut self) {
        let mut rounds_left = 200 + 4 * self.tally.requested_tokens;
        while !(self.clients.is_empty() && self.plans.is_empty()) {
            assert!(rounds_left > 0, "{:?} take too long: {:?}", self.clients.keys(), self.scheduler.stats());
            rounds_left -= 1;
            let mut moved = self.schedule() | self.commit();
            if self.rng.one_in(2) || !moved {
                moved |= !self.uploads.is_empty();
                self.finish_upload();
            }
            moved |= self.take_uploads();
            assert!(moved, "{:?} are stuck", self.clients.keys());
        }
        self.check_idle();
    }

    pub(crate) fn add(&mut self) {
        let request = self.workload.make(&mut self.rng);
        self.submit(request);
    }

    pub(crate) fn submit(&mut self, request: NewSequence) {
        let added = self.scheduler.add(request.clone());
        if let Err(error) = added {
            self.check_rejection(&request, &error);
            self.tally.rejected += 1;
            return;
        }
        let (expected, finish) = model::generate(&request);
        self.tally.requested_tokens += (request.prompt.len() + expected.len()) as u64;
        self.clients.insert(request.id, Client { expected, finish, received: 0 });
        self.requests.insert(request.id, Rc::new(request));
    }

    fn check_rejection(&self, request: &NewSequence, error: &AddError) {
        let total = request.prompt.len() as u32 + request.max_new_tokens;
        match error {
            AddError::TooLong { limit, .. } => {
                let blocks = self.config.block_size * self.config.num_blocks + 1;
                assert_eq!(*limit, u64::from(blocks.min(self.config.max_sequence_tokens)));
                assert!(u64::from(total) > *limit);
            }
            AddError::RangeTooLong { length, limit } => {
                let longest = request.both_ways.iter().map(|range| range.end - range.start).max();
                assert!(longest >= Some(*length) && length > limit && *limit == self.config.max_step_tokens);
            }
            other => panic!("{request:?} is refused: {other}"),
        }
    }

    fn abort(&mut self) {
        let ids: Vec<_> = self.requests.keys().copied().collect();
        if !ids.is_empty() {
            let id = *self.rng.pick(&ids);
            self.scheduler.abort(id);
            self.tally.aborted += u64::from(self.clients.remove(&id).is_some());
        }
    }

    fn lose_shard(&mut self) {
        let waiting: BTreeSet<_> = self.clients.keys().filter(|id| !self.started.contains(id)).copied().collect();
        let events = self.scheduler.lose_shard();
        assert!(events.iter().all(|event| matches!(event, Event::Lost { .. })));
        self.deliver(&events, &StepResult { step: 0, sampled: Vec::new(), failures: Vec::new() });
        assert_eq!(self.clients.keys().copied().collect::<BTreeSet<_>>(), waiting);
        self.shard = Shard::new(&self.config, self.images.clone());
        self.plans.clear();
        self.uploads.clear();
    }

    pub(crate) fn take_uploads(&mut self) -> bool {
        let uploads = self.scheduler.take_uploads();
        assert!(uploads.iter().all(|(_, rank)| *rank < self.config.world_size));
        self.uploads.extend(&uploads);
        let pending = self.uploads.iter().map(|(key, _)| self.images[key]).sum::<u32>() + self.shard.pixel_tokens();
        let largest = self.images.values().max().copied().unwrap_or(0);
        // A large image may be there alone, and one more for the oldest sequence, or all that it needs at once.
        let limit = self.config.max_pending_upload_tokens.max(largest) + largest.max(self.largest_unit());
        assert!(pending <= limit + self.pixels_to_be_used(), "{pending} image tokens are pending");
        !uploads.is_empty()
    }

    /// Image tokens that somebody needs at once.
    fn largest_unit(&self) -> u32 {
        let units = self.requests.values().flat_map(|request| shard::units(request));
        units.map(|unit| unit.iter().map(|key| self.images[key]).sum()).max().unwrap_or(0)
    }

    /// Pixels that plans which are not executed yet take away.
    fn pixels_to_be_used(&self) -> u32 {
        let waiting = self.plans.iter().filter(|(_, result)| result.is_none());
        let used =
            waiting.flat_map(|(plan, _)| plan.encode_images.iter().map(|(key, _)| key).chain(&plan.forget_images));
        used.map(|key| self.images[key]).sum()
    }

    pub(crate) fn finish_upload(&mut self) {
        if self.uploads.is_empty() {
            return;
        }
        let index = self.rng.index(self.uploads.len());
        let (key, rank) = self.uploads.swap_remove(index);
        if self.rng.one_in(self.chaos.upload_failure) {
            let events = self.scheduler.image_failed(key);
            assert!(events.iter().all(|event| matches!(event, Event::ImageFailed { .. })));
            self.deliver(&events, &StepResult { step: 0, sampled: Vec::new(), failures: Vec::new() });
        } else {
            self.shard.put_image(key, rank);
            self.scheduler.image_ready(key);
        }
    }

    // --- What the engine does -------------------------------------------------------------------------------

    pub(crate) fn schedule(&mut self) -> bool {
        let Some(plan) = self.scheduler.schedule() else { return false };
        assert!(self.plans.len() < MAX_STEPS_IN_FLIGHT);
        assert!(!plan.rows.is_empty() || (self.plans.is_empty() && plan.encode_images.is_empty()));
        self.started.extend(&plan.new_sequences);
        self.tally.computed_tokens += plan.rows.iter().map(|row| u64::from(row.num_tokens)).sum::<u64>();
        self.tally.scored_rows += plan.rows.iter().filter(|row| row.score).count() as u64;
        self.count_ranges(&plan);
        for id in &plan.new_sequences {
            let row = plan.rows.iter().find(|row| row.sequence == *id).unwrap();
            assert_eq!(self.scheduler.cached_tokens(*id), Some(row.start));
        }
        self.plans.push_back((plan, None));
        true
    }

    fn count_ranges(&mut self, plan: &StepPlan) {
        for (index, row) in plan.rows.iter().enumerate() {
            for range in &row.both_ways {
                let inside = |span: &&Span| span.offset < range.end && range.start < span.offset + span.length;
                let of_row = plan.spans.iter().filter(|span| span.row as usize == index);
                self.tally.ranges += 1;
                self.tally.ranges_of_many += u64::from(of_row.filter(inside).count() > 1);
            }
        }
    }

    /// The shard gets to its next plan.
    fn execute(&mut self) {
        if let Some((plan, result)) = self.plans.iter_mut().find(|(_, result)| result.is_none()) {
            *result = Some(self.shard.execute(plan, &self.requests, self.chaos.shard, &mut self.rng));
        }
    }

    pub(crate) fn commit(&mut self) -> bool {
        if self.plans.front().is_some_and(|(_, result)| result.is_none()) {
            self.execute();
        }
        let Some((_, Some(result))) = self.plans.pop_front() else { return false };
        let events = self.scheduler.commit(&result);
        self.tally.forced_tokens += result.sampled.windows(2).filter(|pair| pair[0].0 == pair[1].0).count() as u64;
        self.deliver(&events, &result);
        true
    }

    fn deliver(&mut self, events: &[Event], result: &StepResult) {
        for event in events {
            let over = match event {
                Event::Token { sequence, sampled_index, finish } => {
                    assert_eq!(result.sampled[*sampled_index].0, *sequence);
                    self.deliver_token(*sequence, result.sampled[*sampled_index].1, *finish);
                    continue;
                }
                Event::Failed { sequence } => {
                    assert!(result.failures.contains(sequence));
                    self.tally.failed += 1;
                    sequence
                }
                Event::Lost { sequence } => {
                    self.tally.lost += 1;
                    sequence
                }
                Event::ImageFailed { sequence } => {
                    self.tally.image_failed += 1;
                    sequence
                }
            };
            assert!(self.clients.remove(over).is_some(), "{event:?} for nobody");
        }
    }

    fn deliver_token(&mut self, id: SequenceId, token: TokenId, finish: Option<FinishReason>) {
        let client = self.clients.get_mut(&id).unwrap();
        assert_eq!(client.expected.get(client.received), Some(&token), "{id:?} gets a wrong token");
        client.received += 1;
        assert_eq!(finish, (client.received == client.expected.len()).then_some(client.finish));
        if finish.is_some() {
            self.workload.remember(&self.requests[&id], &client.expected);
            self.clients.remove(&id);
            self.tally.finished += 1;
        }
    }

    // --- What must be true at the end -----------------------------------------------------------------------

    fn check_idle(&mut self) {
        while !self.uploads.is_empty() {
            self.finish_upload();
        }
        while self.schedule() {
            self.commit();
        }
        assert!(self.scheduler.take_uploads().is_empty());
        let stats = self.scheduler.stats();
        assert_eq!((stats.waiting, stats.running, stats.waiting_for_images), (0, 0, 0));
        assert_eq!((stats.queued_prompt_tokens, stats.pending_upload_tokens), (0, 0));
        assert_eq!(stats.blocks_free + stats.blocks_cached, stats.blocks_total);
        assert_eq!(stats.embedding_tokens, u64::from(self.shard.embedding_tokens()));
        assert!(stats.embedding_tokens <= u64::from(self.config.embedding_cache_tokens));
        assert_eq!((self.shard.num_sequences(), self.shard.pixel_tokens()), (0, 0));
        self.tally.preemptions += stats.preemptions;
        self.tally.prefix_hit_tokens += stats.prefix_hit_tokens;
        self.tally.image_hits += stats.image_hits;
        self.tally.image_misses += stats.image_misses;
    }
}
