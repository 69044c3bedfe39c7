//! A shard that trusts no plan: it holds KV, pixels and embeddings, checks that it holds whatever a plan names,
//! and that the context it reads through a block table is the one the request has.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use text_generation_scheduler::{
    Config, ImageKey, NewSequence, Row, RowPositions, RowTokens, SequenceId, Span, StepPlan, StepResult, TokenId,
};

use super::model;
use super::rng::Rng;

pub(crate) type Requests = BTreeMap<SequenceId, Rc<NewSequence>>;

struct Sequence {
    request: Rc<NewSequence>,
    table: Vec<u32>,
    computed: u32,
    tokens: Vec<TokenId>,
    /// KV each token must have.
    expected: Vec<u64>,
    /// Leading tokens after which the next one of the prompt was scored.
    scored: u32,
    failed: bool,
}

/// How often things happen: one time in so many, 0 for never.
#[derive(Copy, Clone, Default)]
pub(crate) struct Odds {
    /// A row fails.
    pub(crate) row: u32,
    /// An image cannot be encoded.
    pub(crate) encoding: u32,
    /// A sample comes with tokens that follow it.
    pub(crate) forced: u32,
}

pub(crate) struct Shard {
    config: Config,
    image_tokens: BTreeMap<ImageKey, u32>,
    kv: Vec<u64>,
    sequences: BTreeMap<SequenceId, Sequence>,
    pixels: BTreeMap<ImageKey, u32>,
    embeddings: BTreeSet<ImageKey>,
    /// Images whose encoding failed and that have not been forgotten.
    broken: BTreeSet<ImageKey>,
    next_step: u64,
}

impl Shard {
    pub(crate) fn new(config: &Config, image_tokens: BTreeMap<ImageKey, u32>) -> Self {
        Self {
            kv: vec![0; (config.num_blocks * config.block_size) as usize],
            config: config.clone(),
            image_tokens,
            sequences: BTreeMap::new(),
            pixels: BTreeMap::new(),
            embeddings: BTreeSet::new(),
            broken: BTreeSet::new(),
            next_step: 0,
        }
    }

    pub(crate) fn put_image(&mut self, key: ImageKey, rank: u32) {
        assert!(!self.embeddings.contains(&key), "{key:?} is uploaded although its embedding is resident");
        assert!(!self.broken.contains(&key), "{key:?} is uploaded before it was forgotten");
        assert!(self.pixels.insert(key, rank).is_none(), "{key:?} is uploaded twice");
    }

    pub(crate) fn pixel_tokens(&self) -> u32 {
        self.pixels.keys().map(|key| self.image_tokens[key]).sum()
    }

    pub(crate) fn embedding_tokens(&self) -> u32 {
        self.embeddings.iter().map(|key| self.image_tokens[key]).sum()
    }

    pub(crate) fn num_sequences(&self) -> usize {
        self.sequences.len()
    }

    pub(crate) fn execute(&mut self, plan: &StepPlan, requests: &Requests, odds: Odds, rng: &mut Rng) -> StepResult {
        assert_eq!(plan.step, self.next_step);
        self.next_step += 1;
        self.forget(plan);
        self.learn(plan, requests);
        self.encode(plan, odds, rng);
        self.check_images(plan, requests);
        self.check_budgets(plan);
        let mut result = StepResult { step: plan.step, sampled: Vec::new(), failures: Vec::new() };
        for (index, row) in plan.rows.iter().enumerate() {
            let spans: Vec<&Span> = plan.spans.iter().filter(|span| span.row as usize == index).collect();
            self.extend_table(row);
            let had_failed = self.sequences[&row.sequence].failed;
            let fails = rng.one_in(odds.row) || spans.iter().any(|span| self.broken.contains(&span.image));
            if had_failed && rng.one_in(2) {
                self.go_on_as_if_nothing_were_wrong(row, &mut result);
            } else if had_failed || fails {
                self.fail(row, &mut result);
            } else {
                let is_new = self.compute(row, &spans, &mut result);
                if is_new && rng.one_in(odds.forced) {
                    self.force(row, rng.range(1, 6), &mut result);
                }
            }
        }
        result
    }

    fn forget(&mut self, plan: &StepPlan) {
        for id in &plan.forget_sequences {
            assert!(self.sequences.remove(id).is_some(), "{id:?} is forgotten but not known");
        }
        for key in &plan.forget_images {
            let held = [self.pixels.remove(key).is_some(), self.embeddings.remove(key), self.broken.remove(key)];
            assert_eq!(held.iter().filter(|held| **held).count(), 1, "{key:?} is forgotten but held {held:?}");
        }
    }

    fn learn(&mut self, plan: &StepPlan, requests: &Requests) {
        for id in &plan.new_sequences {
            let request = Rc::clone(&requests[id]);
            let tokens = request.prompt.clone();
            let new = Sequence {
                request,
                table: Vec::new(),
                computed: 0,
                tokens,
                expected: Vec::new(),
                scored: 0,
                failed: false,
            };
            assert!(self.sequences.insert(*id, new).is_none(), "{id:?} is new twice");
        }
    }

