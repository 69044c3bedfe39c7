//! The geometry of `Qwen2VLImageProcessor`: one view at about the image's own resolution, both sides multiples of what
//! a token covers, the number of pixels between two bounds; and positions of time, row and column.

use std::sync::Arc;

use serde_json::Value;
use text_generation_scheduler::{Positions, TokenId};

use super::settings::{self, InvalidSetting};
use super::{
    Filter, ImageLayout, ImageRejected, ImageSize, LOW_DETAIL_TOKENS, PlacedImage, PlacedPrompt, View, VlmFamily,
};

/// The processor refuses images that are longer than this many times their width, or the other way round.
const MAX_ASPECT_RATIO: f64 = 200.0;

/// No token covers a larger square; a larger number is a broken checkpoint.
const MAX_TOKEN_SIDE: u32 = 1 << 12;

/// One view of variable size, a token for each square of it.
#[derive(Clone)]
pub(super) struct SmartResize {
    /// Width and height of what a token covers.
    token_side: u32,
    min_pixels: u32,
    max_pixels: u32,
    filter: Filter,
    image_token: TokenId,
}

impl SmartResize {
    /// Reads the geometry from `processor`, and checks that the encoder of `config` agrees with it.
    pub(super) fn new(config: &Value, processor: &Value) -> Result<Self, InvalidSetting> {
        let vision = config.get("vision_config").unwrap_or(&Value::Null);
        let patch = agreed(processor, "patch_size", vision, "patch_size")?;
        let merge = agreed(processor, "merge_size", vision, "spatial_merge_size")?;
        Ok(Self {
            token_side: token_side(patch, merge)?,
            min_pixels: bound(processor, "min_pixels", "shortest_edge")?,
            max_pixels: bound(processor, "max_pixels", "longest_edge")?,
            filter: filter(processor)?,
            image_token: settings::image_token(config)?,
        })
    }

    /// `smart_resize` of the processor: sides rounded half to even, then both scaled into the bounds.
    fn resized(&self, image: ImageSize) -> ImageSize {
        let side = f64::from(self.token_side);
        let (width, height) = (f64::from(image.width), f64::from(image.height));
        let pixels = image.pixels() as f64;
        let (min_pixels, max_pixels) = (f64::from(self.min_pixels), f64::from(self.max_pixels));
        let rounded = |length: f64| (length / side).round_ties_even() * side;
        let area = rounded(width) * rounded(height);
        let whole = |to: &dyn Fn(f64) -> f64| ImageSize::new(to(width) as u32, to(height) as u32);
        if area > max_pixels {
            let scale = (pixels / max_pixels).sqrt();
            whole(&|length| ((length / scale / side).floor() * side).max(side))
        } else if area < min_pixels {
            let scale = (min_pixels / pixels).sqrt();
            whole(&|length| (length * scale / side).ceil() * side)
        } else {
            whole(&rounded)
        }
    }

    /// Tokens of a view, by columns and rows.
    fn grid(&self, view: ImageSize) -> ImageSize {
        ImageSize::new(view.width / self.token_side, view.height / self.token_side)
    }

    /// The view that a placed image became, perhaps within other bounds than these.
    fn view(&self, image: &PlacedImage<'_>) -> ImageSize {
        let made = image.layout.views.first().and_then(|view| view.output(image.size));
        made.unwrap_or_else(|| self.resized(image.size))
    }
}

impl VlmFamily for SmartResize {
    fn layout(&self, image: ImageSize) -> Result<ImageLayout, ImageRejected> {
        let ImageSize { width, height } = image;
        if image.pixels() == 0 {
            return Err(ImageRejected::Empty { width, height });
        }
        if f64::from(width.max(height)) / f64::from(width.min(height)) > MAX_ASPECT_RATIO {
            return Err(ImageRejected::AspectRatio { width, height });
        }
        let view = self.resized(image);
        let num_tokens = u32::try_from(self.grid(view).pixels()).unwrap_or(u32::MAX);
        Ok(ImageLayout::plain(View::resized(view, self.filter), num_tokens))
    }

