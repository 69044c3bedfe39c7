//! From token ids with one image token a run to token ids with all of them, and where the runs are.
//!
//! Works on ids only. An image token is never user text, because the encoder lets no user text become one.

use std::ops::Range;

use text_generation_scheduler::{Placeholder, TokenId};

use super::encode::Encoded;
use super::error::PromptError;
use super::place::Run;
use crate::families::PlacedImage;
use crate::images::LoadedImage;

/// A prompt with its images in place.
#[derive(Default)]
pub(super) struct Expanded {
    pub(super) token_ids: Vec<TokenId>,
    /// Byte ranges of the text, one a token, or empty. All tokens of a run have the range of the one it was.
    pub(super) offsets: Vec<(usize, usize)>,
    /// One for every run, in order.
    pub(super) placeholders: Vec<Placeholder>,
    /// Which image each placeholder belongs to.
    owners: Vec<usize>,
    pub(super) images: Vec<LoadedImage>,
}

/// Repeats the k-th image token as often as the k-th run says. Runs next to each other become one if they continue it.
///
/// Errors: `ControlTokens` when there are not as many image tokens as runs.
pub(super) fn expand(
    encoded: Encoded,
    image_token: TokenId,
    runs: &[Run],
    images: Vec<LoadedImage>,
) -> Result<Expanded, PromptError> {
    let mut expanded = Expanded { images, ..Expanded::default() };
    let mut remaining = runs.iter();
    for (index, id) in encoded.ids.into_iter().enumerate() {
        let offset = expanded.token_ids.len();
        if id == image_token {
            expanded.push_run(*remaining.next().ok_or(PromptError::ControlTokens)?, image_token);
        } else {
            expanded.token_ids.push(id);
        }
        let added = expanded.token_ids.len() - offset;
        let range = encoded.offsets.get(index).into_iter();
        expanded.offsets.extend(range.flat_map(|&range| std::iter::repeat_n(range, added)));
    }
    if remaining.next().is_some() { Err(PromptError::ControlTokens) } else { Ok(expanded) }
}

impl Expanded {
    /// A prompt of a model that takes no images.
    pub(super) fn text_only(encoded: Encoded) -> Self {
        Self { token_ids: encoded.ids, offsets: encoded.offsets, ..Self::default() }
    }

    fn push_run(&mut self, run: Run, image_token: TokenId) {
        let offset = self.token_ids.len() as u32;
        self.token_ids.extend(std::iter::repeat_n(image_token, run.length as usize));
        if let (Some(last), Some(owner)) = (self.placeholders.last_mut(), self.owners.last())
            && *owner == run.image
            && last.end() == offset
        {
            last.length += run.length;
            return;
        }
        let (length, image_offset) = (run.length, run.image_offset);
        self.placeholders.push(Placeholder { offset, length, image: run.key, image_offset });
        self.owners.push(run.image);
    }

    /// The tokens of each image: those made of the bytes in its region. Needs offsets.
    pub(super) fn regions(&self, bytes: &[Range<usize>]) -> Vec<Range<usize>> {
        let region = |bytes: &Range<usize>| {
            let start = self.offsets.partition_point(|(_, end)| *end <= bytes.start);
            let end = self.offsets.partition_point(|(start, _)| *start < bytes.end);
            start..end.max(start)
        };
        bytes.iter().map(region).collect()
    }

    /// Keeps the last `truncate` tokens. Images that are cut off whole are dropped. Needs offsets.
    ///
    /// Errors: `TruncatedImage` when a part of an image would stay.
    pub(super) fn keep_last(&mut self, truncate: usize, bytes: &[Range<usize>]) -> Result<(), PromptError> {
        let prompt = self.token_ids.len();
        let cut = prompt.saturating_sub(truncate);
        let regions = self.regions(bytes);
        if let Some(image) = regions.iter().position(|region| region.start < cut && cut < region.end) {
            let region = &regions[image];
            return Err(PromptError::TruncatedImage {
                truncate,
                image: image + 1,
                start: region.start + 1,
                end: region.end,
                prompt,
                keep: prompt - region.start,
                drop: prompt - region.end,
            });
        }
        self.drop_first(cut, regions.iter().filter(|region| region.start < cut).count());
        Ok(())
    }

    fn drop_first(&mut self, tokens: usize, images: usize) {
        let dropped = self.first_run(images);
        self.owners.drain(..dropped);
        self.owners.iter_mut().for_each(|owner| *owner -= images);
        self.placeholders.drain(..dropped);
        self.placeholders.iter_mut().for_each(|placeholder| placeholder.offset -= tokens as u32);
        self.images.drain(..images);
        self.token_ids.drain(..tokens);
        self.offsets.drain(..tokens.min(self.offsets.len()));
    }

    /// Its images as a family sees them.
    pub(super) fn placed(&self) -> Vec<PlacedImage<'_>> {
        let placed = self.images.iter().enumerate().map(|(index, image)| {
            let runs = &self.placeholders[self.first_run(index)..self.first_run(index + 1)];
            let offset = runs.first().map_or(self.token_ids.len() as u32, |run| run.offset);
            PlacedImage { offset, runs, size: image.size, layout: &image.layout }
        });
        placed.collect()
    }

    /// The first placeholder that belongs to this image or one behind it.
    fn first_run(&self, image: usize) -> usize {
        self.owners.partition_point(|owner| *owner < image)
    }
}
