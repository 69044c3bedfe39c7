//! Plans as the wire wants them: structs of arrays, numbers packed little-endian.

use std::sync::Arc;

use bytes::Bytes;
use text_generation_proto as pb;
use text_generation_scheduler::{ImageKey, Row, RowPositions, RowTokens, SequenceId, Span, StepPlan};

use crate::grammar::{Grammar, GrammarKind};
use crate::sampling::{LogprobSource, PenaltyScope, Sampling};

/// What a shard is told about a sequence on first sight.
#[derive(Clone, Debug)]
pub struct EncodedSequence {
    /// How its tokens are chosen.
    pub sampling: Sampling,
    /// Prompt ids, only when a penalty looks at them or they are scored.
    pub prompt: Vec<u32>,
    /// Best tokens to report beside each scored token of the prompt; `None` if none is scored.
    pub prompt_num_top: Option<u32>,
    /// Ids that may never be sampled.
    pub banned: Vec<u32>,
    /// What its answer may be.
    pub grammar: Option<Arc<Grammar>>,
    /// How long its answer may become.
    pub max_new_tokens: u32,
}

/// Encodes a plan; `describe` is asked about each sequence the shard has not seen. A `timed` one asks the shards when
/// the parts of the step began and ended.
pub fn encode_plan<'a>(
    plan: &StepPlan,
    epoch: u64,
    timed: bool,
    describe: impl Fn(SequenceId) -> Option<&'a EncodedSequence>,
) -> pb::StepPlan {
    let new = plan.new_sequences.iter().filter_map(|&id| Some(new_sequence(id, describe(id)?)));
    let mut encoded = pb::StepPlan {
        epoch,
        step: plan.step,
        timed,
        forget_sequences: plan.forget_sequences.iter().map(|id| id.0).collect(),
        forget_images: plan.forget_images.iter().map(key_bytes).collect(),
        new_sequences: new.collect(),
        encode_images: plan
            .encode_images
            .iter()
            .map(|(key, rank)| pb::EncodeImage { key: key_bytes(key), rank: *rank })
            .collect(),
        ..Default::default()
    };
    rows(&mut encoded, &plan.rows);
    spans(&mut encoded, &plan.spans);
    both_ways(&mut encoded, &plan.rows);
    encoded
}

fn rows(encoded: &mut pb::StepPlan, rows: &[Row]) {
    let mut blocks = Vec::new();
    let mut token_ids = Vec::new();
    for row in rows {
        encoded.row_sequence.push(row.sequence.0);
        encoded.row_num_tokens.push(row.num_tokens);
        encoded.row_start.push(row.start);
        encoded.row_flags.push(flags(row));
        encoded.row_num_new_blocks.push(row.new_blocks.len() as u32);
        blocks.extend(row.new_blocks.iter().flat_map(|block| block.to_le_bytes()));
        if let RowTokens::Ids(ids) = &row.token_ids {
            token_ids.extend(ids.iter().flat_map(|id| id.to_le_bytes()));
        }
    }
    encoded.new_blocks = blocks.into();
    encoded.token_ids = token_ids.into();
    encoded.positions = positions(rows);
}

fn flags(row: &Row) -> u32 {
    let flag = |set: bool, flag: pb::RowFlag| if set { flag as u32 } else { 0 };
    flag(matches!(row.token_ids, RowTokens::Sampled), pb::RowFlag::UseSampledToken)
        | flag(row.sample, pb::RowFlag::Sample)
        | flag(row.reset_blocks, pb::RowFlag::ResetBlocks)
        | flag(row.score, pb::RowFlag::Score)
}

/// Axis-major positions of the step: nothing when every row counts up from its start, one run when the axes agree.
fn positions(rows: &[Row]) -> Bytes {
    if rows.iter().all(|row| matches!(row.positions, RowPositions::Sequential)) {
        return Bytes::new();
    }
    let axes = rows.iter().map(|row| match &row.positions {
        RowPositions::Sequential | RowPositions::CountFrom(_) => 1,
        RowPositions::Explicit(axes) => axes.len(),
    });
    let num_axes = axes.max().unwrap_or(1);
    let values = (0..num_axes).flat_map(|axis| rows.iter().flat_map(move |row| run_of(row, axis)));
    values.flat_map(i32::to_le_bytes).collect::<Vec<u8>>().into()
}