    fn image_token(&self) -> TokenId {
        self.image_token
    }

    fn anchor(&self) -> TokenId {
        self.image_token
    }

    /// The processor's own with a lower `max_pixels`.
    fn low_detail(&self) -> Option<Arc<dyn VlmFamily>> {
        let budget = LOW_DETAIL_TOKENS.saturating_mul(self.token_side.pow(2));
        let low = Self { min_pixels: self.min_pixels.min(budget), max_pixels: budget, ..self.clone() };
        (budget < self.max_pixels).then(|| Arc::new(low) as Arc<dyn VlmFamily>)
    }

    fn positions(&self, prompt: &PlacedPrompt<'_>) -> Positions {
        if prompt.images.is_empty() {
            return Positions::Sequential;
        }
        let mut axes = Axes::default();
        for image in prompt.images {
            axes.count_to(image.offset as usize);
            axes.push_image(self.grid(self.view(image)));
        }
        axes.count_to(prompt.token_ids.len());
        Positions::Explicit { axes: axes.time_row_column.into(), next: axes.next }
    }
}

/// Positions as `get_rope_index` counts them: a text token is one further on every axis, and an image as far as its
/// longer side, its tokens counted from where it begins.
#[derive(Default)]
struct Axes {
    time_row_column: [Vec<i32>; 3],
    next: i32,
}

impl Axes {
    /// Positions for text up to this many tokens.
    fn count_to(&mut self, num_tokens: usize) {
        let missing = num_tokens.saturating_sub(self.time_row_column[0].len());
        let next = self.next + missing as i32;
        self.time_row_column.iter_mut().for_each(|axis| axis.extend(self.next..next));
        self.next = next;
    }

    fn push_image(&mut self, grid: ImageSize) {
        let (from, columns, rows) = (self.next, grid.width as i32, grid.height as i32);
        let [time, row, column] = &mut self.time_row_column;
        time.extend(std::iter::repeat_n(from, grid.pixels() as usize));
        row.extend((0..rows).flat_map(|at| std::iter::repeat_n(from + at, grid.width as usize)));
        column.extend((0..rows).flat_map(|_| from..from + columns));
        self.next += columns.max(rows);
    }
}

/// How images are resized; that they are at all.
///
/// The first checkpoints say neither, and name a class that no library knows any more: it resized as today's does.
fn filter(processor: &Value) -> Result<Filter, InvalidSetting> {
    if !settings::is_absent(processor, "do_resize") && !settings::flag(processor, "do_resize")? {
        return Err(InvalidSetting::unsupported("do_resize", "images must be resized to whole tokens"));
    }
    if settings::is_absent(processor, "resample") { Ok(Filter::Bicubic) } else { settings::filter(processor) }
}

/// What processor and encoder must both say.
fn agreed(processor: &Value, key: &'static str, vision: &Value, encoder_key: &str) -> Result<u32, InvalidSetting> {
    let (said, encoder) = (settings::positive(processor, key)?, settings::positive(vision, encoder_key)?);
    if said == encoder {
        return Ok(said);
    }
    Err(InvalidSetting::unsupported(key, format!("is {said}, and {encoder_key} of the vision encoder {encoder}")))
}

fn token_side(patch: u32, merge: u32) -> Result<u32, InvalidSetting> {
    patch.checked_mul(merge).filter(|side| *side <= MAX_TOKEN_SIDE).ok_or_else(|| {
        InvalidSetting::unsupported("patch_size", format!("{patch} x merge_size {merge} is above {MAX_TOKEN_SIDE}"))
    })
}

/// A bound on pixels. Its first name beside the sizes counts, then today's name inside them, then the first one there.
fn bound(processor: &Value, name: &str, today: &str) -> Result<u32, InvalidSetting> {
    let size = processor.get("size").unwrap_or(&Value::Null);
    if !settings::is_absent(processor, name) {
        settings::positive(processor, name)
    } else if settings::is_absent(size, today) && !settings::is_absent(size, name) {
        settings::positive(size, name)
    } else {
        settings::positive(size, today)
    }
}

#[cfg(test)]
mod tests;
