//! The geometry of `CLIPImageProcessor` and its descendants: one resize, one optional centre crop, one fixed output
//! size; and the token count `LlavaProcessor` derives from it. Shared by the families whose encoder sees one square.

use serde_json::Value;
use text_generation_scheduler::TokenId;

use super::settings::{self, InvalidSetting};
use super::{Filter, ImageLayout, ImageRejected, ImageSize, Operation, Rect, View, VlmFamily};

/// Largest resized side the arithmetic accepts; only far more extreme aspect ratios than any file format allows pass it.
const MAX_RESIZED_SIDE: u64 = 1 << 28;

/// No encoder of this kind yields more; a larger number is a broken checkpoint.
const MAX_TOKENS: u32 = 1 << 16;

#[derive(Copy, Clone, Debug)]
enum Resize {
    /// Both sides are given: the image is stretched.
    Stretch(ImageSize),
    /// The shorter side is given, the longer one keeps the ratio; the centre of this size is kept.
    ShortestEdge { edge: u32, crop: ImageSize },
}

/// One view of fixed size, standing for a fixed number of tokens.
pub(super) struct FixedGrid {
    resize: Resize,
    filter: Filter,
    image_token: TokenId,
    num_tokens: u32,
}

impl FixedGrid {
    /// Reads the geometry from `processor`.
    pub(super) fn new(config: &Value, processor: &Value) -> Result<Self, InvalidSetting> {
        let resize = resize(processor)?;
        Ok(Self {
            resize,
            filter: settings::filter(processor)?,
            image_token: settings::image_token(config)?,
            num_tokens: num_tokens(processor, output(resize))?,
        })
    }
}

impl VlmFamily for FixedGrid {
    fn layout(&self, image: ImageSize) -> Result<ImageLayout, ImageRejected> {
        let ImageSize { width, height } = image;
        if image.pixels() == 0 {
            return Err(ImageRejected::Empty { width, height });
        }
        let view = match self.resize {
            Resize::Stretch(size) => View::resized(size, self.filter),
            Resize::ShortestEdge { edge, crop } => {
                let size = keep_ratio(image, edge).ok_or(ImageRejected::AspectRatio { width, height })?;
                View::resized(size, self.filter).then(Operation::Cut(centre(size, crop)))
            }
        };
        Ok(ImageLayout::plain(view, self.num_tokens))
    }

    fn image_token(&self) -> TokenId {
        self.image_token
    }

    fn anchor(&self) -> TokenId {
        self.image_token
    }
}

/// `int(edge * long / short)` of the processor, which divides in floating point.
fn keep_ratio(image: ImageSize, edge: u32) -> Option<ImageSize> {
    let (short, long) = (image.width.min(image.height), image.width.max(image.height));
    let resized = (f64::from(edge) * f64::from(long) / f64::from(short)) as u64;
    let long = u32::try_from(resized).ok().filter(|side| u64::from(*side) <= MAX_RESIZED_SIDE)?;
    Some(if image.width <= image.height { ImageSize::new(edge, long) } else { ImageSize::new(long, edge) })
}

/// The rectangle `center_crop` keeps. The caller has checked that the crop is no larger than the image.
fn centre(image: ImageSize, crop: ImageSize) -> Rect {
    Rect { x: (image.width - crop.width) / 2, y: (image.height - crop.height) / 2, size: crop }
}

fn output(resize: Resize) -> ImageSize {
    match resize {
        Resize::Stretch(size) => size,
        Resize::ShortestEdge { crop, .. } => crop,
    }
}

fn resize(processor: &Value) -> Result<Resize, InvalidSetting> {
    if !settings::flag(processor, "do_resize")? {
        return Err(InvalidSetting::unsupported("do_resize", "images must be resized to one size"));
    }
    if settings::optional_flag(processor, "do_pad")? {
        return Err(InvalidSetting::unsupported("do_pad", "padding to a square is not supported"));
    }
    let crop =
        settings::flag(processor, "do_center_crop")?.then(|| settings::size(processor, "crop_size")).transpose()?;
    let size = processor.get("size").unwrap_or(&Value::Null);
    if settings::is_absent(size, "shortest_edge") { stretch(processor, crop) } else { shortest_edge(size, crop) }
}

fn stretch(processor: &Value, crop: Option<ImageSize>) -> Result<Resize, InvalidSetting> {
    let size = settings::size(processor, "size")?;
    match crop {
        Some(crop) if crop != size => {
            Err(InvalidSetting::unsupported("crop_size", "must equal `size` when both sides are given"))
        }
        _ => Ok(Resize::Stretch(size)),
    }
}

fn shortest_edge(size: &Value, crop: Option<ImageSize>) -> Result<Resize, InvalidSetting> {
    let edge = settings::positive(size, "shortest_edge")?;
    if !settings::is_absent(size, "longest_edge") {
        return Err(InvalidSetting::unsupported("size", "`longest_edge` is not supported"));
    }
    match crop {
        None => Err(InvalidSetting::unsupported("do_center_crop", "must be true when only `shortest_edge` is given")),
        Some(crop) if crop.width > edge || crop.height > edge => {
            Err(InvalidSetting::unsupported("crop_size", format!("must not exceed `shortest_edge` {edge}")))
        }
        Some(crop) => Ok(Resize::ShortestEdge { edge, crop }),
    }
}

/// Tokens per image as `LlavaProcessor` counts them.
fn num_tokens(processor: &Value, output: ImageSize) -> Result<u32, InvalidSetting> {
    let patch = settings::positive(processor, "patch_size")?;
    let extra = settings::integer_or(processor, "num_additional_image_tokens", 0)?;
    let dropped = u32::from(processor.get("vision_feature_select_strategy").and_then(Value::as_str) == Some("default"));
    let grid = u64::from(output.width / patch) * u64::from(output.height / patch);
    let counted = (grid + u64::from(extra)).saturating_sub(u64::from(dropped));
    u32::try_from(counted).ok().filter(|counted| (1..=MAX_TOKENS).contains(counted)).ok_or_else(|| {
        InvalidSetting::unsupported("patch_size", format!("the processor's grid gives {counted} tokens per image"))
    })
}
