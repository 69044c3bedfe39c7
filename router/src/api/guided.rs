//! The ways in which clients say what an answer may be: TGI's `grammar`, OpenAI's `response_format`, and what other
//! libraries make of either. All of them are taken in both places.

use serde_json::Value;

use super::error::{ApiError, ErrorKind};
use crate::grammar::{GrammarError, GrammarSource};

/// The field a grammar comes from unless a route says otherwise, see [`ApiError::renamed`].
pub(super) const FIELD: &str = "grammar";

const RESPONSE_FORMAT: &str = "response_format";

/// What an answer is held to, by OpenAI's name or by TGI's, and which of them it was.
pub(super) fn either(
    response_format: Option<&Value>,
    grammar: Option<&Value>,
) -> Result<(Option<GrammarSource>, &'static str), ApiError> {
    match (parse(RESPONSE_FORMAT, response_format)?, parse(FIELD, grammar)?) {
        (Some(_), Some(_)) => Err(ApiError::field(FIELD, "must not be set with `response_format`")),
        (None, grammar) => Ok((grammar, FIELD)),
        (format, None) => Ok((format, RESPONSE_FORMAT)),
    }
}

/// Reads what `field` holds; `None` where any text will do.
///
/// `{"type": T, …}`, where T is `text`; `json` or `json_object` with a schema as `value` or `schema`; `json_object`
/// alone for any object; `json_schema` with `json_schema.schema`, `value.schema` or `schema`; `regex` or `lark` with
/// `value`. A schema may also be a string that holds one.
pub(super) fn parse(field: &str, value: Option<&Value>) -> Result<Option<GrammarSource>, ApiError> {
    let Some(value) = value.filter(|value| !value.is_null()) else { return Ok(None) };
    let Some(kind) = value["type"].as_str() else {
        return Err(ApiError::field(&format!("{field}.type"), "must be a string"));
    };
    Ok(Some(match kind {
        "text" => return Ok(None),
        "json" | "json_object" => object(field, kind, value)?,
        "json_schema" => schema(field, &["json_schema.schema", "value.schema", "schema"], value)?,
        "regex" => GrammarSource::Regex(text(field, value)?),
        "lark" => GrammarSource::Lark(text(field, value)?),
        _ => {
            let kinds = "must be one of text, json, json_object, json_schema, regex, lark";
            return Err(ApiError::field(&format!("{field}.type"), kinds));
        }
    }))
}

fn object(field: &str, kind: &str, value: &Value) -> Result<GrammarSource, ApiError> {
    if kind == "json_object" && value["value"].is_null() && value["schema"].is_null() {
        return Ok(GrammarSource::any_object());
    }
    schema(field, &["value", "schema"], value)
}

/// The schema at the first of the places that hold something.
fn schema(field: &str, places: &[&str], value: &Value) -> Result<GrammarSource, ApiError> {
    let at = |place: &str| place.split('.').fold(value, |value, key| &value[key]);
    let place = places.iter().find(|place| !at(place).is_null()).or(places.first()).copied().unwrap_or_default();
    let found = match at(place) {
        Value::String(text) => serde_json::from_str(text).unwrap_or(Value::Null),
        other => other.clone(),
    };
    if found.is_object() {
        return Ok(GrammarSource::JsonSchema(found));
    }
    Err(ApiError::field(&format!("{field}.{place}"), "must be a JSON schema: an object, or a string that holds one"))
}

fn text(field: &str, value: &Value) -> Result<String, ApiError> {
    match value["value"].as_str() {
        Some(text) if !text.is_empty() => Ok(text.to_owned()),
        _ => Err(ApiError::field(&format!("{field}.value"), "must be a string that is not empty")),
    }
}

impl From<GrammarError> for ApiError {
    fn from(error: GrammarError) -> Self {
        match error {
            GrammarError::Busy => Self::new(ErrorKind::Overloaded, error.to_string()),
            GrammarError::ShuttingDown => Self::new(ErrorKind::Unavailable, error.to_string()),
            GrammarError::TooLarge { .. }
            | GrammarError::TooDeep { .. }
            | GrammarError::TooEntangled { .. }
            | GrammarError::TooOpen { .. }
            | GrammarError::TooRepetitive { .. }
            | GrammarError::TooSlow { .. }
            | GrammarError::Invalid(_)
            | GrammarError::Unsupported(_) => Self::field(FIELD, error.to_string()),
        }
    }
}
