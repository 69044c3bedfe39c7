//! The seam between routes and the engine: what a route needs in order to turn a prompt into tokens. Routes hold it as
//! a trait so that their tests can script tokens; outside tests the engine is the only implementation.

use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;

use crate::engine::{
    AdmissionError, Engine, EngineStats, GenerateRequest, Health, Limits, Permit, StreamEvent, TokenStream,
};

/// Where tokens come from.
pub trait Generator: Send + Sync {
    /// Leave to submit one sequence: at once or not at all.
    fn admit(&self) -> Result<Box<dyn Admission>, AdmissionError>;
    /// Whether requests can be expected to finish.
    fn health(&self) -> Health;
    /// Whether new requests are refused because the server is about to stop.
    fn is_draining(&self) -> bool;
    /// The limits every request is held to.
    fn limits(&self) -> Limits;
    /// A snapshot after the latest step.
    fn stats(&self) -> EngineStats;
}

/// Leave to submit one sequence.
pub trait Admission: Send {
    /// Hands a sequence over; dropping what comes back cancels it.
    fn submit(self: Box<Self>, request: GenerateRequest) -> Result<Box<dyn Tokens>, AdmissionError>;
}

/// The tokens of one sequence, in order. Dropping it cancels the sequence.
pub trait Tokens: Send + Sync {
    /// The next event; `None` after the last one. Cancel safe.
    fn next(&mut self) -> BoxFuture<'_, Option<StreamEvent>>;
    /// Time from submission to the first step; zero before that step.
    fn queue_time(&self) -> Duration;
    /// Tokens of the prompt, images included.
    fn prompt_tokens(&self) -> u32;
    /// Tokens of the prompt that stand for images.
    fn image_tokens(&self) -> u32;
    /// Tokens of the prompt that came from the prefix cache.
    fn cached_tokens(&self) -> u32;
}

impl Generator for Engine {
    fn admit(&self) -> Result<Box<dyn Admission>, AdmissionError> {
        let permit = Engine::admit(self)?;
        Ok(Box::new(EngineAdmission { engine: self.clone(), permit }))
    }

    fn health(&self) -> Health {
        Engine::health(self)
    }

    fn is_draining(&self) -> bool {
        Engine::is_draining(self)
    }

    fn limits(&self) -> Limits {
        Engine::limits(self)
    }

    fn stats(&self) -> EngineStats {
        Engine::stats(self)
    }
}

struct EngineAdmission {
    engine: Engine,
    permit: Permit,
}

impl Admission for EngineAdmission {
    fn submit(self: Box<Self>, request: GenerateRequest) -> Result<Box<dyn Tokens>, AdmissionError> {
        Ok(Box::new(self.engine.submit(self.permit, request)?))
    }
}

impl Tokens for TokenStream {
    fn next(&mut self) -> BoxFuture<'_, Option<StreamEvent>> {
        TokenStream::next(self).boxed()
    }

    fn queue_time(&self) -> Duration {
        TokenStream::queue_time(self)
    }

    fn prompt_tokens(&self) -> u32 {
        TokenStream::prompt_tokens(self)
    }

    fn image_tokens(&self) -> u32 {
        TokenStream::image_tokens(self)
    }

    fn cached_tokens(&self) -> u32 {
        TokenStream::cached_tokens(self)
    }
}
