//! `/tokenize`: the token ids of a prompt as the model would see them.

use super::types::{SimpleToken, SpanType};
use crate::api::error::ApiError;
use crate::api::{Api, media};
use crate::prompt::{PromptBuilder, SpanKind, TokenSpan};

pub(super) async fn tokenize(api: &Api, inputs: &str) -> Result<Vec<SimpleToken>, ApiError> {
    if inputs.is_empty() {
        return Err(ApiError::field("inputs", "must not be empty"));
    }
    let (segments, urls) = PromptBuilder::segments(inputs);
    let images = media::load(api, &urls).await?;
    let tokenized = api.prompts.tokenize(segments, images).await?;
    Ok(tokenized.tokens.into_iter().map(SimpleToken::from).collect())
}

impl From<TokenSpan> for SimpleToken {
    fn from(span: TokenSpan) -> Self {
        let r#type = match span.kind {
            SpanKind::Image => SpanType::Image,
            SpanKind::Text => SpanType::Text,
        };
        Self { id: span.id, text: span.text, start: span.start, stop: span.stop, r#type }
    }
}
