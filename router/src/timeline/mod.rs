//! What happened when, for a person to look at: spans of requests, steps and shards on the one clock of the machine,
//! written as Chrome trace events (`docs/operations.md`). Off, it costs a branch.
//!
//! Spans are kept in memory, bounded, and written when the last handle goes: a shard that died, or a router that is cut
//! short, leaves a whole file.

mod write;

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use nix::time::{ClockId, clock_gettime};

/// Spans kept at most, about 100 bytes each; what comes after them is counted and left out.
pub const MAX_SPANS: usize = 1_000_000;

/// Where spans go: nowhere, or into a file at the end. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Timeline(Option<Arc<Recorder>>);

/// One thing that took time.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Span {
    /// On which line it is drawn.
    pub track: Track,
    /// What it was.
    pub name: &'static str,
    /// Its begin, in nanoseconds of `CLOCK_MONOTONIC`.
    pub began_ns: u64,
    /// Its end.
    pub ended_ns: u64,
    /// What else is to be known of it.
    pub facts: Vec<(&'static str, u64)>,
}

/// Lines of the picture. Spans of one request, upload or step lie within each other; those of a shard's thread follow
/// each other.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub enum Track {
    /// A sequence, by its number.
    Request(u64),
    /// An image of a request, by the request's number and its own place: images are worked on side by side.
    Image(u64, u32),
    /// Pixels on their way, by a number of their own.
    Upload(u64),
    /// A step, by epoch and number.
    Step(u64, u64),
    /// What a rank does with messages.
    ShardWire(u32),
    /// What a rank computes.
    ShardCompute(u32),
}

#[derive(Debug)]
struct Recorder {
    /// The same moment on both clocks.
    anchor: (Instant, u64),
    kept: Mutex<Kept>,
    file: File,
}

#[derive(Debug, Default)]
struct Kept {
    spans: Vec<Span>,
    left_out: u64,
}

impl Timeline {
    /// A timeline that ends in this file, which is made now: a path that cannot be written is told at the start.
    pub fn into_file(path: &Path) -> io::Result<Self> {
        let file = File::create(path)?;
        let anchor = (Instant::now(), monotonic_ns()?);
        Ok(Self(Some(Arc::new(Recorder { anchor, kept: Mutex::default(), file }))))
    }

    /// Whether anything is kept.
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Keeps a span between two moments of this process.
    pub fn add(
        &self,
        track: Track,
        name: &'static str,
        (began, ended): (Instant, Instant),
        facts: &[(&'static str, u64)],
    ) {
        let Some(recorder) = &self.0 else { return };
        let (began_ns, ended_ns) = (recorder.ns(began), recorder.ns(ended));
        recorder.keep(Span { track, name, began_ns, ended_ns, facts: facts.to_vec() });
    }

    /// Keeps a span that another process measured.
    pub fn add_measured(&self, span: Span) {
        if let Some(recorder) = &self.0 {
            recorder.keep(span);
        }
    }
}

impl Recorder {
    fn ns(&self, moment: Instant) -> u64 {
        let (anchor, anchor_ns) = self.anchor;
        let after = moment.saturating_duration_since(anchor).as_nanos() as u64;
        let before = anchor.saturating_duration_since(moment).as_nanos() as u64;
        (anchor_ns + after).saturating_sub(before)
    }

    fn keep(&self, span: Span) {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).push(span, MAX_SPANS);
    }
}

impl Kept {
    fn push(&mut self, span: Span, most: usize) {
        if self.spans.len() < most {
            self.spans.push(span);
            return;
        }
        self.left_out += 1;
        if self.left_out == 1 {
            tracing::warn!("the trace is full with {most} spans; nothing more is kept");
        }
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        let kept = self.kept.get_mut().unwrap_or_else(PoisonError::into_inner);
        match write::write(&self.file, &kept.spans, kept.left_out) {
            Ok(()) => tracing::info!("the trace of {} spans is written", kept.spans.len()),
            Err(error) => tracing::error!(%error, "the trace could not be written"),
        }
    }
}

/// What `Instant` counts, with its zero: the clock that Python's `perf_counter_ns` reads too.
fn monotonic_ns() -> io::Result<u64> {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC)?;
    Ok(now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64)
}

#[cfg(test)]
mod tests;