    fn encode(&mut self, plan: &StepPlan, odds: Odds, rng: &mut Rng) {
        for (key, rank) in &plan.encode_images {
            assert_eq!(self.pixels.remove(key), Some(*rank), "pixels of {key:?} are not on rank {rank}");
            assert!(plan.spans.iter().any(|span| span.image == *key), "{key:?} is encoded for nobody");
            if rng.one_in(odds.encoding) {
                self.broken.insert(*key);
            } else {
                self.embeddings.insert(*key);
            }
        }
    }

    /// The budgets of images hold, except for what somebody needs at once.
    fn check_images(&self, plan: &StepPlan, requests: &Requests) {
        let encoded: BTreeSet<_> = plan.encode_images.iter().map(|(key, _)| *key).collect();
        let tokens: u32 = encoded.iter().map(|key| self.image_tokens[key]).sum();
        assert!(tokens <= self.config.max_step_image_tokens || are_needed_at_once(&encoded, requests));
        let tokens = self.embedding_tokens();
        assert!(tokens <= self.config.embedding_cache_tokens || are_needed_at_once(&self.embeddings, requests));
    }

    fn check_budgets(&self, plan: &StepPlan) {
        let num_tokens: u32 = plan.rows.iter().map(|row| row.num_tokens).sum();
        assert!(num_tokens <= self.config.max_step_tokens, "{num_tokens} tokens in a step");
        assert!(plan.rows.len() <= self.config.max_rows as usize, "{} rows in a step", plan.rows.len());
        let distinct: BTreeSet<_> = plan.rows.iter().map(|row| row.sequence).collect();
        assert_eq!(distinct.len(), plan.rows.len(), "a sequence has two rows");
        assert!(plan.rows.is_sorted_by_key(|row| row.token_ids != RowTokens::Sampled), "prompts before decode rows");
    }

    fn extend_table(&mut self, row: &Row) {
        let sequence = self.sequences.get_mut(&row.sequence).unwrap();
        if row.reset_blocks {
            sequence.table.clear();
            sequence.computed = row.start;
        }
        sequence.table.extend(&row.new_blocks);
        assert_eq!(row.start, sequence.computed, "{:?} goes on somewhere else", row.sequence);
        assert!(row.num_tokens > 0);
        sequence.computed += row.num_tokens;
        check_score(row, sequence);
        assert_eq!(sequence.table.len() as u32, sequence.computed.div_ceil(self.config.block_size));
        let distinct: BTreeSet<_> = sequence.table.iter().collect();
        assert_eq!(distinct.len(), sequence.table.len(), "a block is twice in a table");
    }

    fn fail(&mut self, row: &Row, result: &mut StepResult) {
        result.failures.push(row.sequence);
        self.write_nonsense(row);
    }

    /// The sequence failed in the step before; the plan did not know that yet.
    fn go_on_as_if_nothing_were_wrong(&mut self, row: &Row, result: &mut StepResult) {
        if row.sample {
            result.sampled.push((row.sequence, 0));
        }
        self.write_nonsense(row);
    }

    /// What a failed sequence writes is of no use to anybody.
    fn write_nonsense(&mut self, row: &Row) {
        let sequence = self.sequences.get_mut(&row.sequence).unwrap();
        sequence.failed = true;
        for index in row.start..row.start + row.num_tokens {
            let slot = slot(&sequence.table, index, self.config.block_size);
            self.kv[slot] = u64::MAX;
        }
    }

    /// Whether it sampled a token that was not known.
    fn compute(&mut self, row: &Row, spans: &[&Span], result: &mut StepResult) -> bool {
        let Self { kv, sequences, embeddings, config, .. } = self;
        let sequence = sequences.get_mut(&row.sequence).unwrap();
        check_row(row, sequence, spans);
        let mut context = match row.start {
            0 => model::before_first(&sequence.request),
            start => kv[slot(&sequence.table, start - 1, config.block_size)],
        };
        let token = |index| (content(row, sequence, spans, index, embeddings), positions(row, sequence, index));
        for index in 0..row.num_tokens {
            let (part, positions) = token(index);
            let around = row.both_ways.iter().find(|range| range.contains(&index));
            let seen = around.map_or(part, |range| model::seeing(part, range.clone().map(token)));
            context = model::after(context, seen, &positions);
            kv[slot(&sequence.table, row.start + index, config.block_size)] = context;
        }
        check_context(sequence, kv, config.block_size);
        if !row.sample {
            return false;
        }
        let token = model::sample(context);
        result.sampled.push((row.sequence, token));
        let known = sequence.tokens.get((row.start + row.num_tokens) as usize).copied();
        assert!(known.is_none_or(|known| known == token), "a token was forced that the model would not have sampled");
        sequence.tokens.extend(known.is_none().then_some(token));
        known.is_none()
    }

