//! Random configurations, images and requests, small enough to meet every limit often.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use text_generation_scheduler::{
    Config, ImageKey, ImageSpec, NewSequence, Placeholder, Positions, SequenceId, TokenId,
};

use super::model::VOCABULARY;
use super::rng::Rng;

pub(crate) fn config(rng: &mut Rng) -> Config {
    Config {
        block_size: rng.range(1, 5),
        num_blocks: rng.range(8, 40),
        max_step_tokens: rng.range(1, 24),
        max_step_image_tokens: rng.range(0, 12),
        max_rows: rng.range(1, 8),
        max_sequence_tokens: rng.range(30, 120),
        embedding_cache_tokens: rng.range(0, 24),
        max_pending_upload_tokens: rng.range(1, 24),
        world_size: rng.range(1, 3),
        prefix_caching: !rng.one_in(4),
    }
}

pub(crate) fn image(number: u32) -> ImageKey {
    let mut key = [0; 32];
    key[..4].copy_from_slice(&number.to_be_bytes());
    ImageKey(key)
}

pub(crate) fn images(rng: &mut Rng) -> BTreeMap<ImageKey, u32> {
    let count = rng.range(1, 7);
    (0..count).map(|number| (image(number), rng.range(1, 10))).collect()
}

/// Makes requests that share beginnings, images and salts with each other.
pub(crate) struct Requests {
    images: BTreeMap<ImageKey, u32>,
    texts: Vec<Vec<TokenId>>,
    /// Prompts and answers that a later prompt may go on from.
    conversations: Vec<(Vec<TokenId>, Vec<Placeholder>)>,
    num_axes: usize,
    next_id: u64,
}

impl Requests {
    pub(crate) fn new(images: BTreeMap<ImageKey, u32>, rng: &mut Rng) -> Self {
        let text = |rng: &mut Rng| (0..rng.range(1, 20)).map(|_| rng.range(0, VOCABULARY - 1)).collect();
        let texts = (0..4).map(|_| text(rng)).collect();
        let num_axes = if rng.one_in(2) { 0 } else { rng.range(1, 3) as usize };
        Self { images, texts, conversations: Vec::new(), num_axes, next_id: 0 }
    }

    pub(crate) fn remember(&mut self, request: &NewSequence, answer: &[TokenId]) {
        let tokens = [&request.prompt, answer].concat();
        self.conversations.push((tokens, request.placeholders.clone()));
    }

    pub(crate) fn make(&mut self, rng: &mut Rng) -> NewSequence {
        let (mut prompt, mut placeholders) = self.beginning(rng);
        for _ in 0..rng.range(0, 3) {
            if rng.one_in(2) {
                self.append_image(&mut prompt, &mut placeholders, rng);
            }
            let text = rng.pick(&self.texts);
            prompt.extend(&text[..rng.index(text.len() + 1)]);
        }
        prompt.push(rng.range(0, VOCABULARY - 1));
        self.next_id += 1;
        let used = |key: &ImageKey| placeholders.iter().any(|run| run.image == *key);
        let image = |(key, num_tokens): (&ImageKey, &u32)| ImageSpec { key: *key, num_tokens: *num_tokens };
        NewSequence {
            id: SequenceId(self.next_id),
            images: self.images.iter().filter(|(key, _)| used(key)).map(image).collect(),
            positions: self.positions(prompt.len(), rng),
            both_ways: both_ways(prompt.len() as u32, &placeholders, rng),
            max_new_tokens: if rng.one_in(4) { rng.range(10, 40) } else { rng.range(1, 10) },
            end_tokens: if rng.one_in(3) { Arc::new([]) } else { Arc::new([3, 7]) },
            score_prompt: rng.one_in(4),
            cache_salt: u64::from(rng.one_in(5)),
            prompt,
            placeholders,
        }
    }

    fn beginning(&self, rng: &mut Rng) -> (Vec<TokenId>, Vec<Placeholder>) {
        match rng.range(0, 3) {
            0 => (Vec::new(), Vec::new()),
            1 if !self.conversations.is_empty() => rng.pick(&self.conversations).clone(),
            _ => (rng.pick(&self.texts).clone(), Vec::new()),
        }
    }

    /// The whole image in one or two runs, or only a part of it.
    fn append_image(&self, prompt: &mut Vec<TokenId>, placeholders: &mut Vec<Placeholder>, rng: &mut Rng) {
        let keys: Vec<_> = self.images.keys().collect();
        let image = **rng.pick(&keys);
        let num_tokens = self.images[&image];
        let first = rng.range(1, num_tokens);
        let runs = if rng.one_in(3) { vec![(0, first)] } else { vec![(0, first), (first, num_tokens - first)] };
        for (image_offset, length) in runs.into_iter().filter(|(_, length)| *length > 0) {
            let offset = prompt.len() as u32;
            placeholders.push(Placeholder { offset, length, image, image_offset });
            prompt.extend((0..length).map(|_| VOCABULARY));
            if rng.one_in(2) {
                prompt.push(VOCABULARY + 1);
            }
        }
    }

    /// Mostly the same for the same index, so that explicit positions do not rule out shared prefixes.
    fn positions(&self, len: usize, rng: &mut Rng) -> Positions {
        if self.num_axes == 0 {
            return Positions::Sequential;
        }
        let odd = rng.one_in(4).then(|| rng.index(len));
        let position = |axis: usize, index: usize| (index / (axis + 1)) as i32 + i32::from(odd == Some(index));
        let axes = (0..self.num_axes).map(|axis| (0..len).map(|index| position(axis, index)).collect()).collect();
        Positions::Explicit { axes, next: rng.range(0, 50) as i32 }
    }
}

/// Nothing, every run, every other run with the next and the text between them, everything, or anything. Some of the
/// last are the same for many requests, whatever they hold.
fn both_ways(len: u32, placeholders: &[Placeholder], rng: &mut Rng) -> Vec<Range<u32>> {
    let around = |runs: &[Placeholder]| runs[0].offset..runs[runs.len() - 1].end();
    match rng.range(0, 7) {
        0 => placeholders.chunks(1).map(around).collect(),
        1 => placeholders.chunks(2).map(around).collect(),
        2 => vec![0..len],
        3 => [1..6, 8..9, 9..15].into_iter().filter(|range| range.end <= len).collect(),
        4 => {
            let mut bounds: Vec<u32> = (0..rng.range(1, 3) * 2).map(|_| rng.range(0, len)).collect();
            bounds.sort_unstable();
            bounds.dedup();
            bounds.chunks_exact(2).map(|bounds| bounds[0]..bounds[1]).collect()
        }
        _ => Vec::new(),
    }
}
