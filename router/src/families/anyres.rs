//! Any-resolution geometry (LLaVA-NeXT and its descendants): the whole image squeezed into one view, and a canvas of
//! several views that the image is fitted into, padded in black.
//!
//! After encoding, the patches of the padding are dropped and every row of patches ends with a newline embedding;
//! [`AnyRes::unpadded`] counts what is left. All divisions are in floating point, in the processor's order.

use serde_json::Value;

use super::patches::PatchGrid;
use super::settings::{self, InvalidSetting};
use super::{Filter, ImageRejected, ImageSize, Operation, View};

const BLACK: [u8; 3] = [0; 3];

/// Views of one canvas. With the squeezed image they are what one upload may have.
const MAX_TILES: u64 = 255;

/// The canvases of a checkpoint.
pub(super) struct AnyRes {
    pub(super) patches: PatchGrid,
    filter: Filter,
    canvases: Vec<ImageSize>,
}

impl AnyRes {
    /// Reads encoder and canvases.
    pub(super) fn new(config: &Value, processor: &Value) -> Result<Self, InvalidSetting> {
        let patches = PatchGrid::new(config)?;
        check_sizes(processor, patches)?;
        if patches.num_tokens != patches.side * patches.side {
            let reason = "must leave one token for each patch";
            return Err(InvalidSetting::unsupported("vision_feature_select_strategy", reason));
        }
        let canvases = canvases(config, processor, patches.view)?;
        Ok(Self { patches, filter: settings::filter(processor)?, canvases })
    }

    /// The squeezed image, then the tiles of its canvas, row by row.
    pub(super) fn views(&self, image: ImageSize) -> Result<Vec<View>, ImageRejected> {
        let canvas = self.canvas(image)?;
        let fitted = View::resized(fit(image, canvas), self.filter);
        let padded = pad(&fitted, image, canvas);
        let tiles = self.patches.tiles(canvas).map(|tile| padded.then(Operation::Cut(tile)));
        Ok([View::resized(self.patches.size(), self.filter)].into_iter().chain(tiles).collect())
    }

    /// Columns and rows of the canvas's patches that show some of the image (`unpad_image` of the model).
    pub(super) fn unpadded(&self, image: ImageSize) -> Result<ImageSize, ImageRejected> {
        let canvas = self.canvas(image)?;
        let patches = |pixels: u32| pixels / self.patches.view * self.patches.side;
        let (columns, rows) = (patches(canvas.width), patches(canvas.height));
        let (width, height) = (f64::from(image.width), f64::from(image.height));
        Ok(if width / height > f64::from(columns) / f64::from(rows) {
            ImageSize::new(columns, without_margins(rows, height * (f64::from(columns) / width)))
        } else {
            ImageSize::new(without_margins(columns, width * (f64::from(rows) / height)), rows)
        })
    }

    /// The canvas that shows the most of the image's own pixels, and wastes the least (`select_best_resolution`).
    fn canvas(&self, image: ImageSize) -> Result<ImageSize, ImageRejected> {
        let ImageSize { width, height } = image;
        let rank = |canvas: &ImageSize| {
            let shown = shown(image, *canvas);
            (shown, shown as i64 - canvas.pixels() as i64)
        };
        // Of equals the first counts, and `max_by_key` takes the last.
        let best = (width > 0 && height > 0).then(|| self.canvases.iter().rev().max_by_key(|canvas| rank(canvas)));
        best.flatten().copied().ok_or(ImageRejected::Empty { width, height })
    }
}

/// Pixels of the image that remain on a canvas, at most as many as it has.
fn shown(image: ImageSize, canvas: ImageSize) -> u64 {
    let (width, height) = (f64::from(image.width), f64::from(image.height));
    let scale = (f64::from(canvas.width) / width).min(f64::from(canvas.height) / height);
    let downscaled = (width * scale) as u64 * (height * scale) as u64;
    downscaled.min(image.pixels())
}

/// The largest size of the image's proportions inside a canvas (`get_patch_output_size`).
fn fit(image: ImageSize, canvas: ImageSize) -> ImageSize {
    let scale_width = f64::from(canvas.width) / f64::from(image.width);
    let scale_height = f64::from(canvas.height) / f64::from(image.height);
    let scaled = |length: u32, scale: f64, limit: u32| ((f64::from(length) * scale).ceil() as u32).min(limit);
    if scale_width < scale_height {
        ImageSize::new(canvas.width, scaled(image.height, scale_width, canvas.height))
    } else {
        ImageSize::new(scaled(image.width, scale_height, canvas.width), canvas.height)
    }
}

fn pad(fitted: &View, image: ImageSize, canvas: ImageSize) -> View {
    match fitted.output(image) {
        Some(size) if size != canvas => {
            let (x, y) = ((canvas.width - size.width) / 2, (canvas.height - size.height) / 2);
            fitted.then(Operation::Pad { size: canvas, x, y, colour: BLACK })
        }
        _ => fitted.clone(),
    }
}

/// `length` less two equal margins, so that about `kept` remains.
fn without_margins(length: u32, kept: f64) -> u32 {
    // `int(round(kept, 7))`: a product that misses a whole number by the width of a double counts as whole.
    let kept = if kept.ceil() - kept <= 5e-8 { kept.ceil() } else { kept.floor() };
    length - (length.saturating_sub(kept as u32)) / 2 * 2
}

/// Views are `size`, tiles are `crop_size` if there is one; both must be what the encoder takes.
fn check_sizes(processor: &Value, patches: PatchGrid) -> Result<(), InvalidSetting> {
    let size = processor.get("size").unwrap_or(&Value::Null);
    let view = if settings::is_absent(size, "shortest_edge") {
        settings::size(processor, "size")?
    } else {
        let edge = settings::positive(size, "shortest_edge")?;
        ImageSize::new(edge, edge)
    };
    patches.check_view(view)?;
    if settings::is_absent(processor, "crop_size") {
        return Ok(());
    }
    patches.check_view(settings::size(processor, "crop_size")?)
}

fn canvases(config: &Value, processor: &Value, view: u32) -> Result<Vec<ImageSize>, InvalidSetting> {
    const KEY: &str = "image_grid_pinpoints";
    let written = config.get(KEY).unwrap_or(&Value::Null);
    if processor.get(KEY).is_some_and(|other| other != written) {
        return Err(InvalidSetting::unsupported(KEY, "the model and its processor disagree"));
    }
    let canvases = settings::sides(config, KEY)?;
    let whole = |canvas: &ImageSize| canvas.width.is_multiple_of(view) && canvas.height.is_multiple_of(view);
    let few = |canvas: &ImageSize| (1..=MAX_TILES).contains(&(canvas.pixels() / u64::from(view).pow(2)));
    if canvases.is_empty() || !canvases.iter().all(|canvas| whole(canvas) && few(canvas)) {
        let reason = format!("each must be made of 1 to {MAX_TILES} squares of {view} pixels a side");
        return Err(InvalidSetting::unsupported(KEY, reason));
    }
    Ok(canvases)
}
