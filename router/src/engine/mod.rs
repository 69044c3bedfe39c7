//! From a finished prompt to a stream of tokens: admission, the step loop, and the streams it feeds.
//!
//! The scheduler decides, the shards compute, this module only carries values between them and owns everything the
//! scheduler must not know: channels, clocks and sockets. It knows neither HTTP nor text.

mod deliver;
mod health;
mod mailbox;
mod metrics;
mod progress;
mod scores;
mod session;
mod start;
mod step_loop;
mod stream;
mod traced;
mod types;
mod uploads;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use text_generation_scheduler::{AddError, SequenceId, Stats, TokenId};
use tokio::sync::{Semaphore, mpsc};

pub use self::health::Health;
use self::mailbox::{Command, Mailbox, Submission};
use self::progress::Progress;
pub use self::start::{EngineConfig, StartError, start};
pub use self::stream::{Permit, STREAM_BUFFER_TOKENS, TokenStream};
pub use self::types::{
    AdmissionError, Arrival, GenerateRequest, GeneratedToken, GenerationError, PromptToken, RestartRequest, StreamEvent,
};
pub use crate::sampling::{LogprobSource, PenaltyScope, Sampling};

/// A handle on the running engine; cheap to clone.
#[derive(Clone, Debug)]
pub struct Engine(Arc<Shared>);

/// What handles and the step loop share.
#[derive(Debug)]
struct Shared {
    limits: Limits,
    end_tokens: Arc<[TokenId]>,
    permits: Arc<Semaphore>,
    draining: AtomicBool,
    next_sequence: AtomicU64,
    mailbox: Arc<Mailbox>,
    health: health::Monitor,
    stats: Mutex<EngineStats>,
}

/// Limits every request is held to.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub struct Limits {
    /// Requests that may be in the server at once.
    pub max_concurrent_requests: u32,
    /// Most tokens of a prompt, images included.
    pub max_input_tokens: u32,
    /// Most tokens of prompt and answer together.
    pub max_total_tokens: u32,
    /// Tokens a step may compute.
    pub max_step_tokens: u32,
    /// Tokens all running sequences may hold together.
    pub max_kv_tokens: u32,
}

/// A snapshot after the latest step.
#[derive(Clone, Debug, Default)]
pub struct EngineStats {
    /// What the scheduler counts.
    pub scheduler: Stats,
    /// Steps since the start.
    pub steps: u64,
    /// Times the shards were lost and came back.
    pub shard_restarts: u64,
}

impl Engine {
    /// Takes one permit, at once or not at all.
    pub fn admit(&self) -> Result<Permit, AdmissionError> {
        if self.0.draining.load(Ordering::Relaxed) {
            return Err(AdmissionError::Draining);
        }
        let permit = Arc::clone(&self.0.permits).try_acquire_owned();
        permit.map(Permit).map_err(|_| AdmissionError::Overloaded)
    }

    /// Hands a request to the step loop. Its tokens come out of the stream; dropping the stream cancels it.
    pub fn submit(&self, permit: Permit, request: GenerateRequest) -> Result<TokenStream, AdmissionError> {
        let max_new_tokens = self.0.limits.check(&request)?;
        let sequence = SequenceId(self.0.next_sequence.fetch_add(1, Ordering::Relaxed));
        let (sender, events) = mpsc::channel(STREAM_BUFFER_TOKENS);
        let progress = Arc::new(Progress::default());
        let stream = TokenStream {
            sequence,
            events,
            progress: Arc::clone(&progress),
            mailbox: Arc::clone(&self.0.mailbox),
            prompt_tokens: request.prompt.token_ids.len() as u32,
            image_tokens: request.prompt.placeholders.iter().map(|placeholder| placeholder.length).sum(),
            _permit: permit,
        };
        let submission = Submission { sequence, request, max_new_tokens, sender, progress, submitted: Instant::now() };
        self.0.mailbox.post(Command::Submit(Box::new(submission)));
        Ok(stream)
    }

    /// Refuses new requests from now on; running ones go on.
    pub fn drain(&self) {
        self.0.draining.store(true, Ordering::Relaxed);
    }

    /// Ends every stream with an error and the step loop with it.
    pub fn stop(&self) {
        self.drain();
        self.0.mailbox.post(Command::Stop);
    }

    /// Whether [`Engine::drain`] was called.
    pub fn is_draining(&self) -> bool {
        self.0.draining.load(Ordering::Relaxed)
    }

    /// Requests that hold a permit.
    pub fn num_requests(&self) -> u32 {
        self.0.limits.max_concurrent_requests - self.0.permits.available_permits() as u32
    }

    /// The limits requests are held to.
    pub fn limits(&self) -> Limits {
        self.0.limits
    }

    /// Whether the step loop and every shard are alive.
    pub fn health(&self) -> Health {
        self.0.health.report()
    }

    /// A snapshot after the latest step.
    pub fn stats(&self) -> EngineStats {
        self.0.stats.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Limits {
    /// Checks the lengths of a request; the answer is the number of tokens it may generate.
    fn check(&self, request: &GenerateRequest) -> Result<u32, AdmissionError> {
        let prompt = request.prompt.token_ids.len() as u32;
        if prompt == 0 {
            return Err(AdmissionError::EmptyPrompt);
        }
        if prompt > self.max_input_tokens {
            return Err(AdmissionError::PromptTooLong { prompt, limit: self.max_input_tokens });
        }
        let room = self.max_total_tokens.saturating_sub(prompt);
        let max_new_tokens = request.max_new_tokens.unwrap_or(room);
        if max_new_tokens > room || max_new_tokens == 0 {
            return Err(AdmissionError::TotalTooLong { prompt, max_new_tokens, limit: self.max_total_tokens });
        }
        self.check_both_ways(request)?;
        Ok(max_new_tokens)
    }

    /// Tokens that attend to each other are computed in one step.
    fn check_both_ways(&self, request: &GenerateRequest) -> Result<(), AdmissionError> {
        let lengths = request.prompt.both_ways.iter().map(|range| range.end - range.start);
        match lengths.max().filter(|length| *length > self.max_step_tokens) {
            Some(length) => {
                let refused = AddError::RangeTooLong { length, limit: self.max_step_tokens };
                Err(AdmissionError::Unschedulable(refused.to_string()))
            }
            None => Ok(()),
        }
    }
}
