//! The step loop: one task that owns the scheduler and talks to the shards, always one step ahead.
//!
//! A turn takes what clients posted, starts uploads the scheduler wants, sends plans until two steps are in flight,
//! then waits for whatever happens first. When the shards are lost, started sequences fail, the rest wait for
//! the shards to come back under a new epoch.

use std::collections::VecDeque;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use text_generation_scheduler::{Event, ImageKey, MAX_STEPS_IN_FLIGHT, NewSequence, Scheduler, SequenceId};
use tokio::sync::mpsc;

use super::Shared;
use super::deliver::{Delivered, Live, Sequences, generated};
use super::mailbox::{Command, Submission};
use super::metrics::{StepKind, StepMetrics};
use super::scores::PromptScores;
use super::session::{Reconnect, Session};
use super::traced::{self, TracedRequest};
use super::types::{GenerateRequest, GenerationError, RestartRequest};
use super::uploads::{Pictures, Uploads};
use crate::shard::{EncodedSequence, SequenceFailure, ShardError, ShardStep, encode_plan};
use crate::timeline::Timeline;

/// Everything that one step loop owns.
#[derive(Debug)]
pub(super) struct StepLoop {
    pub(super) shared: Arc<Shared>,
    pub(super) scheduler: Scheduler,
    pub(super) session: Session,
    pub(super) reconnect: Reconnect,
    pub(super) restarts: mpsc::Sender<RestartRequest>,
    pub(super) step_timeout: Duration,
    pub(super) sequences: Sequences,
    pub(super) pictures: Pictures,
    pub(super) uploads: Uploads,
    pub(super) in_flight: VecDeque<InFlight>,
    pub(super) metrics: StepMetrics,
    pub(super) restarts_seen: u64,
    pub(super) timeline: Timeline,
}

/// A plan whose result has not come yet.
#[derive(Debug)]
pub(super) struct InFlight {
    kind: StepKind,
    sent: Instant,
    /// While a timeline is kept.
    facts: Option<traced::Facts>,
}

/// Why [`StepLoop::serve`] came back.
enum Exit {
    Stopped,
    Lost(ShardError),
}

impl StepLoop {
    /// Runs until [`Command::Stop`], or until lost shards do not come back.
    pub(super) async fn run(mut self) {
        while let Exit::Lost(error) = self.serve().await {
            tracing::error!(%error, "lost the model shards");
            if !self.recover().await {
                break;
            }
        }
        self.shared.health.set_connected(false);
        self.shared.mailbox.close();
        self.fail_all(&GenerationError::ShuttingDown);
    }

    async fn serve(&mut self) -> Exit {
        loop {
            if self.take_commands() {
                return Exit::Stopped;
            }
            if let Err(error) = self.advance().await {
                return Exit::Lost(error);
            }
            let timeout = self.step_deadline();
            tokio::select! {
                step = self.session.stream.next() => match step {
                    Ok(step) => self.finish_step(step),
                    Err(error) => return Exit::Lost(error),
                },
                (key, failure) = self.uploads.next() => self.finish_upload(key, failure),
                () = self.shared.mailbox.arrived() => {}
                () = timeout => return Exit::Lost(self.hung()),
            }
        }
    }

    /// Takes what clients posted; `true` when the loop is to stop.
    fn take_commands(&mut self) -> bool {
        for command in self.shared.mailbox.take() {
            match command {
                Command::Submit(submission) => self.add(*submission),
                Command::Abort(id) => drop(self.drop_sequence(id)),
                Command::Stop => return true,
            }
        }
        false
    }

