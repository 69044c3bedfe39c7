//! The language model of the simulation. The KV of a token is a hash of everything it may depend on: salt, all
//! earlier tokens, their positions and image parts, and the same of the range it is in. The next token is a function of that hash. So one wrong
//! block, position, embedding or order anywhere changes what is generated, and nothing else does.

use text_generation_scheduler::{FinishReason, ImageKey, NewSequence, Positions, TokenId};

/// Few tokens, so that sequences share prefixes and meet end tokens.
pub(crate) const VOCABULARY: u32 = 11;

pub(crate) fn mix(a: u64, b: u64) -> u64 {
    let mut x = a.rotate_left(23) ^ b.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

pub(crate) fn before_first(sequence: &NewSequence) -> u64 {
    mix(sequence.cache_salt, 1)
}

pub(crate) fn after(context: u64, token: u64, positions: &[i32]) -> u64 {
    positions.iter().fold(mix(context, token), |hash, position| mix(hash, *position as u64))
}

pub(crate) fn text(token: TokenId) -> u64 {
    mix(2, u64::from(token))
}

pub(crate) fn image_part(image: ImageKey, embedding: u32) -> u64 {
    let key = image.0.iter().fold(3, |hash, byte| mix(hash, u64::from(*byte)));
    mix(key, u64::from(embedding))
}

/// Part of a token that attends to everything in a range: `tokens` are the parts and positions of all of them.
pub(crate) fn seeing(part: u64, tokens: impl Iterator<Item = (u64, Vec<i32>)>) -> u64 {
    tokens.fold(mix(part, 5), |context, (part, positions)| after(context, part, &positions))
}

pub(crate) fn sample(context: u64) -> TokenId {
    (mix(context, 4) % u64::from(VOCABULARY)) as TokenId
}

/// KV of token `index` when the tokens before it gave `context`, read from the request alone.
pub(crate) fn expected(sequence: &NewSequence, context: u64, index: u32, token: TokenId) -> u64 {
    let part = part(sequence, index, token);
    let around = sequence.both_ways.iter().find(|range| range.contains(&index));
    let seen = around.map_or(part, |range| {
        let token = |index: u32| self::part(sequence, index, sequence.prompt[index as usize]);
        seeing(part, range.clone().map(|index| (token(index), positions(sequence, index))))
    });
    after(context, seen, &positions(sequence, index))
}

fn part(sequence: &NewSequence, index: u32, token: TokenId) -> u64 {
    let around = sequence.placeholders.iter().find(|run| run.offset <= index && index < run.end());
    around.map_or(text(token), |run| image_part(run.image, run.image_offset + index - run.offset))
}

pub(crate) fn num_axes(sequence: &NewSequence) -> usize {
    match &sequence.positions {
        Positions::Sequential => 1,
        Positions::Explicit { axes, .. } => axes.len(),
    }
}

fn positions(sequence: &NewSequence, index: u32) -> Vec<i32> {
    match &sequence.positions {
        Positions::Sequential => vec![index as i32],
        Positions::Explicit { axes, next } => {
            let generated = next + index as i32 - sequence.prompt.len() as i32;
            axes.iter().map(|axis| axis.get(index as usize).copied().unwrap_or(generated)).collect()
        }
    }
}

/// What the request must give, whatever else the server does.
pub(crate) fn generate(sequence: &NewSequence) -> (Vec<TokenId>, FinishReason) {
    let mut context = before_first(sequence);
    for (index, token) in sequence.prompt.iter().enumerate() {
        context = expected(sequence, context, index as u32, *token);
    }
    let mut generated = Vec::new();
    loop {
        let token = sample(context);
        generated.push(token);
        if generated.len() as u32 == sequence.max_new_tokens {
            return (generated, FinishReason::Length);
        }
        if sequence.end_tokens.contains(&token) {
            return (generated, FinishReason::EndOfSequence);
        }
        context = expected(sequence, context, (sequence.prompt.len() + generated.len() - 1) as u32, token);
    }
}
