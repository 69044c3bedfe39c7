//! The tokens of one sequence as a route reads them: the first can be awaited without being taken, every wait is
//! measured, and every way to end is named.

use std::time::Instant;

use metrics::{Histogram, histogram};

use super::error::{ApiError, ErrorKind};
use super::generator::Tokens;
use crate::engine::{GeneratedToken, GenerationError, PromptToken, StreamEvent};

/// Why no further token comes although the sequence has not finished.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Broken {
    /// The engine says why.
    Failed(GenerationError),
    /// It does not: the stream just ended.
    Ended,
}

impl Broken {
    /// Whether the connection has to be cut as well. A body that ends cleanly is taken for a complete answer by clients
    /// that do not look at events, so it may not when the model is gone.
    pub(super) fn cuts_connection(&self) -> bool {
        !matches!(self, Self::Failed(GenerationError::Failed(_) | GenerationError::OutOfMemory))
    }
}

impl From<Broken> for ApiError {
    fn from(broken: Broken) -> Self {
        match broken {
            Broken::Failed(error) => error.into(),
            Broken::Ended => Self::new(ErrorKind::Incomplete, "Incomplete generation"),
        }
    }
}

/// Tokens of one sequence. Dropping it cancels the sequence.
pub(super) struct Feed {
    tokens: Box<dyn Tokens>,
    first: Option<StreamEvent>,
    prompt: Vec<PromptToken>,
    started: Instant,
    previous: Option<Instant>,
    time_to_first: Histogram,
    between: Histogram,
    count: u32,
}

impl Feed {
    /// `started` is when the request came in: the time to the first token is the client's.
    pub(super) fn new(tokens: Box<dyn Tokens>, started: Instant) -> Self {
        Self {
            tokens,
            first: None,
            prompt: Vec::new(),
            started,
            previous: None,
            time_to_first: histogram!("tgi_time_to_first_token_duration"),
            between: histogram!("tgi_inter_token_duration"),
            count: 0,
        }
    }

    /// Waits until there is a token, so that a failure before it can still become a status. Cancel safe.
    pub(super) async fn ready(&mut self) -> Result<(), Broken> {
        while self.first.is_none() {
            match self.tokens.next().await {
                Some(StreamEvent::Prompt(tokens)) => self.prompt = tokens,
                Some(event) => self.first = Some(event),
                None => return Err(Broken::Ended),
            }
        }
        match &self.first {
            Some(StreamEvent::Token(_)) => Ok(()),
            Some(StreamEvent::Failed(error)) => Err(Broken::Failed(error.clone())),
            Some(StreamEvent::Prompt(_)) | None => Err(Broken::Ended),
        }
    }

    /// The next token; not to be called again after one that finishes the sequence. Cancel safe.
    pub(super) async fn next(&mut self) -> Result<GeneratedToken, Broken> {
        self.ready().await?;
        let Some(StreamEvent::Token(token)) = self.first.take() else { return Err(Broken::Ended) };
        self.measure();
        Ok(token)
    }

    /// The scored prompt, to be taken once there was a token. Empty unless it was asked for.
    pub(super) fn take_prompt(&mut self) -> Vec<PromptToken> {
        std::mem::take(&mut self.prompt)
    }

    fn measure(&mut self) {
        let now = Instant::now();
        match self.previous.replace(now) {
            None => self.time_to_first.record(now - self.started),
            Some(previous) => self.between.record(now - previous),
        }
        self.count += 1;
    }

    /// What the sequence has used so far.
    pub(super) fn usage(&self) -> Usage {
        Usage {
            prompt_tokens: self.tokens.prompt_tokens(),
            image_tokens: self.tokens.image_tokens(),
            cached_tokens: self.tokens.cached_tokens(),
            generated_tokens: self.count,
            queue: self.tokens.queue_time(),
        }
    }
}

/// What a sequence has used.
#[derive(Copy, Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Usage {
    pub(super) prompt_tokens: u32,
    pub(super) image_tokens: u32,
    pub(super) cached_tokens: u32,
    pub(super) generated_tokens: u32,
    pub(super) queue: std::time::Duration,
}

impl Usage {
    /// The usage of several sequences over one prompt: it counts once, what was generated adds up.
    pub(super) fn of_all(usages: impl IntoIterator<Item = Self>) -> Self {
        let mut usages = usages.into_iter();
        let first = usages.next().unwrap_or_default();
        usages.fold(first, |all, one| Self {
            generated_tokens: all.generated_tokens + one.generated_tokens,
            queue: all.queue.max(one.queue),
            ..all
        })
    }

    /// The usage of several prompts: everything adds up but the time they waited side by side.
    pub(super) fn of_prompts(usages: impl IntoIterator<Item = Self>) -> Self {
        usages.into_iter().fold(Self::default(), |all, one| Self {
            prompt_tokens: all.prompt_tokens + one.prompt_tokens,
            image_tokens: all.image_tokens + one.image_tokens,
            cached_tokens: all.cached_tokens + one.cached_tokens,
            generated_tokens: all.generated_tokens + one.generated_tokens,
            queue: all.queue.max(one.queue),
        })
    }
}
