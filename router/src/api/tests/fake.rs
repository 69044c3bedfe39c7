//! A generator that plays scripts. Its tokens are bytes, so that a script is written as text.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use text_generation_scheduler::{FinishReason, TokenId};

use crate::api::{Admission, Generator, Tokens};
use crate::engine::{
    AdmissionError, EngineStats, GenerateRequest, GeneratedToken, GenerationError, Health, Limits, PromptToken,
    StreamEvent,
};

/// The id of `</s>`, the first behind the bytes.
pub(super) const END: TokenId = 256;

/// What the fake says in the place of one sequence.
#[derive(Clone, Debug, Default)]
pub(super) struct Script {
    events: VecDeque<StreamEvent>,
    /// Whether the stream stays open after the last event.
    hangs: bool,
}

impl Script {
    /// One token a byte, without an end.
    pub(super) fn text(text: &str) -> Self {
        let events = text.bytes().map(|byte| StreamEvent::Token(token(byte.into(), None)));
        Self { events: events.collect(), hangs: false }
    }

    /// This token in front.
    pub(super) fn after(mut self, id: TokenId) -> Self {
        self.events.push_front(StreamEvent::Token(token(id, None)));
        self
    }

    /// The text, then the end token.
    pub(super) fn ended(text: &str) -> Self {
        let mut script = Self::text(text);
        script.events.push_back(StreamEvent::Token(token(END, Some(FinishReason::EndOfSequence))));
        script
    }

    /// The text, the last token of which is the last that was allowed.
    pub(super) fn cut(text: &str) -> Self {
        let mut script = Self::text(text);
        if let Some(StreamEvent::Token(last)) = script.events.back_mut() {
            last.finish = Some(FinishReason::Length);
        }
        script
    }

    /// A scored prompt in front: less and less probable, with the letter `z` in every place but the first.
    pub(super) fn scoring(mut self, prompt: &[TokenId]) -> Self {
        let token = |(index, &id): (usize, &TokenId)| PromptToken {
            id,
            logprob: (index > 0).then_some(index as f32 * -0.25),
            top: if index > 0 { vec![(122, -0.125)] } else { Vec::new() },
        };
        self.events.push_front(StreamEvent::Prompt(prompt.iter().enumerate().map(token).collect()));
        self
    }

    /// A failure instead of more tokens.
    pub(super) fn then_fails(mut self, error: GenerationError) -> Self {
        self.events.push_back(StreamEvent::Failed(error));
        self
    }

    /// Silence instead of more tokens.
    pub(super) fn then_hangs(self) -> Self {
        Self { hangs: true, ..self }
    }

    /// Every token with this log-probability.
    pub(super) fn with_logprob(mut self, logprob: f32) -> Self {
        self.each_token(|token| token.logprob = logprob);
        self
    }

    /// Every token with these alternatives.
    pub(super) fn with_top(mut self, top: &[(TokenId, f32)]) -> Self {
        self.each_token(|token| token.top = top.to_vec());
        self
    }

    fn each_token(&mut self, change: impl Fn(&mut GeneratedToken)) {
        for event in &mut self.events {
            if let StreamEvent::Token(token) = event {
                change(token);
            }
        }
    }
}

fn token(id: TokenId, finish: Option<FinishReason>) -> GeneratedToken {
    GeneratedToken { id, logprob: -0.5, top: Vec::new(), finish }
}

/// Plays its scripts in order and remembers what it was asked.
#[derive(Default)]
pub(super) struct Fake {
    pub(super) scripts: Mutex<VecDeque<Script>>,
    pub(super) requests: Mutex<Vec<GenerateRequest>>,
    /// Sequences that nobody has dropped.
    pub(super) live: Arc<AtomicU32>,
    pub(super) taken: Arc<AtomicU32>,
    pub(super) max_concurrent: u32,
    pub(super) unhealthy: AtomicBool,
    pub(super) draining: AtomicBool,
}

impl Fake {
    pub(super) fn playing(scripts: impl IntoIterator<Item = Script>) -> Arc<Self> {
        let scripts = Mutex::new(scripts.into_iter().collect());
        Arc::new(Self { scripts, max_concurrent: 8, ..Self::default() })
    }

    pub(super) fn request(&self, index: usize) -> GenerateRequest {
        self.requests.lock().unwrap()[index].clone()
    }

    pub(super) fn num_requests(&self) -> usize {
        self.requests.lock().unwrap().len()
    }

    pub(super) fn live(&self) -> u32 {
        self.live.load(Ordering::SeqCst)
    }
}

/// Shared by fake and test.
pub(super) struct Handle(pub(super) Arc<Fake>);

impl Generator for Handle {
    fn admit(&self) -> Result<Box<dyn Admission>, AdmissionError> {
        if self.0.draining.load(Ordering::SeqCst) {
            return Err(AdmissionError::Draining);
        }
        let permit = Counted::new(&self.0.taken);
        if self.0.taken.load(Ordering::SeqCst) > self.0.max_concurrent {
            return Err(AdmissionError::Overloaded);
        }
        Ok(Box::new(Permit { fake: Arc::clone(&self.0), permit }))
    }

    fn health(&self) -> Health {
        let connected = !self.0.unhealthy.load(Ordering::SeqCst);
        Health { connected, heartbeat_age: Duration::ZERO, steps: 0 }
    }

    fn is_draining(&self) -> bool {
        self.0.draining.load(Ordering::SeqCst)
    }

    fn limits(&self) -> Limits {
        Limits {
            max_concurrent_requests: self.0.max_concurrent,
            max_input_tokens: 2000,
            max_total_tokens: 3000,
            max_step_tokens: 100,
            max_kv_tokens: 4000,
        }
    }

    fn stats(&self) -> EngineStats {
        EngineStats::default()
    }
}

/// Counts itself while it lives.
struct Counted(Arc<AtomicU32>);

impl Counted {
    fn new(counter: &Arc<AtomicU32>) -> Self {
        counter.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(counter))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

struct Permit {
    fake: Arc<Fake>,
    permit: Counted,
}

impl Admission for Permit {
    fn submit(self: Box<Self>, request: GenerateRequest) -> Result<Box<dyn Tokens>, AdmissionError> {
        let (prompt_tokens, image_tokens) = (request.prompt.token_ids.len() as u32, request.prompt.image_tokens());
        if prompt_tokens > 2000 {
            return Err(AdmissionError::PromptTooLong { prompt: prompt_tokens, limit: 2000 });
        }
        self.fake.requests.lock().unwrap().push(request);
        let next = self.fake.scripts.lock().unwrap().pop_front();
        let script = next.expect("a script for every sequence");
        let alive = Counted::new(&self.fake.live);
        Ok(Box::new(Playing { script, prompt_tokens, image_tokens, _permit: self.permit, _alive: alive }))
    }
}

struct Playing {
    script: Script,
    prompt_tokens: u32,
    image_tokens: u32,
    _permit: Counted,
    _alive: Counted,
}

impl Tokens for Playing {
    fn next(&mut self) -> BoxFuture<'_, Option<StreamEvent>> {
        match self.script.events.pop_front() {
            None if self.script.hangs => futures::future::pending().boxed(),
            event => futures::future::ready(event).boxed(),
        }
    }

    fn queue_time(&self) -> Duration {
        Duration::ZERO
    }

    fn prompt_tokens(&self) -> u32 {
        self.prompt_tokens
    }

    fn image_tokens(&self) -> u32 {
        self.image_tokens
    }

    fn cached_tokens(&self) -> u32 {
        3
    }
}
