//! The events of a streamed response, and who is told about them.

use std::collections::VecDeque;

use serde::Serialize;
use utoipa::ToSchema;

use super::answers::{Item, ResponseBody, TextPart};
use crate::api::openai::answers::TokenLogprob;
use crate::api::sse::Frame;

/// An event of a stream. Which fields there are depends on the type.
#[derive(Debug, Default, Serialize, ToSchema)]
#[schema(as = ResponseEvent)]
pub(super) struct Event<'a> {
    /// `response.created`, `response.output_text.delta`, …; also the name of the event.
    pub(super) r#type: &'static str,
    /// Counts events from 0.
    pub(super) sequence_number: u32,
    /// The response as far as it has come, in the first two events and in the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) response: Option<ResponseBody<'a>>,
    /// Which item of the output.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) output_index: Option<usize>,
    /// Names the item.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) item_id: Option<&'a str>,
    /// Which part of the item.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) content_index: Option<usize>,
    /// The item, as it begins and as it is in the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) item: Option<&'a Item>,
    /// The part, as it begins and as it is in the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) part: Option<&'a TextPart>,
    /// Text to be appended to the part, or to the arguments of a call.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) delta: Option<&'a str>,
    /// The whole text of a part.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) text: Option<&'a str>,
    /// The function of a call.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) name: Option<&'a str>,
    /// The whole arguments of a call.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) arguments: Option<&'a str>,
    /// Log-probabilities of the tokens of the text; empty unless asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) logprobs: Option<&'a [TokenLogprob]>,
}

/// Who is told about an answer as it grows.
pub(super) trait Listener {
    /// The event gets its number here.
    fn tell(&mut self, event: Event<'_>);
}

/// Nobody: the answer is wanted whole.
pub(super) struct Nobody;

impl Listener for Nobody {
    fn tell(&mut self, _event: Event<'_>) {}
}

/// Events that are to be sent.
#[derive(Default)]
pub(super) struct Told {
    pub(super) frames: VecDeque<Frame>,
    count: u32,
}

impl Listener for Told {
    fn tell(&mut self, event: Event<'_>) {
        let event = Event { sequence_number: self.count, ..event };
        self.count += 1;
        self.frames.push_back(Frame::named(event.r#type, &event));
    }
}
