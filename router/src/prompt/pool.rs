//! Where the work of building a prompt runs: at once for short texts, on a bounded blocking pool for long ones.

use std::sync::Arc;

use super::conversation::{Conversation, Segment};
use super::{Inner, PromptBuilder, PromptError};

impl PromptBuilder {
    /// Runs `work` where a text of this many bytes belongs.
    ///
    /// Errors: `TextTooLong` before anything is done; `ShuttingDown` when the runtime is going away.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        bytes: usize,
        work: impl FnOnce(&Inner) -> Result<T, PromptError> + Send + 'static,
    ) -> Result<T, PromptError> {
        let limits = self.inner.limits;
        if bytes > limits.max_text_bytes {
            return Err(PromptError::TextTooLong { bytes, limit: limits.max_text_bytes });
        }
        if bytes <= limits.inline_bytes {
            return work(&self.inner);
        }
        // The permit goes into the task: a client that leaves does not make room for a second one meanwhile.
        let permit = Arc::clone(&self.pool).acquire_owned().await.map_err(|_| PromptError::ShuttingDown)?;
        let inner = Arc::clone(&self.inner);
        let task = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            work(&inner)
        });
        task.await.map_err(|error| if error.is_panic() { PromptError::Tokenize } else { PromptError::ShuttingDown })?
    }
}

impl Conversation {
    /// Bytes of everything a client wrote.
    pub(super) fn text_bytes(&self) -> usize {
        let mut bytes = 0;
        self.each_text(&mut |text| bytes += text.len());
        bytes
    }
}

impl Segment {
    pub(super) fn text_bytes(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Image => 0,
        }
    }
}
