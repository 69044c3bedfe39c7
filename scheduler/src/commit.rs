//! `commit`: takes a step's result over. Confirms KV, publishes full blocks, delivers tokens, and lets go of
//! what only this step still used.

use std::collections::BTreeSet;

use crate::plan::Event;
use crate::scheduler::{FlightRow, InFlight, Scheduler};
use crate::sequence::Phase;
use crate::sequences::Slot;
use crate::types::{ImageKey, SequenceId, StepResult, TokenId};

/// A result, read row by row.
struct Reader<'a> {
    sampled: &'a [(SequenceId, TokenId)],
    next: usize,
    failures: BTreeSet<SequenceId>,
}

enum Answer<'a> {
    /// The token of the row and those that can only follow it, with the first one's index in the result.
    Sampled(usize, &'a [(SequenceId, TokenId)]),
    /// A row without sample went well.
    Done,
    Failed,
}

impl<'a> Reader<'a> {
    /// The answer to the next row. A sample that is missing is a failure: nothing else would end the sequence.
    fn answer(&mut self, sequence: SequenceId, sample: bool) -> Answer<'a> {
        let first = self.next;
        if sample {
            self.next += self.sampled[first..].iter().take_while(|(id, _)| *id == sequence).count();
        }
        let samples = &self.sampled[first..self.next];
        match sample {
            _ if self.failures.contains(&sequence) => Answer::Failed,
            true if samples.is_empty() => Answer::Failed,
            true => Answer::Sampled(first, samples),
            false => Answer::Done,
        }
    }
}

impl Scheduler {
    /// Takes over the result of the oldest uncommitted plan. A result of any other step is ignored and gives no
    /// events. Events come in row order.
    pub fn commit(&mut self, result: &StepResult) -> Vec<Event> {
        let flight = match self.in_flight.pop_front() {
            Some(flight) if flight.step == result.step => flight,
            Some(other) => {
                self.in_flight.push_front(other);
                return Vec::new();
            }
            None => return Vec::new(),
        };
        let failures = result.failures.iter().copied().collect();
        let mut reader = Reader { sampled: &result.sampled, next: 0, failures };
        let mut events = Vec::with_capacity(flight.rows.len());
        for row in &flight.rows {
            let answer = reader.answer(self.sequences[row.slot].id, row.sample);
            self.commit_row(row, &flight, &answer, &mut events);
        }
        flight.forgotten.iter().for_each(|key| self.images.forgotten(*key));
        events
    }

    fn commit_row(&mut self, row: &FlightRow, flight: &InFlight, answer: &Answer<'_>, events: &mut Vec<Event>) {
        self.sequences[row.slot].steps_in_flight -= 1;
        match answer {
            // Whatever the shard says of a sequence after it failed is of no use.
            _ if self.sequences[row.slot].failed => events.extend(self.commit_failure(row, &flight.encoded)),
            Answer::Failed => events.extend(self.commit_failure(row, &flight.encoded)),
            Answer::Done => self.confirm(row),
            Answer::Sampled(first, samples) => {
                self.confirm(row);
                self.commit_samples(row.slot, *first, samples, events);
            }
        }
        self.let_go(row.slot);
    }

    /// A failed row may have failed because of an image: what this step encoded for it cannot be relied on.
    fn commit_failure(&mut self, row: &FlightRow, encoded: &[ImageKey]) -> Option<Event> {
        let sequence = &mut self.sequences[row.slot];
        sequence.failed = true;
        let (id, was_over) = (sequence.id, sequence.phase == Phase::Over);
        let images = sequence.spans(row.start..row.end, 0).map(|span| span.image);
        images.filter(|key| encoded.contains(key)).for_each(|key| self.images.doom(key));
        self.end_in_commit(row.slot);
        (!was_over).then_some(Event::Failed { sequence: id })
    }

    /// The row's KV is written. Blocks that are full now may serve others.
    fn confirm(&mut self, row: &FlightRow) {
        let block_size = self.config.block_size;
        let sequence = &mut self.sequences[row.slot];
        // After an abort the tokens of the last rows stay unknown.
        let full = (row.end.min(sequence.len()) / block_size) as usize;
        if full <= sequence.num_published || !self.config.prefix_caching {
            return;
        }
        let first = std::mem::replace(&mut sequence.num_published, full);
        for index in first..full {
            self.blocks.publish(sequence.table[index], sequence.hash(index, block_size));
        }
    }

    /// The first is the row's own sample, unless that was known to follow before it came; the others can only follow.
    fn commit_samples(&mut self, slot: Slot, first: usize, samples: &[(SequenceId, TokenId)], events: &mut Vec<Event>) {
        let settled = &mut self.sequences[slot].settled_samples;
        if *settled > 0 {
            *settled -= 1;
            return;
        }
        for (index, (id, token)) in (first..).zip(samples) {
            let sequence = &mut self.sequences[slot];
            // A token of a sequence that is over is surplus.
            if sequence.phase == Phase::Over {
                return;
            }
            let finish = if index == first { sequence.push_sampled(*token) } else { sequence.push_forced(*token) };
            let goes_on = matches!(sequence.phase, Phase::Decoding | Phase::Exhausted);
            events.push(Event::Token { sequence: *id, sampled_index: index, finish });
            if finish.is_some() {
                self.end_in_commit(slot);
            } else if index > first && goes_on {
                self.sequences.set_phase(slot, Phase::Prefilling);
            }
        }
    }

    /// Like `end`, but leaves the removal to `let_go`.
    fn end_in_commit(&mut self, slot: Slot) {
        self.leave_images(slot);
        self.sequences.set_phase(slot, Phase::Over);
    }

    fn let_go(&mut self, slot: Slot) {
        let sequence = &self.sequences[slot];
        match (sequence.steps_in_flight, sequence.phase) {
            (0, Phase::Over) => self.remove(slot),
            (0, Phase::Draining) => self.requeue(slot),
            _ => {}
        }
    }
}
