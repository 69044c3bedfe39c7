//! `internvl`: the image is stretched over the grid of equal tiles whose ratio is nearest to its own, and comes once more
//! as a whole, as the last view, when the grid has several tiles.

use std::cmp::Ordering;
use std::sync::Arc;

use serde_json::Value;
use text_generation_scheduler::TokenId;

use super::settings::{self, InvalidSetting};
use super::{Filter, ImageLayout, ImageRejected, ImageSize, Operation, Piece, Rect, View, VlmFamily};

/// Far above every checkpoint; larger numbers are broken ones.
const MAX_TILE_SIDE: u32 = 1 << 13;
const MAX_TILES: u32 = 255;
const MAX_TOKENS_PER_TILE: u32 = 1 << 16;

#[derive(Clone)]
struct Tiles {
    tile: ImageSize,
    /// Columns and rows, in the order in which the processor tries them.
    grids: Vec<ImageSize>,
    filter: Filter,
    image_token: TokenId,
    tokens_per_tile: u32,
    start: String,
    end: String,
}

/// The processor cuts into tiles whatever `crop_to_patches` of its image processor says: it asks for it in every call.
pub(super) fn build(config: &Value, processor: &Value) -> Result<Arc<dyn VlmFamily>, InvalidSetting> {
    Ok(Arc::new(Tiles {
        tile: tile(processor)?,
        grids: grids(processor)?,
        filter: settings::filter(processor)?,
        image_token: settings::image_token(config)?,
        tokens_per_tile: bounded("image_seq_length", processor, 256, MAX_TOKENS_PER_TILE)?,
        start: settings::text_or(processor, "start_image_token", "<img>")?,
        end: settings::text_or(processor, "end_image_token", "</img>")?,
    }))
}

impl VlmFamily for Tiles {
    fn layout(&self, image: ImageSize) -> Result<ImageLayout, ImageRejected> {
        let ImageSize { width, height } = image;
        if image.pixels() == 0 {
            return Err(ImageRejected::Empty { width, height });
        }
        let views = self.views(self.grid(image));
        let num_tokens = self.tokens_per_tile * views.len() as u32;
        let [start, end] = [&self.start, &self.end].map(|text| Piece::Text(text.clone().into()));
        Ok(ImageLayout { views, pieces: vec![start, Piece::Tokens(num_tokens), end] })
    }

    fn image_token(&self) -> TokenId {
        self.image_token
    }

    fn anchor(&self) -> TokenId {
        self.image_token
    }

    /// The processor's own with `max_patches` of 1.
    fn low_detail(&self) -> Option<Arc<dyn VlmFamily>> {
        let low = Self { grids: Vec::new(), ..self.clone() };
        (!self.grids.is_empty()).then(|| Arc::new(low) as Arc<dyn VlmFamily>)
    }
}

impl Tiles {
    /// The grid with the nearest ratio. Of several, a larger one is better as long as the image fills half of it.
    fn grid(&self, image: ImageSize) -> ImageSize {
        let ratio = |size: ImageSize| f64::from(size.width) / f64::from(size.height);
        let mut best = (f64::INFINITY, ImageSize::new(1, 1));
        for &grid in &self.grids {
            let distance = (ratio(image) - ratio(grid)).abs();
            let filled = image.pixels() > self.tile.pixels() * grid.pixels() / 2;
            match distance.total_cmp(&best.0) {
                Ordering::Less => best = (distance, grid),
                Ordering::Equal if filled => best.1 = grid,
                _ => {}
            }
        }
        best.1
    }

    fn views(&self, grid: ImageSize) -> Vec<View> {
        let ImageSize { width, height } = self.tile;
        let whole = View::resized(self.tile, self.filter);
        if grid.pixels() == 1 {
            return vec![whole];
        }
        let stretched = View::resized(ImageSize::new(width * grid.width, height * grid.height), self.filter);
        let cells = (0..grid.height).flat_map(|row| (0..grid.width).map(move |column| (column, row)));
        let rects = cells.map(|(column, row)| Rect { x: column * width, y: row * height, size: self.tile });
        rects.map(|rect| stretched.then(Operation::Cut(rect))).chain([whole]).collect()
    }
}

fn tile(processor: &Value) -> Result<ImageSize, InvalidSetting> {
    if !settings::flag(processor, "do_resize")? {
        return Err(InvalidSetting::unsupported("do_resize", "images must be resized to tiles"));
    }
    let tile = settings::size(processor, "size")?;
    if tile.width.max(tile.height) > MAX_TILE_SIDE {
        return Err(InvalidSetting::unsupported("size", format!("no side may exceed {MAX_TILE_SIDE} pixels")));
    }
    Ok(tile)
}

/// Every grid of so many tiles: fewer come first, then fewer columns.
fn grids(processor: &Value) -> Result<Vec<ImageSize>, InvalidSetting> {
    let most = bounded("max_patches", processor, 12, MAX_TILES)?;
    let least = settings::integer_or(processor, "min_patches", 1)?;
    if most == 1 {
        return Ok(Vec::new());
    }
    let sizes = (1..=most).flat_map(|columns| (1..=most / columns).map(move |rows| ImageSize::new(columns, rows)));
    let mut grids: Vec<ImageSize> = sizes.filter(|grid| grid.pixels() >= u64::from(least)).collect();
    grids.sort_by_key(|grid| grid.pixels());
    Ok(grids)
}

fn bounded(key: &'static str, processor: &Value, default: u32, limit: u32) -> Result<u32, InvalidSetting> {
    let value = settings::integer_or(processor, key, default)?;
    let refused = || InvalidSetting::unsupported(key, format!("must be 1 to {limit}, not {value}"));
    Some(value).filter(|value| (1..=limit).contains(value)).ok_or_else(refused)
}
