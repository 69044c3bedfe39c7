//! `/tokenize`: the token ids of a prompt as the model would see them.

use super::types::{Inputs, SimpleToken, SpanType};
use crate::api::error::ApiError;
use crate::api::{Api, media};
use crate::prompt::{SpanKind, TokenSpan};

pub(super) async fn tokenize(api: &Api, inputs: Inputs) -> Result<Vec<SimpleToken>, ApiError> {
    if inputs.text.is_empty() {
        return Err(ApiError::field("inputs", "must not be empty"));
    }
    let images = media::load(api, inputs.image_urls).await?;
    let tokenized = api.prompts.tokenize(inputs.segments, images).await?;
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