    fn add(&mut self, submission: Submission) {
        let Submission { sequence, request, max_new_tokens, sender, progress, submitted } = submission;
        let new = new_sequence(sequence, &request, max_new_tokens, &self.shared);
        let traced = self.timeline.is_on().then(|| Box::new(TracedRequest::new(&request, submitted)));
        let images: Vec<ImageKey> = new.images.iter().map(|image| image.key).collect();
        let banned = if request.ignore_eos { self.shared.end_tokens.to_vec() } else { Vec::new() };
        let needs_prompt = new.score_prompt || request.sampling.needs_prompt();
        let encoded = EncodedSequence {
            sampling: request.sampling,
            prompt: if needs_prompt { new.prompt.clone() } else { Vec::new() },
            prompt_num_top: request.score_prompt,
            banned,
            grammar: request.grammar,
            max_new_tokens,
        };
        let scores = new.score_prompt.then(|| PromptScores::new(&new.prompt));
        let live = Live { sender, progress, submitted, encoded, images, scores, traced };
        for spec in &new.images {
            // The same picture twice in a prompt is one image with two placeholders.
            if let Some(image) = request.prompt.images.iter().find(|image| image.key == spec.key) {
                self.pictures.hold(image, spec.num_tokens);
            }
        }
        self.sequences.insert(sequence, live);
        if let Err(error) = self.scheduler.add(new) {
            self.fail(sequence, GenerationError::Failed(error.to_string()));
        }
    }

    /// Starts uploads and sends plans until neither asks for more of the other: a plan that was not made for want of
    /// an evicted embedding wants its pixels again, and waiting without having asked for them would be for ever.
    async fn advance(&mut self) -> Result<(), ShardError> {
        self.start_uploads();
        self.send_steps().await?;
        while self.start_uploads() {
            self.send_steps().await?;
        }
        Ok(())
    }

    /// Whether there was anything to start.
    fn start_uploads(&mut self) -> bool {
        let wanted = self.scheduler.take_uploads();
        for &(key, rank) in &wanted {
            if !self.uploads.start(&self.session.shards, &self.pictures, key, rank) {
                self.image_failed(key);
            }
        }
        !wanted.is_empty()
    }

    fn finish_upload(&mut self, key: ImageKey, failure: Option<String>) {
        match failure {
            None => self.scheduler.image_ready(key),
            Some(reason) => {
                tracing::warn!(reason, "an image did not reach its shard");
                self.image_failed(key);
            }
        }
    }

    fn image_failed(&mut self, key: ImageKey) {
        let events = self.scheduler.image_failed(key);
        self.handle(events, None);
    }

    async fn send_steps(&mut self) -> Result<(), ShardError> {
        while self.in_flight.len() < MAX_STEPS_IN_FLIGHT {
            let Some(plan) = self.scheduler.schedule() else { break };
            for &id in &plan.new_sequences {
                if let Some(live) = self.sequences.get_mut(id) {
                    live.start(self.scheduler.cached_tokens(id).unwrap_or(0));
                }
            }
            let describe = |id| self.sequences.get(id).map(|live| &live.encoded);
            let encoded = encode_plan(&plan, self.session.stream.epoch(), self.timeline.is_on(), describe);
            self.metrics.planned(&plan);
            let facts = self.timeline.is_on().then(|| traced::facts_of(&plan));
            self.in_flight.push_back(InFlight { kind: StepKind::of(&plan), sent: Instant::now(), facts });
            self.session.stream.send(encoded).await?;
        }
        Ok(())
    }

    fn finish_step(&mut self, mut step: ShardStep) {
        let events = self.scheduler.commit(&step.result);
        self.sequences.score(std::mem::take(&mut step.scores));
        if let Some(sent) = self.in_flight.pop_front() {
            self.metrics.finished(sent.kind, sent.sent.elapsed().as_secs_f64(), &step);
            if let Some(facts) = sent.facts {
                traced::finish_step(&self.timeline, self.session.stream.epoch(), (sent.sent, facts), &step);
            }
        }
        self.handle(events, Some(&mut step));
        self.publish();
    }

    fn handle(&mut self, events: Vec<Event>, mut step: Option<&mut ShardStep>) {
        for event in events {
            match (event, step.as_deref_mut()) {
                (Event::Token { sequence, sampled_index, finish }, Some(step)) => {
                    let token = generated(step, sampled_index, finish);
                    match self.sequences.token(sequence, token) {
                        Delivered::Running => {}
                        Delivered::Over | Delivered::Unread => drop(self.drop_sequence(sequence)),
                        Delivered::Unscored => self.fail(sequence, unscored()),
                    }
                }
                (Event::Failed { sequence }, Some(step)) => self.fail(sequence, failure(step, sequence)),
                (Event::ImageFailed { sequence }, _) => {
                    self.fail(sequence, GenerationError::Failed("an image could not be passed to the model".into()));
                }
                (Event::Lost { sequence }, _) => self.fail(sequence, GenerationError::ShardLost),
                (Event::Token { .. } | Event::Failed { .. }, None) => {}
            }
        }
    }