fn run_of(row: &Row, axis: usize) -> Vec<i32> {
    let count_from = |first: i32| (first..).take(row.num_tokens as usize).collect();
    match &row.positions {
        RowPositions::Sequential => count_from(row.start as i32),
        RowPositions::CountFrom(first) => count_from(*first),
        RowPositions::Explicit(runs) => runs[axis].clone(),
    }
}

fn spans(encoded: &mut pb::StepPlan, spans: &[Span]) {
    let mut keys: Vec<ImageKey> = Vec::new();
    for span in spans {
        let index = keys.iter().position(|key| *key == span.image).unwrap_or_else(|| {
            keys.push(span.image);
            keys.len() - 1
        });
        encoded.span_row.push(span.row);
        encoded.span_offset.push(span.offset);
        encoded.span_length.push(span.length);
        encoded.span_image_offset.push(span.image_offset);
        encoded.span_image.push(index as u32);
    }
    encoded.image_keys = keys.iter().map(key_bytes).collect();
}

fn both_ways(encoded: &mut pb::StepPlan, rows: &[Row]) {
    for (row, range) in
        rows.iter().enumerate().flat_map(|(index, row)| row.both_ways.iter().map(move |range| (index, range)))
    {
        encoded.both_ways_row.push(row as u32);
        encoded.both_ways_offset.push(range.start);
        encoded.both_ways_length.push(range.end - range.start);
    }
}

fn key_bytes(key: &ImageKey) -> Bytes {
    Bytes::copy_from_slice(&key.0)
}

fn new_sequence(id: SequenceId, sequence: &EncodedSequence) -> pb::NewSequence {
    pb::NewSequence {
        id: id.0,
        sampling: Some(sampling(sequence)),
        prompt_token_ids: packed(&sequence.prompt),
        prompt_num_top: sequence.prompt_num_top,
        grammar: sequence.grammar.as_deref().map(grammar),
        max_new_tokens: sequence.grammar.as_ref().map_or(0, |_| sequence.max_new_tokens),
    }
}

fn grammar(grammar: &Grammar) -> pb::Grammar {
    let kind = match grammar.kind {
        GrammarKind::JsonSchema => pb::GrammarKind::JsonSchema,
        GrammarKind::Regex => pb::GrammarKind::Regex,
        GrammarKind::Lark => pb::GrammarKind::Lark,
    };
    pb::Grammar { kind: kind.into(), text: grammar.text.clone() }
}

fn packed(ids: &[u32]) -> Bytes {
    ids.iter().flat_map(|id| id.to_le_bytes()).collect::<Vec<u8>>().into()
}

fn sampling(sequence: &EncodedSequence) -> pb::Sampling {
    let sampling = &sequence.sampling;
    let logprobs = match sampling.logprobs {
        LogprobSource::Warped => pb::LogprobSource::Warped,
        LogprobSource::Raw => pb::LogprobSource::Raw,
    };
    let scope = match sampling.penalty_scope {
        PenaltyScope::Output => pb::PenaltyScope::Output,
        PenaltyScope::AllRelative => pb::PenaltyScope::AllRelative,
    };
    pb::Sampling {
        greedy: sampling.greedy,
        temperature: sampling.temperature,
        top_k: sampling.top_k,
        top_p: sampling.top_p,
        typical_p: sampling.typical_p,
        repetition_penalty: sampling.repetition_penalty,
        frequency_penalty: sampling.frequency_penalty,
        presence_penalty: sampling.presence_penalty,
        seed: sampling.seed,
        num_top_tokens: sampling.num_top_tokens,
        logprobs: logprobs.into(),
        penalty_scope: scope.into(),
        banned_token_ids: packed(&sequence.banned),
        logit_bias_token_ids: packed(&sampling.logit_bias.iter().map(|(id, _)| *id).collect::<Vec<_>>()),
        logit_bias: sampling.logit_bias.iter().map(|(_, bias)| *bias).collect(),
        watermark: sampling.watermark,
    }
}