    /// Names up to `most` tokens that will follow.
    fn force(&mut self, row: &Row, most: u32, result: &mut StepResult) {
        let sequence = self.sequences.get_mut(&row.sequence).unwrap();
        let (answer, _) = model::generate(&sequence.request);
        let known = sequence.tokens.len() - sequence.request.prompt.len();
        for token in answer.into_iter().skip(known).take(most as usize) {
            sequence.tokens.push(token);
            result.sampled.push((row.sequence, token));
        }
    }
}

fn are_needed_at_once(images: &BTreeSet<ImageKey>, requests: &Requests) -> bool {
    let mut units = requests.values().flat_map(|request| units(request));
    images.len() < 2 || units.any(|unit| images.is_subset(&unit))
}

/// Images with tokens in the same range.
pub(crate) fn units(request: &NewSequence) -> impl Iterator<Item = BTreeSet<ImageKey>> + '_ {
    request.both_ways.iter().map(|range| {
        let inside = request.placeholders.iter().filter(|run| run.offset < range.end && run.end() > range.start);
        inside.map(|run| run.image).collect()
    })
}

fn slot(table: &[u32], index: u32, block_size: u32) -> usize {
    (table[(index / block_size) as usize] * block_size + index % block_size) as usize
}

/// Every token of the prompt but the first is scored, in order, and a row scores only if one is that was not before.
fn check_score(row: &Row, sequence: &mut Sequence) {
    let prompt = sequence.request.prompt.len() as u32;
    let to_score = if sequence.request.score_prompt { prompt - 1 } else { 0 };
    let end = to_score.min(row.start + row.num_tokens);
    assert_eq!(row.score, sequence.scored < end, "{:?} scores after {}", sequence.request.id, sequence.scored);
    assert!(!row.score || row.start <= sequence.scored, "{:?} leaves a token out", sequence.request.id);
    sequence.scored = sequence.scored.max(end);
    assert!(!row.sample || sequence.scored == to_score, "{:?} samples before it is scored", sequence.request.id);
}

fn check_row(row: &Row, sequence: &Sequence, spans: &[&Span]) {
    let end = row.start + row.num_tokens;
    // A row that was planned before tokens behind it were forced samples one of those.
    let samples = end == sequence.tokens.len() as u32 || row.token_ids == RowTokens::Sampled;
    assert_eq!(row.sample, samples, "a row samples after its last known token");
    let of_request = sequence.request.placeholders.iter().filter(|run| run.offset < end && run.end() > row.start);
    assert_eq!(spans.len(), of_request.clone().count(), "a span for each placeholder in the row");
    let reached = sequence.request.both_ways.iter().filter(|range| range.start < end && range.end > row.start);
    assert!(reached.clone().all(|range| range.start >= row.start && range.end <= end), "a range is cut");
    let in_row = reached.map(|range| range.start - row.start..range.end - row.start);
    assert!(in_row.eq(row.both_ways.iter().cloned()), "a row names its ranges");
}

fn content(row: &Row, sequence: &Sequence, spans: &[&Span], index: u32, embeddings: &BTreeSet<ImageKey>) -> u64 {
    let around = spans.iter().find(|span| span.offset <= index && index < span.offset + span.length);
    if let Some(span) = around {
        assert!(embeddings.contains(&span.image), "the embedding of {:?} is not there", span.image);
        return model::image_part(span.image, span.image_offset + index - span.offset);
    }
    match &row.token_ids {
        RowTokens::Ids(ids) => {
            assert_eq!(ids.len() as u32, row.num_tokens);
            model::text(ids[index as usize])
        }
        RowTokens::Sampled => {
            assert_eq!(row.num_tokens, 1);
            assert!(sequence.tokens.len() > sequence.request.prompt.len(), "nothing was sampled");
            model::text(sequence.tokens[row.start as usize])
        }
    }
}

fn positions(row: &Row, sequence: &Sequence, index: u32) -> Vec<i32> {
    let num_axes = model::num_axes(&sequence.request);
    match &row.positions {
        RowPositions::Sequential => vec![(row.start + index) as i32; num_axes],
        RowPositions::CountFrom(first) => vec![first + index as i32; num_axes],
        RowPositions::Explicit(axes) => {
            assert!(axes.len() == num_axes && axes.iter().all(|axis| axis.len() as u32 == row.num_tokens));
            axes.iter().map(|axis| axis[index as usize]).collect()
        }
    }
}

fn check_context(sequence: &mut Sequence, kv: &[u64], block_size: u32) {
    for index in sequence.expected.len()..sequence.computed as usize {
        let before = sequence.expected.last().copied().unwrap_or(model::before_first(&sequence.request));
        let token = sequence.tokens[index];
        sequence.expected.push(model::expected(&sequence.request, before, index as u32, token));
    }
    for index in 0..sequence.computed {
        let read = kv[slot(&sequence.table, index, block_size)];
        assert_eq!(read, sequence.expected[index as usize], "{:?} reads a foreign token {index}", sequence.request.id);
    }
}
