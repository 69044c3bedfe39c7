//! From token ids with one anchor an image to token ids with each image's run, and where those runs are.
//!
//! Works on ids only. An anchor is never user text, because the encoder lets no user text become one.

use std::ops::Range;

use text_generation_scheduler::{Placeholder, Positions, TokenId};

use super::encode::Encoded;
use super::error::PromptError;
use crate::families::{PlacedImage, PlacedPrompt, VlmFamily};
use crate::images::LoadedImage;

/// A prompt with its images in place.
#[derive(Default)]
pub(super) struct Expanded {
    pub(super) token_ids: Vec<TokenId>,
    /// Byte ranges of the text, one a token, or empty. All tokens of an image have the range of its anchor.
    pub(super) offsets: Vec<(usize, usize)>,
    /// Where each image's tokens are, separators included.
    pub(super) regions: Vec<Range<usize>>,
    pub(super) images: Vec<LoadedImage>,
}

/// Replaces the k-th anchor by the tokens of the k-th image.
///
/// Errors: `ImageCount` when there are not as many anchors as images.
pub(super) fn expand(encoded: &Encoded, anchor: TokenId, images: Vec<LoadedImage>) -> Result<Expanded, PromptError> {
    let places = encoded.ids.iter().filter(|&&id| id == anchor).count();
    if places != images.len() {
        return Err(PromptError::ImageCount { places, images: images.len() });
    }
    let mut expanded = Expanded { images, ..Expanded::default() };
    let mut next_image = 0;
    for (index, &id) in encoded.ids.iter().enumerate() {
        let start = expanded.token_ids.len();
        if id == anchor {
            expanded.token_ids.extend_from_slice(&expanded.images[next_image].layout.tokens);
            expanded.regions.push(start..expanded.token_ids.len());
            next_image += 1;
        } else {
            expanded.token_ids.push(id);
        }
        let added = expanded.token_ids.len() - start;
        expanded
            .offsets
            .extend(encoded.offsets.get(index).into_iter().flat_map(|&range| std::iter::repeat_n(range, added)));
    }
    Ok(expanded)
}

impl Expanded {
    /// Keeps the last `truncate` tokens. Images that are cut off whole are dropped.
    ///
    /// Errors: `TruncatedImage` when a part of an image would stay.
    pub(super) fn keep_last(&mut self, truncate: usize) -> Result<(), PromptError> {
        let prompt = self.token_ids.len();
        let cut = prompt.saturating_sub(truncate);
        let through = self.regions.iter().position(|region| region.start < cut && cut < region.end);
        if let Some(image) = through {
            let region = &self.regions[image];
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
        let dropped = self.regions.iter().filter(|region| region.start < cut).count();
        self.images.drain(..dropped);
        self.regions.drain(..dropped);
        self.token_ids.drain(..cut);
        self.offsets.drain(..cut.min(self.offsets.len()));
        self.regions.iter_mut().for_each(|region| *region = region.start - cut..region.end - cut);
        Ok(())
    }

    /// One placeholder for every unbroken run of image tokens, counting on through the runs of one image.
    pub(super) fn placeholders(&self, image_token: TokenId) -> Vec<Placeholder> {
        let mut placeholders = Vec::new();
        for (region, image) in self.regions.iter().zip(&self.images) {
            let mut image_offset = 0;
            let mut offset = region.start;
            for run in
                self.token_ids[region.clone()].chunk_by(|left, right| (*left == image_token) == (*right == image_token))
            {
                if run[0] == image_token {
                    let length = run.len() as u32;
                    placeholders.push(Placeholder { offset: offset as u32, length, image: image.key, image_offset });
                    image_offset += length;
                }
                offset += run.len();
            }
        }
        placeholders
    }

    /// The position ids the family gives this prompt.
    pub(super) fn positions(&self, family: &dyn VlmFamily) -> Positions {
        let images: Vec<PlacedImage<'_>> = self
            .regions
            .iter()
            .zip(&self.images)
            .map(|(region, image)| PlacedImage { offset: region.start as u32, size: image.size, layout: &image.layout })
            .collect();
        family.positions(&PlacedPrompt { token_ids: &self.token_ids, images: &images })
    }
}
