//! Which sequences can be served at all. Everything behind `add` relies on what is checked here.

use crate::hash::KeyMap;
use crate::images::ImageCache;
use crate::types::{AddError, Config, ImageKey, NewSequence, Positions};

pub(crate) fn check(new: &NewSequence, config: &Config, known: &ImageCache) -> Result<(), AddError> {
    check_lengths(new, config)?;
    check_positions(new)?;
    let num_tokens = check_images(new, known)?;
    check_placeholders(new, &num_tokens)?;
    check_both_ways(new, config)
}

fn check_lengths(new: &NewSequence, config: &Config) -> Result<(), AddError> {
    let (prompt, max_new_tokens) = (new.prompt.len() as u64, u64::from(new.max_new_tokens));
    if prompt == 0 {
        return Err(AddError::EmptyPrompt);
    }
    if max_new_tokens == 0 {
        return Err(AddError::NothingToGenerate);
    }
    // The KV of the last token is never written.
    let all_blocks = u64::from(config.block_size) * u64::from(config.num_blocks) + 1;
    let limit = all_blocks.min(u64::from(config.max_sequence_tokens));
    if prompt + max_new_tokens > limit {
        return Err(AddError::TooLong { prompt, max_new_tokens, limit });
    }
    Ok(())
}

fn check_positions(new: &NewSequence) -> Result<(), AddError> {
    let prompt = new.prompt.len();
    let fits = match &new.positions {
        Positions::Sequential => true,
        Positions::Explicit { axes, next } => {
            let last = i64::from(*next) + i64::from(new.max_new_tokens);
            !axes.is_empty() && axes.iter().all(|axis| axis.len() == prompt) && i32::try_from(last).is_ok()
        }
    };
    if fits { Ok(()) } else { Err(AddError::BadPositions { prompt }) }
}

fn check_images(new: &NewSequence, known: &ImageCache) -> Result<KeyMap<ImageKey, u32>, AddError> {
    let mut num_tokens = KeyMap::default();
    for image in &new.images {
        let before = num_tokens.insert(image.key, image.num_tokens).or(known.num_tokens(image.key));
        if image.num_tokens == 0 || before.is_some_and(|before| before != image.num_tokens) {
            return Err(AddError::BadImage { key: image.key, num_tokens: image.num_tokens });
        }
    }
    Ok(num_tokens)
}

fn check_placeholders(new: &NewSequence, num_tokens: &KeyMap<ImageKey, u32>) -> Result<(), AddError> {
    let mut free_from = 0;
    for (index, placeholder) in new.placeholders.iter().enumerate() {
        // In u64: the sums of a hostile caller must not wrap.
        let end = u64::from(placeholder.offset) + u64::from(placeholder.length);
        let last_embedding = u64::from(placeholder.image_offset) + u64::from(placeholder.length);
        let embeddings = num_tokens.get(&placeholder.image).map_or(0, |tokens| u64::from(*tokens));
        let in_order = placeholder.length > 0 && u64::from(placeholder.offset) >= free_from;
        if !in_order || end > new.prompt.len() as u64 || last_embedding > embeddings {
            return Err(AddError::BadPlaceholder { index });
        }
        free_from = end;
    }
    Ok(())
}

fn check_both_ways(new: &NewSequence, config: &Config) -> Result<(), AddError> {
    let (mut free_from, limit) = (0, config.max_step_tokens);
    for (index, range) in new.both_ways.iter().enumerate() {
        let in_order = free_from <= range.start && range.start < range.end;
        if !in_order || range.end as usize > new.prompt.len() {
            return Err(AddError::BadRange { index });
        }
        let length = range.end - range.start;
        if length > limit {
            return Err(AddError::RangeTooLong { length, limit });
        }
        free_from = range.end;
    }
    Ok(())
}
