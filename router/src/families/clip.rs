//! The geometry of `CLIPImageProcessor` and its descendants: perhaps padding to a square, then one resize, one optional
//! centre crop, one fixed output size. Shared by the families whose encoder sees one square.

use serde_json::Value;
use text_generation_scheduler::TokenId;

use super::settings::{self, InvalidSetting};
use super::{Filter, ImageLayout, ImageRejected, ImageSize, Operation, Rect, View, VlmFamily};

/// Largest resized side the arithmetic accepts; only far more extreme aspect ratios than any file format allows pass it.
const MAX_RESIZED_SIDE: u64 = 1 << 28;

#[derive(Copy, Clone, Debug)]
enum Resize {
    /// Both sides are given: the image is stretched.
    Stretch(ImageSize),
    /// The shorter side is given, the longer one keeps the ratio; the centre of this size is kept.
    ShortestEdge { edge: u32, crop: ImageSize },
}

/// One view of fixed size, standing for a fixed number of tokens.
pub(super) struct FixedGrid {
    /// The colour of the square an image is put on first.
    square: Option<[u8; 3]>,
    resize: Resize,
    filter: Filter,
    image_token: TokenId,
    num_tokens: u32,
}

impl FixedGrid {
    /// Reads the geometry from `processor`; `count` says how many tokens its views have.
    pub(super) fn new(
        config: &Value,
        processor: &Value,
        count: impl FnOnce(ImageSize) -> Result<u32, InvalidSetting>,
    ) -> Result<Self, InvalidSetting> {
        let (square, resize) = (square(processor)?, resize(processor)?);
        let (filter, image_token) = (settings::filter(processor)?, settings::image_token(config)?);
        Ok(Self { square, resize, filter, image_token, num_tokens: count(output(resize))? })
    }

    /// The image stretched to `size`.
    pub(super) fn stretched(
        config: &Value,
        processor: &Value,
        size: ImageSize,
        num_tokens: u32,
    ) -> Result<Self, InvalidSetting> {
        let (filter, image_token) = (settings::filter(processor)?, settings::image_token(config)?);
        Ok(Self { square: None, resize: Resize::Stretch(size), filter, image_token, num_tokens })
    }

    /// A square in the processor's mean colour with the image in its middle, resized to `size`.
    pub(super) fn padded(
        config: &Value,
        processor: &Value,
        size: ImageSize,
        num_tokens: u32,
    ) -> Result<Self, InvalidSetting> {
        let square = Some(settings::mean_colour(processor)?);
        Ok(Self { square, ..Self::stretched(config, processor, size, num_tokens)? })
    }

    fn view(&self, image: ImageSize) -> Option<View> {
        let padding = self.square.and_then(|colour| pad_to_square(image, colour));
        let view = View(padding.into_iter().collect());
        let resize = |size| view.then(Operation::Resize { size, filter: self.filter });
        match self.resize {
            Resize::Stretch(size) => Some(resize(size)),
            Resize::ShortestEdge { edge, crop } => {
                let size = keep_ratio(view.output(image)?, edge)?;
                Some(resize(size).then(Operation::Cut(centre(size, crop))))
            }
        }
    }
}

impl VlmFamily for FixedGrid {
    fn layout(&self, image: ImageSize) -> Result<ImageLayout, ImageRejected> {
        let ImageSize { width, height } = image;
        if image.pixels() == 0 {
            return Err(ImageRejected::Empty { width, height });
        }
        let view = self.view(image).ok_or(ImageRejected::AspectRatio { width, height })?;
        Ok(ImageLayout::plain(view, self.num_tokens))
    }

    fn image_token(&self) -> TokenId {
        self.image_token
    }

    fn anchor(&self) -> TokenId {
        self.image_token
    }
}

/// `pad_to_square`: the image in the middle, the odd line below or to the right.
fn pad_to_square(image: ImageSize, colour: [u8; 3]) -> Option<Operation> {
    let side = image.width.max(image.height);
    let (x, y) = ((side - image.width) / 2, (side - image.height) / 2);
    (image.width != image.height).then_some(Operation::Pad { size: ImageSize::new(side, side), x, y, colour })
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

/// The colour of the square, when images are put on one. To other classes than LLaVA's, `do_pad` means something else.
fn square(processor: &Value) -> Result<Option<[u8; 3]>, InvalidSetting> {
    if !settings::optional_flag(processor, "do_pad")? {
        return Ok(None);
    }
    if processor.get("image_processor_type").and_then(Value::as_str) != Some("LlavaImageProcessor") {
        return Err(InvalidSetting::unsupported("do_pad", "only LlavaImageProcessor pads to a square"));
    }
    settings::mean_colour(processor).map(Some)
}

fn resize(processor: &Value) -> Result<Resize, InvalidSetting> {
    if !settings::flag(processor, "do_resize")? {
        return Err(InvalidSetting::unsupported("do_resize", "images must be resized to one size"));
    }
    let crop = settings::optional_flag(processor, "do_center_crop")?
        .then(|| settings::size(processor, "crop_size"))
        .transpose()?;
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
