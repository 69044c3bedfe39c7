//! A model that has no file here and that transformers runs: its own processor, in the shard, is asked what stands for
//! an image. The shard gets the image as it is. Every size is asked for once, as long as it is remembered.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};

use lru::LruCache;
use serde::Deserialize;
use text_generation_scheduler::TokenId;

use super::{ImageLayout, ImageRejected, ImageSize, Piece, UnsupportedModel, View, VlmFamily, build};
use crate::prepared::PreparedModel;

/// Sizes whose layout is remembered.
const MAX_REMEMBERED: NonZeroUsize = NonZeroUsize::new(4096).unwrap();

/// Larger images are refused: shards take no view above it, and a processor needs many times the memory.
const MAX_PIXELS: u64 = 64 << 20;

/// Sides tried when looking for the largest image. Each costs the processor a run over a blank picture of that size.
const PROBE_SIDES: [u32; 3] = [336, 1344, 2688];

/// How transformers' own processor marks images. Written by `prepare` for models that transformers knows.
#[derive(Clone, Debug, Deserialize)]
pub struct ImageMarks {
    /// What the chat template writes once an image. Not always a token.
    pub anchor: String,
    /// What stands for one embedding.
    pub token_id: TokenId,
}

/// Whoever can ask the model's own processor.
pub trait AskProcessor: Send + Sync {
    /// What stands for an image of this size. Blocks.
    ///
    /// Errors: the processor refuses the size, or does not answer.
    fn pieces(&self, image: ImageSize) -> Result<Vec<Piece>, ImageRejected>;
}

/// The family of a prepared model, or `None` for one that takes no images. A type that is not known here, but is to
/// transformers, is laid out by its own processor.
pub fn of(
    model: &PreparedModel,
    processor: Arc<dyn AskProcessor>,
) -> Result<Option<Arc<dyn VlmFamily>>, UnsupportedModel> {
    match (build(&model.config, &model.processor), &model.image_marks) {
        (Err(UnsupportedModel::UnknownType { .. }), Some(marks)) => {
            Ok(Some(Arc::new(ProcessorFamily::new(marks.clone(), processor))))
        }
        (built, _) => built,
    }
}

/// See the module.
struct ProcessorFamily {
    marks: ImageMarks,
    processor: Arc<dyn AskProcessor>,
    known: Mutex<LruCache<ImageSize, Result<Vec<Piece>, ImageRejected>>>,
}

impl ProcessorFamily {
    fn new(marks: ImageMarks, processor: Arc<dyn AskProcessor>) -> Self {
        Self { marks, processor, known: Mutex::new(LruCache::new(MAX_REMEMBERED)) }
    }

    fn pieces(&self, image: ImageSize) -> Result<Vec<Piece>, ImageRejected> {
        if let Some(known) = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(&image) {
            return known.clone();
        }
        let pieces = self.processor.pieces(image);
        if !matches!(pieces, Err(ImageRejected::Unanswered)) {
            self.known.lock().unwrap_or_else(PoisonError::into_inner).put(image, pieces.clone());
        }
        pieces
    }
}

impl VlmFamily for ProcessorFamily {
    fn layout(&self, image: ImageSize) -> Result<ImageLayout, ImageRejected> {
        let ImageSize { width, height } = image;
        match image.pixels() {
            0 => Err(ImageRejected::Empty { width, height }),
            pixels if pixels > MAX_PIXELS => Err(ImageRejected::Size { width, height }),
            _ => Ok(ImageLayout { views: vec![View::default()], pieces: self.pieces(image)? }),
        }
    }

    fn image_token(&self) -> TokenId {
        self.marks.token_id
    }

    fn anchor(&self) -> TokenId {
        self.marks.token_id
    }

    fn anchor_text(&self) -> Option<&str> {
        Some(&self.marks.anchor)
    }

    fn probe_sides(&self) -> &[u32] {
        &PROBE_SIDES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers with one token a column, refuses what is higher than wide, and loses its voice at 13 columns.
    #[derive(Default)]
    struct Columns(Mutex<Vec<ImageSize>>);

    impl AskProcessor for Columns {
        fn pieces(&self, image: ImageSize) -> Result<Vec<Piece>, ImageRejected> {
            self.0.lock().unwrap().push(image);
            let ImageSize { width, height } = image;
            match (width, height) {
                (13, _) => Err(ImageRejected::Unanswered),
                _ if height > width => Err(ImageRejected::Size { width, height }),
                _ => Ok(vec![Piece::Text("[".into()), Piece::Tokens(width), Piece::Text("]".into())]),
            }
        }
    }

    fn family() -> (ProcessorFamily, Arc<Columns>) {
        let (marks, columns) = (ImageMarks { anchor: "<image>".to_owned(), token_id: 7 }, Arc::<Columns>::default());
        (ProcessorFamily::new(marks, Arc::clone(&columns) as Arc<dyn AskProcessor>), columns)
    }

    #[test]
    fn the_shard_gets_the_image_as_it_is() {
        let (family, _) = family();
        let size = ImageSize::new(640, 480);
        let layout = family.layout(size).unwrap();
        let views: Vec<_> = layout.views.iter().map(|view| view.output(size)).collect();
        assert_eq!((views, layout.num_tokens()), (vec![Some(size)], 640));
        assert_eq!((family.anchor_text(), family.image_token()), (Some("<image>"), 7));
    }

    #[test]
    fn a_size_is_asked_for_once_unless_nobody_answered() {
        let (family, columns) = family();
        for (width, height, asked) in [(5, 5, 1), (3, 9, 1), (13, 1, 3)] {
            let size = ImageSize::new(width, height);
            let answers: Vec<_> = (0..3).map(|_| family.layout(size)).collect();
            assert!(answers.iter().all(|answer| *answer == answers[0]));
            assert_eq!(columns.0.lock().unwrap().iter().filter(|other| **other == size).count(), asked);
        }
    }

    #[test]
    fn no_picture_that_cannot_be_made_is_asked_for() {
        let (family, columns) = family();
        for (width, height) in [(0, 1), (u32::MAX, 1), (u32::MAX, u32::MAX), (8193, 8192)] {
            family.layout(ImageSize::new(width, height)).unwrap_err();
        }
        assert!(columns.0.lock().unwrap().is_empty());
    }
}
