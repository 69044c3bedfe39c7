//! All live sequences and the queue each is in. Keeps the two in agreement, and nothing else.

use std::collections::BTreeSet;
use std::ops::{Bound, Index, IndexMut};

use crate::hash::KeyMap;
use crate::sequence::{Arrival, Phase, Sequence};
use crate::types::SequenceId;

/// Index of a live sequence. Reused once the sequence is gone.
pub(crate) type Slot = u32;

/// Sorts sequences by age.
pub(crate) type Ticket = (Arrival, Slot);

#[derive(Debug, Default)]
pub(crate) struct Sequences {
    slots: Vec<Sequence>,
    free_slots: Vec<Slot>,
    by_id: KeyMap<SequenceId, Slot>,
    queues: [BTreeSet<Ticket>; Phase::COUNT],
    queued_tokens: u64,
}

impl Sequences {
    /// The sequence starts in phase `Waiting`.
    pub(crate) fn insert(&mut self, sequence: Sequence) -> Slot {
        let id = sequence.id;
        let slot = if let Some(slot) = self.free_slots.pop() {
            self.slots[slot as usize] = sequence;
            slot
        } else {
            self.slots.push(sequence);
            (self.slots.len() - 1) as Slot
        };
        self.by_id.insert(id, slot);
        self.enter(slot, Phase::Waiting);
        slot
    }

    /// Takes the sequence out of everything. The slot keeps a shell of it until it is reused.
    pub(crate) fn remove(&mut self, slot: Slot) {
        self.leave(slot);
        let id = self[slot].id;
        self.by_id.remove(&id);
        self[slot].clear();
        self.free_slots.push(slot);
    }

    pub(crate) fn find(&self, id: SequenceId) -> Option<Slot> {
        self.by_id.get(&id).copied()
    }

    pub(crate) fn set_phase(&mut self, slot: Slot, phase: Phase) {
        if self[slot].phase != phase {
            self.leave(slot);
            self.enter(slot, phase);
        }
    }

    fn enter(&mut self, slot: Slot, phase: Phase) {
        self[slot].phase = phase;
        let ticket = self.ticket(slot);
        self.queues[phase as usize].insert(ticket);
        if matches!(phase, Phase::Waiting | Phase::Parked) {
            self.queued_tokens += u64::from(self[slot].len());
        }
    }

    fn leave(&mut self, slot: Slot) {
        let (phase, ticket) = (self[slot].phase, self.ticket(slot));
        self.queues[phase as usize].remove(&ticket);
        if matches!(phase, Phase::Waiting | Phase::Parked) {
            self.queued_tokens -= u64::from(self[slot].len());
        }
    }

    pub(crate) fn ticket(&self, slot: Slot) -> Ticket {
        (self[slot].arrival, slot)
    }

    pub(crate) fn count(&self, phase: Phase) -> usize {
        self.queues[phase as usize].len()
    }

    pub(crate) fn is_empty(&self, phase: Phase) -> bool {
        self.queues[phase as usize].is_empty()
    }

    /// Slots of a phase as they are now, oldest first.
    pub(crate) fn snapshot(&self, phase: Phase) -> Vec<Slot> {
        self.queues[phase as usize].iter().map(|(_, slot)| *slot).collect()
    }

    /// Slots of every live sequence, oldest first.
    pub(crate) fn all(&self) -> Vec<Slot> {
        let mut tickets: Vec<Ticket> = self.queues.iter().flatten().copied().collect();
        tickets.sort_unstable();
        tickets.into_iter().map(|(_, slot)| slot).collect()
    }

    /// The oldest sequence that has not ended.
    pub(crate) fn oldest(&self) -> Option<Ticket> {
        let (over, others) = self.queues.split_last()?;
        debug_assert!(over.iter().all(|(_, slot)| self[*slot].phase == Phase::Over));
        others.iter().filter_map(|queue| queue.first()).min().copied()
    }

    pub(crate) fn youngest(&self, phase: Phase) -> Option<Ticket> {
        self.queues[phase as usize].last().copied()
    }

    /// The next younger sequence of a phase; `None` asks for the oldest.
    pub(crate) fn next_younger(&self, phase: Phase, than: Option<Ticket>) -> Option<Ticket> {
        let from = than.map_or(Bound::Unbounded, Bound::Excluded);
        self.queues[phase as usize].range((from, Bound::Unbounded)).next().copied()
    }

    /// Tokens of the sequences that hold no blocks.
    pub(crate) fn queued_tokens(&self) -> u64 {
        self.queued_tokens
    }
}

impl Index<Slot> for Sequences {
    type Output = Sequence;

    fn index(&self, slot: Slot) -> &Sequence {
        &self.slots[slot as usize]
    }
}

impl IndexMut<Slot> for Sequences {
    fn index_mut(&mut self, slot: Slot) -> &mut Sequence {
        &mut self.slots[slot as usize]
    }
}
