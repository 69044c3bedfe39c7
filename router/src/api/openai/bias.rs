//! `logit_bias`: what a request adds to the scores of single tokens.

use serde_json::Value;
use text_generation_scheduler::TokenId;

use crate::api::Api;
use crate::api::error::ApiError;

/// Tokens a request may favour or shun. Each is written into the scores of every step.
const MAX_BIASED_TOKENS: usize = 1024;
/// At either end a token is as good as forced or banned.
const MAX_BIAS: f32 = 100.0;

/// An object from token ids to numbers; empty ones, TGI's empty list and `null` say nothing.
pub(super) fn parse(bias: Option<&Value>, api: &Api) -> Result<Vec<(TokenId, f32)>, ApiError> {
    let refuse = |rule: String| Err(ApiError::field("logit_bias", rule));
    let entries = match bias {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Array(list)) if list.is_empty() => return Ok(Vec::new()),
        Some(Value::Object(entries)) => entries,
        Some(_) => return refuse("must be an object from token ids to numbers".to_owned()),
    };
    if entries.len() > MAX_BIASED_TOKENS {
        return refuse(format!("must have at most {MAX_BIASED_TOKENS} tokens. Given: {}", entries.len()));
    }
    let table = api.prompts.table();
    let mut biases = Vec::with_capacity(entries.len());
    for (name, value) in entries {
        let id = name.parse().ok().filter(|&id: &TokenId| table.token_bytes(id).is_some());
        let value = value.as_f64().map(|value| value as f32).filter(|value| value.abs() <= MAX_BIAS);
        match (id, value) {
            (Some(id), Some(value)) => biases.push((id, value)),
            (None, _) => return refuse("names what is not a token id of this model".to_owned()),
            (_, None) => return refuse(format!("values must be numbers >= -{MAX_BIAS} and <= {MAX_BIAS}")),
        }
    }
    // "1" and "01" are one token.
    biases.sort_unstable_by_key(|(id, _)| *id);
    biases.dedup_by_key(|(id, _)| *id);
    Ok(biases)
}
