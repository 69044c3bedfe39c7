//! Plain requests on a roomy shard, and a shard that samples the same token every time. Tests change the one
//! thing they are about.

use std::sync::Arc;

use text_generation_scheduler::{
    Config, ImageKey, ImageSpec, NewSequence, Placeholder, Positions, SequenceId, StepPlan, StepResult, TokenId,
};

pub(crate) const END: TokenId = 99;

pub(crate) fn roomy() -> Config {
    Config {
        block_size: 4,
        num_blocks: 100,
        max_step_tokens: 64,
        max_step_image_tokens: 16,
        max_rows: 16,
        max_sequence_tokens: 400,
        embedding_cache_tokens: 64,
        max_pending_upload_tokens: 64,
        world_size: 2,
        prefix_caching: true,
    }
}

/// A prompt that shares no prefix with that of another id.
pub(crate) fn text(id: u64, num_tokens: u32, max_new_tokens: u32) -> NewSequence {
    NewSequence {
        id: SequenceId(id),
        prompt: (0..num_tokens).map(|token| 1_000 * id as u32 + token).collect(),
        placeholders: Vec::new(),
        images: Vec::new(),
        positions: Positions::Sequential,
        both_ways: Vec::new(),
        max_new_tokens,
        end_tokens: Arc::new([END]),
        score_prompt: false,
        cache_salt: 0,
    }
}

pub(crate) fn image(number: u8) -> ImageKey {
    ImageKey([number; 32])
}

/// `request` with all of an image laid over its tokens from `offset` on.
pub(crate) fn with_image(mut request: NewSequence, number: u8, offset: u32, num_tokens: u32) -> NewSequence {
    let image = image(number);
    request.placeholders.push(Placeholder { offset, length: num_tokens, image, image_offset: 0 });
    request.images.push(ImageSpec { key: image, num_tokens });
    request
}

/// Every sample is `token`.
pub(crate) fn answer(plan: &StepPlan, token: TokenId) -> StepResult {
    let sampled = plan.rows.iter().filter(|row| row.sample).map(|row| (row.sequence, token)).collect();
    StepResult { step: plan.step, sampled, failures: Vec::new() }
}

/// `(sequence, start, num_tokens)` of each row.
pub(crate) fn rows(plan: &StepPlan) -> Vec<(u64, u32, u32)> {
    plan.rows.iter().map(|row| (row.sequence.0, row.start, row.num_tokens)).collect()
}
