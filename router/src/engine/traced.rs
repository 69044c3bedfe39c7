//! What a timeline is told of requests, uploads and steps. Nothing here is done while it is off.

use std::time::{Duration, Instant};

use text_generation_scheduler::{SequenceId, StepPlan};

use super::types::{Arrival, GenerateRequest};
use crate::images::LoadedImage;
use crate::shard::{ShardSpan, ShardStep};
use crate::timeline::{Span, Timeline, Track};

/// A sequence on its way: what is known of it before its end, when all of it is told.
#[derive(Debug)]
pub(super) struct TracedRequest {
    arrival: Arrival,
    /// Stages of each.
    images: Vec<Vec<(&'static str, (Instant, Instant))>>,
    submitted: Instant,
    planned: Option<Instant>,
    first_token: Option<Instant>,
    prompt_tokens: u64,
    tokens: u64,
}

impl TracedRequest {
    pub(super) fn new(request: &GenerateRequest, submitted: Instant) -> Self {
        let arrival = request.arrival;
        let images = request.prompt.images.iter().map(|image| image_stages(image, arrival.images)).collect();
        let prompt_tokens = request.prompt.token_ids.len() as u64;
        Self { arrival, images, submitted, planned: None, first_token: None, prompt_tokens, tokens: 0 }
    }

    /// Its first step is on its way. A sequence that is started again after a preemption keeps its first one.
    pub(super) fn planned(&mut self) {
        self.planned.get_or_insert_with(Instant::now);
    }

    pub(super) fn token(&mut self) {
        self.tokens += 1;
        self.first_token.get_or_insert_with(Instant::now);
    }

    /// Tells all of it, now that it is over.
    pub(super) fn finish(self, timeline: &Timeline, id: SequenceId) {
        let (track, now) = (Track::Request(id.0), Instant::now());
        let facts = [("prompt_tokens", self.prompt_tokens), ("tokens", self.tokens)];
        timeline.add(track, "request", (self.arrival.request, now), &facts);
        timeline.add(track, "prepare", (self.arrival.request, self.submitted), &[]);
        for (index, stages) in (0..).zip(self.images) {
            for (name, times) in stages {
                timeline.add(Track::Image(id.0, index), name, times, &[]);
            }
        }
        let planned = self.planned.unwrap_or(now);
        timeline.add(track, "queue", (self.submitted, planned), &[]);
        if self.planned.is_some() {
            timeline.add(track, "first token", (planned, self.first_token.unwrap_or(now)), &[]);
        }
        if let Some(first) = self.first_token {
            timeline.add(track, "stream", (first, now), &[]);
        }
    }
}

/// What was done for an image, from its end backwards: it was decoded and resized right before it was ready.
fn image_stages(image: &LoadedImage, asked: Instant) -> Vec<(&'static str, (Instant, Instant))> {
    let times = image.timings;
    let before = |moment: Instant, duration: Duration| moment.checked_sub(duration).unwrap_or(moment).max(asked);
    let resizing = before(image.ready, times.resize);
    let decoding = before(resizing, times.decode);
    let stages = [
        ("fetch image", (asked, asked + times.fetch)),
        ("decode image", (decoding, resizing)),
        ("resize image", (resizing, image.ready)),
    ];
    stages.into_iter().filter(|(_, (began, ended))| ended > began).collect()
}

pub(super) type Facts = [(&'static str, u64); 3];

/// Numbers of a plan, for the span of its step.
pub(super) fn facts_of(plan: &StepPlan) -> Facts {
    let tokens = plan.rows.iter().map(|row| u64::from(row.num_tokens)).sum();
    [("rows", plan.rows.len() as u64), ("tokens", tokens), ("images", plan.encode_images.len() as u64)]
}

/// A step from its plan's departure until now, and what its ranks did meanwhile.
pub(super) fn finish_step(timeline: &Timeline, epoch: u64, (sent, facts): (Instant, Facts), step: &ShardStep) {
    let number = step.result.step;
    timeline.add(Track::Step(epoch, number), "step", (sent, Instant::now()), &facts);
    for &ShardSpan { rank, part, on_wire, began_ns, ended_ns } in &step.spans {
        let track = if on_wire { Track::ShardWire(rank) } else { Track::ShardCompute(rank) };
        timeline.add_measured(Span { track, name: part, began_ns, ended_ns, facts: vec![("step", number)] });
    }
}
