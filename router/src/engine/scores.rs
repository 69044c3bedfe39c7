//! The scores of a prompt as its chunks come back.

use text_generation_scheduler::TokenId;

use super::types::PromptToken;
use crate::shard::RowScores;

/// A prompt that is being scored.
#[derive(Debug)]
pub(super) struct PromptScores {
    /// All of them; the first `done` have been scored.
    tokens: Vec<PromptToken>,
    done: usize,
}

impl PromptScores {
    pub(super) fn new(prompt: &[TokenId]) -> Self {
        // Nothing is before the first token, so nothing is said of it.
        let tokens = prompt.iter().map(|&id| PromptToken { id, logprob: None, top: Vec::new() });
        Self { tokens: tokens.collect(), done: 1 }
    }

    /// Takes over what a row says. A row that was computed again after a preemption may repeat what is known.
    pub(super) fn add(&mut self, row: RowScores) {
        let first = row.first as usize;
        if first > self.done {
            return;
        }
        let new = row.tokens.into_iter().skip(self.done - first);
        for ((logprob, top), token) in new.zip(&mut self.tokens[self.done..]) {
            (token.logprob, token.top) = (Some(logprob), top);
            self.done += 1;
        }
    }

    /// The scored prompt; `None` if some of it never came.
    pub(super) fn finish(self) -> Option<Vec<PromptToken>> {
        (self.done == self.tokens.len()).then_some(self.tokens)
    }
}

#[cfg(test)]
mod tests {
    use text_generation_scheduler::SequenceId;

    use super::*;

    fn row(first: u32, logprobs: &[f32]) -> RowScores {
        let tokens = logprobs.iter().map(|&logprob| (logprob, Vec::new())).collect();
        RowScores { sequence: SequenceId(1), first, tokens }
    }

    fn logprobs(rows: impl IntoIterator<Item = RowScores>) -> Option<Vec<Option<f32>>> {
        let mut scores = PromptScores::new(&[5, 6, 7, 8]);
        rows.into_iter().for_each(|row| scores.add(row));
        Some(scores.finish()?.into_iter().map(|token| token.logprob).collect())
    }

    #[test]
    fn chunks_add_up() {
        let all = Some(vec![None, Some(-1.0), Some(-2.0), Some(-3.0)]);
        assert_eq!(logprobs([row(1, &[-1.0, -2.0, -3.0])]), all);
        assert_eq!(logprobs([row(1, &[-1.0]), row(2, &[-2.0, -3.0])]), all);
    }

    #[test]
    fn what_is_known_stays() {
        let all = Some(vec![None, Some(-1.0), Some(-2.0), Some(-3.0)]);
        assert_eq!(logprobs([row(1, &[-1.0, -2.0]), row(1, &[-9.0, -9.0, -3.0])]), all);
        assert_eq!(logprobs([row(1, &[-1.0, -2.0, -3.0]), row(2, &[-9.0])]), all);
        assert_eq!(logprobs([row(1, &[-1.0, -2.0, -3.0, -4.0])]), all);
    }

    #[test]
    fn gaps_are_not_filled() {
        assert_eq!(logprobs([row(1, &[-1.0]), row(3, &[-3.0])]), None);
        assert_eq!(logprobs([]), None);
        assert_eq!(PromptScores::new(&[5]).finish().map(|tokens| tokens.len()), Some(1));
    }
}
