//! Ranges of the sampling parameters, the same on every route. Neutral values are allowed; what is not finite is not.

use super::error::ApiError;

/// Temperatures above this are the same as none at all.
const MAX_TEMPERATURE: f32 = 100.0;
/// Penalties above this leave nothing to choose from.
const MAX_REPETITION_PENALTY: f32 = 100.0;
/// JavaScript loses the low bits of larger integers, so that it could not send a seed back.
const SEED_BITS: u32 = 53;

pub(super) fn temperature(value: Option<f32>) -> Result<f32, ApiError> {
    positive("temperature", value, MAX_TEMPERATURE)
}

pub(super) fn repetition_penalty(value: Option<f32>) -> Result<f32, ApiError> {
    positive("repetition_penalty", value, MAX_REPETITION_PENALTY)
}

fn positive(field: &str, value: Option<f32>, max: f32) -> Result<f32, ApiError> {
    let value = value.unwrap_or(1.0);
    let allowed = value > 0.0 && value <= max;
    if allowed {
        Ok(value)
    } else {
        Err(ApiError::field(field, format!("must be strictly positive and at most {max}")))
    }
}

/// `frequency_penalty` and `presence_penalty`.
pub(super) fn penalty(field: &str, value: Option<f32>) -> Result<f32, ApiError> {
    let value = value.unwrap_or(0.0);
    let allowed = (-2.0..=2.0).contains(&value);
    if allowed { Ok(value) } else { Err(ApiError::field(field, "must be >= -2.0 and <= 2.0")) }
}

/// `top_p` and `typical_p`.
pub(super) fn probability(field: &str, value: Option<f32>) -> Result<f32, ApiError> {
    let value = value.unwrap_or(1.0);
    let allowed = value > 0.0 && value <= 1.0;
    if allowed { Ok(value) } else { Err(ApiError::field(field, "must be > 0.0 and <= 1.0")) }
}

pub(super) fn top_k(value: Option<i64>) -> Result<u32, ApiError> {
    let value = value.unwrap_or(0);
    let allowed = u32::try_from(value).ok().filter(|value| i32::try_from(*value).is_ok());
    allowed.ok_or_else(|| ApiError::field("top_k", "must be >= 0"))
}

/// `max_new_tokens` under the name the route knows it by.
pub(super) fn new_tokens(field: &str, value: Option<u32>) -> Result<Option<u32>, ApiError> {
    if value == Some(0) { Err(ApiError::field(field, "must be strictly positive")) } else { Ok(value) }
}

/// A number that may be at most `limit`.
pub(super) fn at_most(field: &str, value: u64, limit: u64) -> Result<(), ApiError> {
    if value <= limit {
        return Ok(());
    }
    Err(ApiError::field(field, format!("must be <= {limit}. Given: {value}")))
}

/// Stop strings: not too many, not too long, none empty.
pub(super) fn stops(stops: &[String], limits: &super::RequestLimits) -> Result<(), ApiError> {
    at_most("stop", stops.len() as u64, limits.max_stop_sequences as u64)?;
    let longest = stops.iter().map(String::len).max().unwrap_or(0);
    if longest > limits.max_stop_bytes {
        return Err(ApiError::field("stop", format!("strings must have at most {} bytes", limits.max_stop_bytes)));
    }
    if stops.iter().any(String::is_empty) { Err(ApiError::field("stop", "strings must not be empty")) } else { Ok(()) }
}

/// A seed the client did not choose, small enough for it to send back.
pub(super) fn invented_seed() -> u64 {
    rand::random::<u64>() >> (u64::BITS - SEED_BITS)
}

#[cfg(test)]
mod tests {
    use super::super::RequestLimits;
    use super::*;

    #[test]
    fn neutral_values_are_allowed() {
        assert_eq!(temperature(None), Ok(1.0));
        assert_eq!(temperature(Some(1.0)), Ok(1.0));
        assert_eq!(probability("top_p", Some(1.0)), Ok(1.0));
        assert_eq!(top_k(Some(0)), Ok(0));
        assert_eq!(penalty("frequency_penalty", Some(0.0)), Ok(0.0));
        assert_eq!(repetition_penalty(None), Ok(1.0));
        assert_eq!(new_tokens("max_tokens", None), Ok(None));
    }

    #[test]
    fn edges_of_the_ranges() {
        for bad in [0.0, -1.0, 100.1, f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            assert!(temperature(Some(bad)).is_err(), "{bad}");
            assert!(repetition_penalty(Some(bad)).is_err(), "{bad}");
        }
        for bad in [-2.1, 2.1, f32::NAN, f32::INFINITY] {
            assert!(penalty("presence_penalty", Some(bad)).is_err(), "{bad}");
        }
        for bad in [0.0, -0.5, 1.1, f32::NAN] {
            assert!(probability("typical_p", Some(bad)).is_err(), "{bad}");
        }
        for bad in [-1, i64::from(i32::MAX) + 1, i64::MIN] {
            assert!(top_k(Some(bad)).is_err(), "{bad}");
        }
        assert!(new_tokens("max_tokens", Some(0)).is_err());
    }

    #[test]
    fn texts_name_field_and_limit() {
        let text = at_most("best_of", 3, 2).expect_err("3 > 2").to_string();
        assert_eq!(text, "Input validation error: `best_of` must be <= 2. Given: 3");
    }

    #[test]
    fn stop_lists() {
        let limits = RequestLimits::default();
        let strings = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect::<Vec<_>>();
        assert_eq!(stops(&strings(&["a", "b", "c", "d"]), &limits), Ok(()));
        for bad in [&["a"; 5][..], &[""], &["x".repeat(1025).as_str()]] {
            assert!(stops(&strings(bad), &limits).is_err());
        }
    }

    #[test]
    fn invented_seeds_survive_javascript() {
        for _ in 0..1000 {
            assert!(invented_seed() < 1 << 53);
        }
    }
}
