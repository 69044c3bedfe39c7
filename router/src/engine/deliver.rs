//! Live sequences and what they are told: the step loop's end of every stream.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use text_generation_scheduler::{FinishReason, ImageKey, SequenceId};
use tokio::sync::mpsc;

use super::progress::Progress;
use super::scores::PromptScores;
use super::traced::TracedRequest;
use super::types::{GeneratedToken, GenerationError, StreamEvent};
use crate::shard::{EncodedSequence, RowScores};

/// A sequence somebody is waiting for.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) sender: mpsc::Sender<StreamEvent>,
    pub(super) progress: Arc<Progress>,
    pub(super) submitted: Instant,
    pub(super) encoded: EncodedSequence,
    pub(super) images: Vec<ImageKey>,
    /// Until the first token, if the prompt is scored.
    pub(super) scores: Option<PromptScores>,
    /// While a timeline is kept.
    pub(super) traced: Option<Box<TracedRequest>>,
}

/// What became of a delivery.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(super) enum Delivered {
    /// The sequence goes on.
    Running,
    /// The sequence is over and out of the table.
    Over,
    /// Nobody reads, or too slowly: the scheduler should abort it.
    Unread,
    /// The prompt was to be scored, and some of its scores never came.
    Unscored,
}

/// Every live sequence by id.
#[derive(Debug, Default)]
pub(super) struct Sequences(HashMap<SequenceId, Live>);

impl Sequences {
    pub(super) fn insert(&mut self, id: SequenceId, live: Live) {
        self.0.insert(id, live);
    }

    pub(super) fn remove(&mut self, id: SequenceId) -> Option<Live> {
        self.0.remove(&id)
    }

    pub(super) fn get(&self, id: SequenceId) -> Option<&Live> {
        self.0.get(&id)
    }

    pub(super) fn get_mut(&mut self, id: SequenceId) -> Option<&mut Live> {
        self.0.get_mut(&id)
    }

    pub(super) fn ids(&self) -> Vec<SequenceId> {
        self.0.keys().copied().collect()
    }

    /// Keeps what was said of prompts until their first tokens come.
    pub(super) fn score(&mut self, rows: Vec<RowScores>) {
        for row in rows {
            if let Some(scores) = self.0.get_mut(&row.sequence).and_then(|live| live.scores.as_mut()) {
                scores.add(row);
            }
        }
    }

    pub(super) fn token(&mut self, id: SequenceId, token: GeneratedToken) -> Delivered {
        let Some(live) = self.0.get_mut(&id) else { return Delivered::Unread };
        if let Some(scores) = live.scores.take() {
            let Some(prompt) = scores.finish() else { return Delivered::Unscored };
            if live.sender.try_send(StreamEvent::Prompt(prompt)).is_err() {
                return Delivered::Unread;
            }
        }
        if let Some(traced) = &mut live.traced {
            traced.token();
        }
        let over = token.finish.is_some();
        match live.sender.try_send(StreamEvent::Token(token)) {
            Ok(()) if over => Delivered::Over,
            Ok(()) => Delivered::Running,
            Err(_) => Delivered::Unread,
        }
    }
}

impl Live {
    /// The last thing a stream hears. A reader that is gone or has a full buffer sees its stream end instead.
    pub(super) fn fail(self, error: GenerationError) {
        let _ = self.sender.try_send(StreamEvent::Failed(error));
    }

    pub(super) fn start(&mut self, cached_tokens: u32) {
        if let Some(traced) = &mut self.traced {
            traced.planned();
        }
        self.progress.started(self.submitted.elapsed(), cached_tokens);
    }
}

/// The `sampled_index`-th token of a step.
pub(super) fn generated(
    step: &mut crate::shard::ShardStep,
    index: usize,
    finish: Option<FinishReason>,
) -> GeneratedToken {
    GeneratedToken {
        id: step.result.sampled[index].1,
        logprob: step.logprobs[index],
        top: std::mem::take(&mut step.top[index]),
        finish,
    }
}
