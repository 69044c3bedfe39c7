//! What is the same from the first word of a response to the last, and the response around any state of its output.

use super::answers::{Failure, IncompleteDetails, ResponseBody, Settings, Status};
use super::output::Output;
use crate::api::feed::Usage;
use crate::api::head;
use crate::api::openai::answers::FinishReason;
use crate::api::openai::chat::unix_seconds;

/// A response without its output.
#[derive(Debug)]
pub(super) struct Envelope {
    id: String,
    created_at: u64,
    settings: Settings,
}

impl Envelope {
    pub(super) fn new(settings: Settings) -> Self {
        Self { id: format!("resp_{}", head::random_id()), created_at: unix_seconds(), settings }
    }

    /// The response while it grows.
    pub(super) fn growing<'a>(&'a self, output: &'a Output) -> ResponseBody<'a> {
        ResponseBody {
            id: &self.id,
            object: "response",
            created_at: self.created_at,
            completed_at: None,
            status: Status::InProgress,
            error: None,
            incomplete_details: None,
            output: output.items(),
            usage: None,
            settings: &self.settings,
        }
    }

    /// The response when its sequence has finished.
    pub(super) fn finished<'a>(&'a self, output: &'a Output, finish: FinishReason, usage: Usage) -> ResponseBody<'a> {
        let (growing, usage) = (self.growing(output), Some(usage.into()));
        if finish == FinishReason::Length {
            let incomplete_details = Some(IncompleteDetails { reason: "max_output_tokens" });
            return ResponseBody { status: Status::Incomplete, incomplete_details, usage, ..growing };
        }
        ResponseBody { status: Status::Completed, completed_at: Some(unix_seconds()), usage, ..growing }
    }

    /// The response when nothing more can come.
    pub(super) fn failed<'a>(&'a self, output: &'a Output, message: String) -> ResponseBody<'a> {
        let error = Some(Failure { code: "server_error", message });
        ResponseBody { status: Status::Failed, error, ..self.growing(output) }
    }
}
