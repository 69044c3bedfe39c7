//! `idefics2`: an image keeps its ratio between a shortest and a longest side; optionally its quarters come first.
//! However many patches a view has, it becomes a fixed number of tokens.

use std::sync::Arc;

use serde_json::Value;
use text_generation_scheduler::TokenId;

use super::settings::{self, InvalidSetting};
use super::{Filter, ImageLayout, ImageRejected, ImageSize, Operation, Piece, Rect, View, VlmFamily};

/// `image_seq_len` when a checkpoint leaves it to the processor's class.
const DEFAULT_TOKENS: u32 = 64;

/// Far more than the encoder has positions for.
const MAX_EDGE: u32 = 1 << 14;

const FAKE: &str = "<fake_token_around_image>";

pub(super) fn build(config: &Value, processor: &Value) -> Result<Arc<dyn VlmFamily>, InvalidSetting> {
    Ok(Arc::new(Idefics2::new(config, processor)?))
}

#[derive(Clone)]
struct Idefics2 {
    shortest_edge: u32,
    longest_edge: u32,
    quarters: bool,
    filter: Filter,
    image_token: TokenId,
    /// Image tokens for each view.
    num_tokens: u32,
}

impl Idefics2 {
    fn new(config: &Value, processor: &Value) -> Result<Self, InvalidSetting> {
        if !settings::flag(processor, "do_resize")? {
            return Err(InvalidSetting::unsupported("do_resize", "images must be resized"));
        }
        let size = processor.get("size").unwrap_or(&Value::Null);
        Ok(Self {
            shortest_edge: edge(size, "shortest_edge", config)?,
            longest_edge: edge(size, "longest_edge", config)?,
            quarters: settings::flag(processor, "do_image_splitting")?,
            filter: settings::filter(processor)?,
            image_token: settings::image_token(config)?,
            num_tokens: num_tokens(config, processor)?,
        })
    }

    fn resized(&self, image: ImageSize) -> Operation {
        Operation::Resize { size: between(image, self.shortest_edge, self.longest_edge), filter: self.filter }
    }

    fn quarter(&self, rect: Rect) -> View {
        if rect.size.width > 0 {
            return View(vec![Operation::Cut(rect), self.resized(rect.size)]);
        }
        // Half of a single column is nothing, of which Pillow makes black.
        black(between(rect.size, self.shortest_edge, self.longest_edge))
    }
}

impl VlmFamily for Idefics2 {
    fn layout(&self, image: ImageSize) -> Result<ImageLayout, ImageRejected> {
        let ImageSize { width, height } = image;
        if image.pixels() == 0 {
            return Err(ImageRejected::Empty { width, height });
        }
        let mut views = Vec::new();
        if self.quarters {
            // The processor divides by half of it.
            if height < 2 {
                return Err(ImageRejected::Size { width, height });
            }
            views.extend(quarters(image).map(|rect| self.quarter(rect)));
        }
        views.push(View(vec![self.resized(image)]));
        let border = || Piece::Border(FAKE.into());
        let pieces = views.iter().flat_map(|_| [border(), Piece::Tokens(self.num_tokens), border()]).collect();
        Ok(ImageLayout { views, pieces })
    }

    fn image_token(&self) -> TokenId {
        self.image_token
    }

    fn anchor(&self) -> TokenId {
        self.image_token
    }

    /// The processor's own without `do_image_splitting`: no quarters.
    fn low_detail(&self) -> Option<Arc<dyn VlmFamily>> {
        self.quarters.then(|| Arc::new(Self { quarters: false, ..self.clone() }) as Arc<dyn VlmFamily>)
    }
}

/// `get_resize_output_image_size`: shrinks a longer side to `longest`, then lifts each side to `shortest`.
fn between(image: ImageSize, shortest: u32, longest: u32) -> ImageSize {
    let ImageSize { mut width, mut height } = image;
    let ratio = f64::from(width) / f64::from(height);
    if width >= height && width > longest {
        (width, height) = (longest, (f64::from(longest) / ratio) as u32);
    } else if height > width && height > longest {
        (width, height) = ((f64::from(longest) * ratio) as u32, longest);
    }
    ImageSize::new(width.max(shortest), height.max(shortest))
}

/// Beside the first pixel of a canvas.
fn black(size: ImageSize) -> View {
    let pixel = Rect::whole(ImageSize::new(1, 1));
    let canvas = ImageSize::new(size.width + 1, size.height);
    View(vec![
        Operation::Cut(pixel),
        Operation::Pad { size: canvas, x: 0, y: 0, colour: [0; 3] },
        Operation::Cut(Rect { x: 1, y: 0, size }),
    ])
}

/// Upper left, upper right, lower left, lower right; the odd column and row go right and down.
fn quarters(image: ImageSize) -> impl Iterator<Item = Rect> {
    let (width, height) = (image.width / 2, image.height / 2);
    let (columns, rows) = ([(0, width), (width, image.width - width)], [(0, height), (height, image.height - height)]);
    let cells = rows.into_iter().flat_map(move |row| columns.map(move |column| (column, row)));
    cells.map(|((x, width), (y, height))| Rect { x, y, size: ImageSize::new(width, height) })
}

/// A bound of the resized side, which must hold at least one patch.
fn edge(size: &Value, key: &'static str, config: &Value) -> Result<u32, InvalidSetting> {
    let edge = settings::positive(size, key)?;
    let patch = settings::positive(config.get("vision_config").unwrap_or(&Value::Null), "patch_size")?;
    if (patch..=MAX_EDGE).contains(&edge) {
        return Ok(edge);
    }
    Err(InvalidSetting::unsupported(key, format!("{edge} is not between a patch of {patch} and {MAX_EDGE}")))
}

/// What the processor writes for each view, which must be what the model makes of it.
fn num_tokens(config: &Value, processor: &Value) -> Result<u32, InvalidSetting> {
    let written = settings::integer_or(processor, "image_seq_len", DEFAULT_TOKENS)?;
    let made = settings::positive(config.get("perceiver_config").unwrap_or(&Value::Null), "resampler_n_latents")?;
    if written != made {
        let reason = format!("the processor writes {written} tokens a view, the model makes {made}");
        return Err(InvalidSetting::unsupported("image_seq_len", reason));
    }
    Ok(written)
}
