//! Log-probabilities of prompt tokens, out of the flat arrays of a result.

use text_generation_proto as pb;
use text_generation_scheduler::{SequenceId, TokenId};

use super::ShardError;

/// What a row said of the prompt's own tokens.
#[derive(Clone, Debug, PartialEq)]
pub struct RowScores {
    /// Whose prompt.
    pub sequence: SequenceId,
    /// Index in the prompt of the first token that is scored.
    pub first: u32,
    /// Each token's log-probability, and the best tokens in its place with theirs, best first.
    pub tokens: Vec<(f32, Vec<(TokenId, f32)>)>,
}

/// The rows that scored, in row order. Errors: arrays that do not fit together.
pub(super) fn of_result(result: &pb::StepResult) -> Result<Vec<RowScores>, ShardError> {
    if !fits_together(result) {
        return Err(ShardError::Disagree("the arrays of a result's scores have different lengths".into()));
    }
    let mut logprobs = result.prompt_logprob.iter().copied();
    let mut best = result.prompt_top_token.iter().copied().zip(result.prompt_top_logprob.iter().copied());
    let mut row = |index: usize| {
        let (count, num_top) = (result.scored_num_tokens[index] as usize, result.scored_num_top[index] as usize);
        let scored = logprobs.by_ref().take(count);
        RowScores {
            sequence: SequenceId(result.scored_sequence[index]),
            first: result.scored_first[index],
            tokens: scored.map(|logprob| (logprob, best.by_ref().take(num_top).collect())).collect(),
        }
    };
    Ok((0..result.scored_sequence.len()).map(&mut row).collect())
}

fn fits_together(result: &pb::StepResult) -> bool {
    let rows = result.scored_sequence.len();
    let columns = [&result.scored_first, &result.scored_num_tokens, &result.scored_num_top];
    let counts = result.scored_num_tokens.iter().map(|&count| u64::from(count));
    let tops = counts.clone().zip(&result.scored_num_top).map(|(count, &top)| count.saturating_mul(top.into()));
    let tops: u64 = tops.fold(0, u64::saturating_add);
    columns.iter().all(|column| column.len() == rows)
        && counts.sum::<u64>() == result.prompt_logprob.len() as u64
        && [result.prompt_top_token.len() as u64, result.prompt_top_logprob.len() as u64] == [tops, tops]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result() -> pb::StepResult {
        pb::StepResult {
            scored_sequence: vec![7, 8],
            scored_first: vec![1, 5],
            scored_num_tokens: vec![2, 1],
            scored_num_top: vec![0, 2],
            prompt_logprob: vec![-1.0, -2.0, -3.0],
            prompt_top_token: vec![4, 5],
            prompt_top_logprob: vec![-0.5, -0.75],
            ..Default::default()
        }
    }

    #[test]
    fn rows_take_their_parts() {
        let rows = of_result(&result()).unwrap();
        let none = Vec::new;
        let first = RowScores { sequence: SequenceId(7), first: 1, tokens: vec![(-1.0, none()), (-2.0, none())] };
        let top = vec![(4, -0.5), (5, -0.75)];
        assert_eq!(rows, [first, RowScores { sequence: SequenceId(8), first: 5, tokens: vec![(-3.0, top)] }]);
    }

    #[test]
    fn other_lengths_are_refused() {
        let spoiled: [fn(&mut pb::StepResult); 5] = [
            |result| result.scored_first.clear(),
            |result| result.scored_num_top.push(1),
            |result| result.prompt_logprob.clear(),
            |result| result.prompt_top_token.push(1),
            |result| result.scored_num_tokens[1] = u32::MAX,
        ];
        for spoil in spoiled {
            let mut result = result();
            spoil(&mut result);
            assert!(of_result(&result).is_err(), "{result:?}");
        }
        assert_eq!(of_result(&pb::StepResult::default()).unwrap(), []);
    }
}
