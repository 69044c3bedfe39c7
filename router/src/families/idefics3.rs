//! `idefics3` and `smolvlm`: an image is enlarged to multiples of a tile, cut into tiles row by row, and seen once more
//! as a whole; marks before each tile say where it was.

use std::sync::Arc;

use serde_json::Value;
use text_generation_scheduler::TokenId;

use super::settings::{self, InvalidSetting};
use super::{Filter, ImageLayout, ImageRejected, ImageSize, Operation, Piece, Rect, View, VlmFamily};

/// The processor's class has this as a constant: no side becomes longer before tiles are counted.
const MAX_SIDE: u32 = 4096;

/// A view each, with the whole; what the shard takes of one image.
const MAX_VIEWS: u32 = 256;

/// `image_seq_len` when a checkpoint leaves it to the processor's class.
const DEFAULT_TOKENS: u32 = 169;

const FAKE: &str = "<fake_token_around_image>";

pub(super) fn build(config: &Value, processor: &Value) -> Result<Arc<dyn VlmFamily>, InvalidSetting> {
    Ok(Arc::new(Idefics3::new(config, processor)?))
}

#[derive(Clone)]
struct Idefics3 {
    longest_edge: u32,
    tile: u32,
    splits: bool,
    filter: Filter,
    image_token: TokenId,
    /// Image tokens for each view.
    num_tokens: u32,
}

impl Idefics3 {
    fn new(config: &Value, processor: &Value) -> Result<Self, InvalidSetting> {
        if !settings::flag(processor, "do_resize")? {
            return Err(InvalidSetting::unsupported("do_resize", "images must be resized"));
        }
        let longest_edge = settings::positive(processor.get("size").unwrap_or(&Value::Null), "longest_edge")?;
        let tile = settings::positive(processor.get("max_image_size").unwrap_or(&Value::Null), "longest_edge")?;
        check_tiles(longest_edge, tile)?;
        Ok(Self {
            longest_edge,
            tile,
            splits: settings::flag(processor, "do_image_splitting")?,
            filter: settings::filter(processor)?,
            image_token: settings::image_token(config)?,
            num_tokens: num_tokens(config, processor, tile)?,
        })
    }

    /// The whole of it as one tile.
    fn whole(&self) -> Operation {
        Operation::Resize { size: ImageSize::new(self.tile, self.tile), filter: self.filter }
    }

    /// Tiles row by row, then the whole, all of what `enlarged` makes of the image.
    fn tiles(&self, enlarged: &View, rows: u32, columns: u32) -> ImageLayout {
        let mut layout = ImageLayout { views: Vec::new(), pieces: Vec::new() };
        for (row, column) in (0..rows).flat_map(|row| (0..columns).map(move |column| (row, column))) {
            let size = ImageSize::new(self.tile, self.tile);
            let place = Rect { x: column * self.tile, y: row * self.tile, size };
            layout.views.push(enlarged.then(Operation::Cut(place)));
            layout.pieces.push(text(format!("{FAKE}<row_{}_col_{}>", row + 1, column + 1)));
            layout.pieces.push(Piece::Tokens(self.num_tokens));
            if column + 1 == columns {
                layout.pieces.push(text("\n"));
            }
        }
        layout.views.push(enlarged.then(self.whole()));
        layout.pieces.push(text("\n"));
        layout.pieces.extend(self.whole_pieces());
        layout
    }

    fn whole_pieces(&self) -> [Piece; 3] {
        [text(format!("{FAKE}<global-img>")), Piece::Tokens(self.num_tokens), text(FAKE)]
    }
}

