//! The client's end of a sequence. Dropping it, wherever and whyever, cancels the sequence.

use std::sync::Arc;
use std::time::Duration;

use text_generation_scheduler::SequenceId;
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::mailbox::{Command, Mailbox};
use super::progress::Progress;
use super::types::StreamEvent;

/// Tokens that may wait for a slow reader before its sequence is ended.
pub const STREAM_BUFFER_TOKENS: usize = 1024;

/// Leave to submit one request. Held until its stream is dropped.
#[derive(Debug)]
pub struct Permit(#[expect(dead_code, reason = "held for its drop")] pub(super) OwnedSemaphorePermit);

/// Tokens of one sequence, in order.
#[derive(Debug)]
pub struct TokenStream {
    pub(super) sequence: SequenceId,
    pub(super) events: mpsc::Receiver<StreamEvent>,
    pub(super) progress: Arc<Progress>,
    pub(super) mailbox: Arc<Mailbox>,
    pub(super) prompt_tokens: u32,
    pub(super) image_tokens: u32,
    pub(super) _permit: Permit,
}

impl TokenStream {
    /// The next event; `None` after the last one. Cancel safe.
    pub async fn next(&mut self) -> Option<StreamEvent> {
        self.events.recv().await
    }

    /// Time between submission and the first step that worked on the sequence; zero before that step.
    pub fn queue_time(&self) -> Duration {
        self.progress.queue_time()
    }

    /// Tokens of the prompt, images included.
    pub fn prompt_tokens(&self) -> u32 {
        self.prompt_tokens
    }

    /// Tokens of the prompt that stand for images.
    pub fn image_tokens(&self) -> u32 {
        self.image_tokens
    }

    /// Tokens of the prompt that came from the prefix cache.
    pub fn cached_tokens(&self) -> u32 {
        self.progress.cached_tokens()
    }
}

impl Drop for TokenStream {
    fn drop(&mut self) {
        // An abort for a finished sequence is ignored, so no exit path needs to ask.
        self.mailbox.post(Command::Abort(self.sequence));
    }
}