    /// Tells the scheduler and forgets the pictures. Harmless for a sequence that is already over.
    fn drop_sequence(&mut self, id: SequenceId) -> Option<Live> {
        let mut live = self.sequences.remove(id)?;
        self.scheduler.abort(id);
        if let Some(traced) = live.traced.take() {
            traced.finish(&self.timeline, id);
        }
        for &key in &live.images {
            self.pictures.release(key);
        }
        Some(live)
    }

    fn fail(&mut self, id: SequenceId, error: GenerationError) {
        if let Some(live) = self.drop_sequence(id) {
            live.fail(error);
        }
    }

    fn fail_all(&mut self, error: &GenerationError) {
        for id in self.sequences.ids() {
            self.fail(id, error.clone());
        }
    }

    fn publish(&self) {
        let steps = self.shared.health.count_step();
        let stats = self.scheduler.stats();
        self.metrics.state(&stats, self.shared.limits.max_kv_tokens);
        let mut shared = self.shared.stats.lock().unwrap_or_else(PoisonError::into_inner);
        *shared = super::EngineStats { scheduler: stats, steps, shard_restarts: self.restarts_seen };
    }

    /// Completes when the oldest step in flight is overdue; a hung process keeps its socket open.
    fn step_deadline(&self) -> impl Future<Output = ()> + use<> {
        let deadline = self.in_flight.front().map(|step| step.sent + self.step_timeout);
        async move {
            match deadline {
                Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
                None => std::future::pending().await,
            }
        }
    }

    fn hung(&self) -> ShardError {
        let _ = self.restarts.try_send(RestartRequest::Hung);
        ShardError::Lost { rank: 0, reason: format!("no result within {} s", self.step_timeout.as_secs()) }
    }

    /// Fails what had started and waits for the shards; `false` when they do not come back.
    async fn recover(&mut self) -> bool {
        self.shared.health.set_connected(false);
        self.in_flight.clear();
        self.uploads = Uploads::new(self.timeline.clone());
        let events = self.scheduler.lose_shard();
        self.handle(events, None);
        self.publish();
        let epoch = self.session.stream.epoch() + 1;
        let reconnect = self.reconnect.clone();
        let mut coming_back = std::pin::pin!(reconnect.session(epoch));
        loop {
            tokio::select! {
                session = &mut coming_back => return self.resume(session),
                // Clients that leave meanwhile must not wait for the shards.
                () = self.shared.mailbox.arrived() => if self.take_commands() { return false },
            }
        }
    }

    fn resume(&mut self, session: Result<Session, ShardError>) -> bool {
        match session {
            Ok(session) => {
                self.session = session;
                self.restarts_seen += 1;
                self.shared.health.set_connected(true);
                tracing::info!("the model shards are back");
                true
            }
            Err(error) => {
                tracing::error!(%error, "the model shards did not come back");
                false
            }
        }
    }
}

fn unscored() -> GenerationError {
    GenerationError::Failed("the model left tokens of the prompt without a score".into())
}

fn failure(step: &ShardStep, sequence: SequenceId) -> GenerationError {
    let reason = step.reasons.iter().find(|(failed, _)| *failed == sequence).map(|(_, reason)| reason);
    match reason {
        Some(SequenceFailure::OutOfMemory) => GenerationError::OutOfMemory,
        Some(SequenceFailure::Failed(message)) => GenerationError::Failed(message.clone()),
        None => GenerationError::Failed("the model gave the request up".into()),
    }
}

fn new_sequence(id: SequenceId, request: &GenerateRequest, max_new_tokens: u32, shared: &Shared) -> NewSequence {
    let prompt = &request.prompt;
    NewSequence {
        id,
        prompt: prompt.token_ids.clone(),
        placeholders: prompt.placeholders.clone(),
        images: prompt.image_specs(),
        positions: prompt.positions.clone(),
        both_ways: prompt.both_ways.clone(),
        max_new_tokens,
        end_tokens: if request.ignore_eos { Arc::from([]) } else { Arc::clone(&shared.end_tokens) },
        cache_salt: 0,
        score_prompt: request.score_prompt.is_some(),
    }
}
