//! Typed reads from a checkpoint's JSON settings. Every complaint names the key, so that an operator can find it.

use serde::Deserialize as _;
use serde_json::Value;
use text_generation_scheduler::TokenId;

use super::{Filter, ImageSize};

/// A setting that is missing, malformed or not supported.
#[derive(Debug, thiserror::Error)]
pub(super) enum InvalidSetting {
    #[error("setting `{key}` is missing or not {expected}")]
    Malformed { key: String, expected: &'static str },
    #[error("setting `{key}`: {reason}")]
    Unsupported { key: &'static str, reason: String },
}

impl InvalidSetting {
    fn malformed(key: &str, expected: &'static str) -> Self {
        Self::Malformed { key: key.to_owned(), expected }
    }

    pub(super) fn unsupported(key: &'static str, reason: impl Into<String>) -> Self {
        Self::Unsupported { key, reason: reason.into() }
    }
}

pub(super) fn integer(settings: &Value, key: &str) -> Result<u32, InvalidSetting> {
    settings
        .get(key)
        .and_then(Value::as_u64)
        .and_then(|value| u32::try_from(value).ok())
        .ok_or_else(|| InvalidSetting::malformed(key, "an unsigned integer"))
}

pub(super) fn positive(settings: &Value, key: &str) -> Result<u32, InvalidSetting> {
    integer(settings, key)
        .ok()
        .filter(|value| *value > 0)
        .ok_or_else(|| InvalidSetting::malformed(key, "a positive integer"))
}

pub(super) fn flag(settings: &Value, key: &str) -> Result<bool, InvalidSetting> {
    settings.get(key).and_then(Value::as_bool).ok_or_else(|| InvalidSetting::malformed(key, "true or false"))
}

/// The id that stands for an image; older configs call it an index.
pub(super) fn image_token(config: &Value) -> Result<TokenId, InvalidSetting> {
    integer(config, "image_token_index").or_else(|_| integer(config, "image_token_id"))
}

/// An integer with the value the processor's library gives it when it is left out.
pub(super) fn integer_or(settings: &Value, key: &str, default: u32) -> Result<u32, InvalidSetting> {
    if is_absent(settings, key) { Ok(default) } else { integer(settings, key) }
}

/// A text with the value the processor's library gives it when it is left out.
pub(super) fn text_or(settings: &Value, key: &str, default: &str) -> Result<String, InvalidSetting> {
    match settings.get(key) {
        None | Some(Value::Null) => Ok(default.to_owned()),
        Some(Value::String(text)) => Ok(text.clone()),
        Some(_) => Err(InvalidSetting::malformed(key, "a text")),
    }
}

/// A flag that processors written before it existed leave out.
pub(super) fn optional_flag(settings: &Value, key: &str) -> Result<bool, InvalidSetting> {
    if is_absent(settings, key) { Ok(false) } else { flag(settings, key) }
}

pub(super) fn is_absent(settings: &Value, key: &str) -> bool {
    settings.get(key).is_none_or(Value::is_null)
}

/// `{"height": …, "width": …}` under `key`.
pub(super) fn size(settings: &Value, key: &str) -> Result<ImageSize, InvalidSetting> {
    let sides = settings.get(key).ok_or_else(|| InvalidSetting::malformed(key, "a size"))?;
    Ok(ImageSize::new(positive(sides, "width")?, positive(sides, "height")?))
}

/// `[[height, width], …]` under `key`.
pub(super) fn sides(settings: &Value, key: &str) -> Result<Vec<ImageSize>, InvalidSetting> {
    let pairs: Option<Vec<(u32, u32)>> = settings.get(key).and_then(|pairs| Vec::deserialize(pairs).ok());
    let pairs = pairs.ok_or_else(|| InvalidSetting::malformed(key, "a list of heights and widths"))?;
    Ok(pairs.into_iter().map(|(height, width)| ImageSize::new(width, height)).collect())
}

/// `image_mean` as a colour, rounded down as processors do.
pub(super) fn mean_colour(processor: &Value) -> Result<[u8; 3], InvalidSetting> {
    let mean = processor.get("image_mean").and_then(|mean| <[f64; 3]>::deserialize(mean).ok());
    let mean = mean.ok_or_else(|| InvalidSetting::malformed("image_mean", "three numbers"))?;
    Ok(mean.map(|part| (part * 255.0) as u8))
}

/// Pillow's number of a filter under `resample`.
pub(super) fn filter(processor: &Value) -> Result<Filter, InvalidSetting> {
    match integer(processor, "resample")? {
        1 => Ok(Filter::Lanczos),
        2 => Ok(Filter::Bilinear),
        3 => Ok(Filter::Bicubic),
        4 => Ok(Filter::Box),
        5 => Ok(Filter::Hamming),
        other => Err(InvalidSetting::unsupported("resample", format!("filter {other} is not supported"))),
    }
}
