//! Puts what stands for each image where its anchor was, in text, before anything is tokenised: a processor writes
//! line breaks and markers beside its image tokens, and they may become one token with what a user wrote next to them.

use std::ops::Range;

use text_generation_scheduler::ImageKey;

use super::error::PromptError;
use super::python::is_space;
use super::spanned::Spanned;
use crate::families::Piece;
use crate::images::LoadedImage;

/// The texts of a model's image tokens.
#[derive(Clone, Debug, Default)]
pub(super) struct ImageMarks {
    /// What the chat template writes once an image.
    pub(super) anchor: String,
    /// What becomes an embedding.
    pub(super) image_token: String,
    /// Written behind the last image; nothing for most models.
    pub(super) behind_images: String,
    /// Written at the end of the prompt; nothing for most models.
    pub(super) ending: &'static str,
}

/// A run of image tokens, written as a single one.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(super) struct Run {
    /// Index of its image.
    pub(super) image: usize,
    pub(super) key: ImageKey,
    /// Image tokens of the same image before it.
    pub(super) image_offset: u32,
    pub(super) length: u32,
}

/// A text with its images in place.
#[derive(Clone, Debug, Default)]
pub(super) struct Placed {
    pub(super) spanned: Spanned,
    pub(super) runs: Vec<Run>,
    /// The bytes that stand for each image, separators included.
    pub(super) regions: Vec<Range<usize>>,
    /// Where the last border of an image ends.
    pub(super) border: Option<usize>,
}

/// Replaces the k-th anchor that no user wrote by the pieces of the k-th image, and writes what frames the prompt.
///
/// Errors: `ImageCount` when there are not as many anchors as images.
pub(super) fn place(spanned: &Spanned, marks: &ImageMarks, images: &[LoadedImage]) -> Result<Placed, PromptError> {
    let anchors = anchors(spanned, &marks.anchor);
    if anchors.len() != images.len() {
        return Err(PromptError::ImageCount { places: anchors.len(), images: images.len() });
    }
    let mut placed = Placed::default();
    let mut from = 0;
    for (anchor, image) in anchors.into_iter().zip(images) {
        placed.copy(spanned, from..anchor.start);
        placed.write(image, &marks.image_token);
        from = anchor.end;
    }
    placed.spanned.text.push_str(&marks.behind_images);
    placed.copy(spanned, from..spanned.text.len());
    placed.spanned.text.push_str(marks.ending);
    Ok(placed)
}

/// Where the anchor is outside of what a user wrote.
fn anchors(spanned: &Spanned, anchor: &str) -> Vec<Range<usize>> {
    let starts = [0].into_iter().chain(spanned.user.iter().map(|user| user.end));
    let ends = spanned.user.iter().map(|user| user.start).chain([spanned.text.len()]);
    let gaps = starts.zip(ends);
    let found = gaps.flat_map(|(start, end)| {
        let matches = spanned.text[start..end].match_indices(anchor);
        matches.map(move |(at, anchor)| start + at..start + at + anchor.len())
    });
    found.collect()
}

impl Placed {
    /// Appends a range of the original, the user's parts of it marked.
    fn copy(&mut self, original: &Spanned, range: Range<usize>) {
        if self.at_border() && original.text[range.clone()].starts_with(is_word) {
            self.spanned.text.push(' ');
        }
        let first = original.user.partition_point(|user| user.end <= range.start);
        let mut from = range.start;
        for user in original.user[first..].iter().take_while(|user| user.start < range.end) {
            self.spanned.text.push_str(&original.text[from..user.start]);
            self.spanned.push_user_text(&original.text[user.clone()]);
            from = user.end;
        }
        self.spanned.text.push_str(&original.text[from..range.end]);
    }

    fn write(&mut self, image: &LoadedImage, image_token: &str) {
        let (start, index) = (self.spanned.text.len(), self.regions.len());
        let mut image_offset = 0;
        for piece in &image.layout.pieces {
            match piece {
                Piece::Text(text) => self.spanned.text.push_str(text),
                Piece::Border(text) => self.write_border(text),
                Piece::Tokens(0) => {}
                Piece::Tokens(length) => {
                    self.spanned.text.push_str(image_token);
                    self.runs.push(Run { image: index, key: image.key, image_offset, length: *length });
                    image_offset += length;
                }
            }
        }
        self.regions.push(start..self.spanned.text.len());
    }

    fn write_border(&mut self, text: &str) {
        if !self.at_border() {
            self.spanned.text.push_str(text);
            self.border = Some(self.spanned.text.len());
        }
    }

    fn at_border(&self) -> bool {
        self.border == Some(self.spanned.text.len())
    }
}

/// What the processors of `transformers` set off from a border: whatever is no blank and opens no control token.
fn is_word(letter: char) -> bool {
    letter != '<' && !is_space(letter)
}