impl VlmFamily for Idefics3 {
    fn layout(&self, image: ImageSize) -> Result<ImageLayout, ImageRejected> {
        let ImageSize { width, height } = image;
        if image.pixels() == 0 {
            return Err(ImageRejected::Empty { width, height });
        }
        let resized = bounded(with_longest(image, self.longest_edge));
        let view = View::resized(resized, self.filter);
        if !self.splits {
            return Ok(ImageLayout { views: vec![view.then(self.whole())], pieces: self.whole_pieces().into() });
        }
        let enlarged = multiples(resized, self.tile);
        if enlarged.pixels() == 0 {
            return Err(ImageRejected::AspectRatio { width, height });
        }
        let view = view.then(Operation::Resize { size: enlarged, filter: self.filter });
        match (enlarged.height / self.tile, enlarged.width / self.tile) {
            (1, 1) => Ok(ImageLayout { views: vec![view], pieces: self.whole_pieces().into() }),
            (rows, columns) => Ok(self.tiles(&view, rows, columns)),
        }
    }

    fn image_token(&self) -> TokenId {
        self.image_token
    }

    fn anchor(&self) -> TokenId {
        self.image_token
    }

    /// The processor's own without `do_image_splitting`: the whole in one tile.
    fn low_detail(&self) -> Option<Arc<dyn VlmFamily>> {
        self.splits.then(|| Arc::new(Self { splits: false, ..self.clone() }) as Arc<dyn VlmFamily>)
    }
}

fn text(text: impl Into<std::borrow::Cow<'static, str>>) -> Piece {
    Piece::Text(text.into())
}

/// Both sides as the processor divides them: the longer one is `longest`, the other one truncated.
fn keep_ratio(image: ImageSize, longest: u32) -> ImageSize {
    let ratio = f64::from(image.width) / f64::from(image.height);
    if image.width >= image.height {
        ImageSize::new(longest, (f64::from(longest) / ratio) as u32)
    } else {
        ImageSize::new((f64::from(longest) * ratio) as u32, longest)
    }
}

/// `_resize_output_size_rescale_to_max_len`: the longer side is given, the other one is made even.
fn with_longest(image: ImageSize, longest: u32) -> ImageSize {
    let even = |side: u32| side.saturating_add(side % 2).max(1);
    let ImageSize { width, height } = keep_ratio(image, longest);
    if image.width >= image.height { ImageSize::new(width, even(height)) } else { ImageSize::new(even(width), height) }
}

/// `_resize_output_size_scale_below_upper_bound`.
fn bounded(image: ImageSize) -> ImageSize {
    if image.width.max(image.height) <= MAX_SIDE {
        return image;
    }
    let ImageSize { width, height } = keep_ratio(image, MAX_SIDE);
    ImageSize::new(width.max(1), height.max(1))
}

/// `resize_for_vision_encoder`: the longer side is rounded up first, and the other one follows it before it is rounded.
fn multiples(image: ImageSize, tile: u32) -> ImageSize {
    let up = |side: u32| side.div_ceil(tile) * tile;
    let ImageSize { width, height } = keep_ratio(image, up(image.width.max(image.height)));
    ImageSize::new(up(width), up(height))
}

fn check_tiles(longest_edge: u32, tile: u32) -> Result<(), InvalidSetting> {
    // A side that was made even may be one longer.
    let side = (longest_edge.min(MAX_SIDE) + 1).div_ceil(tile);
    if tile > MAX_SIDE || side * side >= MAX_VIEWS {
        return Err(InvalidSetting::unsupported("max_image_size", format!("{side}x{side} tiles are too many")));
    }
    Ok(())
}

/// What the processor writes for each view, which must be what the model makes of it.
fn num_tokens(config: &Value, processor: &Value, tile: u32) -> Result<u32, InvalidSetting> {
    let written = settings::integer_or(processor, "image_seq_len", DEFAULT_TOKENS)?;
    let patch = settings::positive(config.get("vision_config").unwrap_or(&Value::Null), "patch_size")?;
    let scale = settings::positive(config, "scale_factor")?;
    let side = u64::from(tile / patch / scale);
    if !(tile / patch).is_multiple_of(scale) || side * side != u64::from(written) || written == 0 {
        let reason =
            format!("{written} tokens for a tile of {tile}, patches of {patch}, {scale}x{scale} patches a token");
        return Err(InvalidSetting::unsupported("image_seq_len", reason));
    }
    Ok(written)
}
