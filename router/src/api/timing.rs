//! Where the time of a request went: measured once, told three times (headers, `Server-Timing`, metrics).

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderName, HeaderValue};
use metrics::{counter, histogram};

use super::feed::Usage;
use crate::images::LoadedImage;

const SERVER_TIMING: &str = "server-timing";
/// The only time in seconds.
pub(super) const COMPUTE_TIME: &str = "x-compute-time";

/// Runs from the moment the body is there.
#[derive(Clone, Debug)]
pub(super) struct Stopwatch {
    started: Instant,
    submitted: Option<Instant>,
    images: ImageTimes,
}

/// Time spent on the images of a request, all together. Images are worked on side by side, so this may be more than
/// the clock says.
#[derive(Copy, Clone, Debug, Default)]
struct ImageTimes {
    fetch: Duration,
    decode: Duration,
    resize: Duration,
}

impl Stopwatch {
    pub(super) fn start() -> Self {
        Self { started: Instant::now(), submitted: None, images: ImageTimes::default() }
    }

    pub(super) fn started(&self) -> Instant {
        self.started
    }

    pub(super) fn loaded(&mut self, images: &[LoadedImage]) {
        for image in images {
            self.images.fetch += image.timings.fetch;
            self.images.decode += image.timings.decode;
            self.images.resize += image.timings.resize;
        }
    }

    /// Validation ends here.
    pub(super) fn submitted(&mut self) {
        self.submitted = Some(Instant::now());
    }

    /// The times up to now.
    pub(super) fn read(&self, usage: &Usage) -> Timings {
        let now = Instant::now();
        let submitted = self.submitted.unwrap_or(now);
        let inference = (now - submitted).saturating_sub(usage.queue);
        Timings {
            total: now - self.started,
            validation: submitted - self.started,
            queue: usage.queue,
            inference,
            time_per_token: inference / usage.generated_tokens.max(1),
            images: self.images,
        }
    }
}

/// Where the time went. TGI's terms: validation ends when the request is queued, inference begins with its first step.
#[derive(Clone, Debug)]
pub(super) struct Timings {
    total: Duration,
    validation: Duration,
    queue: Duration,
    inference: Duration,
    time_per_token: Duration,
    images: ImageTimes,
}

impl Timings {
    /// Every time added up, as TGI reports several prompts.
    pub(super) fn sum(all: impl IntoIterator<Item = Self>) -> Option<Self> {
        all.into_iter().reduce(|sum, one| Self {
            total: sum.total + one.total,
            validation: sum.validation + one.validation,
            queue: sum.queue + one.queue,
            inference: sum.inference + one.inference,
            time_per_token: sum.time_per_token + one.time_per_token,
            images: sum.images,
        })
    }

    /// TGI's headers of a complete answer.
    pub(super) fn write_headers(&self, usage: &Usage, headers: &mut HeaderMap) {
        insert(headers, COMPUTE_TIME, &self.total.as_secs_f64().to_string());
        let milliseconds = [
            ("x-total-time", self.total),
            ("x-validation-time", self.validation),
            ("x-queue-time", self.queue),
            ("x-inference-time", self.inference),
            ("x-time-per-token", self.time_per_token),
        ];
        for (name, time) in milliseconds {
            insert(headers, name, &time.as_millis().to_string());
        }
        insert(headers, "x-prompt-tokens", &usage.prompt_tokens.to_string());
        insert(headers, "x-generated-tokens", &usage.generated_tokens.to_string());
    }

    /// The stages, for the network view of a browser.
    pub(super) fn write_server_timing(&self, headers: &mut HeaderMap) {
        let stages = [
            ("fetch", self.images.fetch),
            ("decode", self.images.decode),
            ("resize", self.images.resize),
            ("validation", self.validation),
            ("queue", self.queue),
            ("inference", self.inference),
            ("total", self.total),
        ];
        let mut text = String::new();
        for (name, time) in stages {
            let separator = if text.is_empty() { "" } else { ", " };
            // Writing to a string does not fail.
            let _ = write!(text, "{separator}{name};dur={:.3}", time.as_secs_f64() * 1e3);
        }
        insert(headers, SERVER_TIMING, &text);
    }

    /// What TGI records when a request has succeeded.
    pub(super) fn record(&self, usage: &Usage) {
        counter!("tgi_request_success").increment(1);
        histogram!("tgi_request_duration").record(self.total);
        histogram!("tgi_request_validation_duration").record(self.validation);
        histogram!("tgi_request_queue_duration").record(self.queue);
        histogram!("tgi_request_inference_duration").record(self.inference);
        histogram!("tgi_request_mean_time_per_token_duration").record(self.time_per_token);
        histogram!("tgi_request_generated_tokens").record(usage.generated_tokens);
    }
}

pub(super) fn insert(headers: &mut HeaderMap, name: &'static str, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(HeaderName::from_static(name), value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_add_up() {
        let started = Instant::now().checked_sub(Duration::from_secs(10)).unwrap();
        let submitted = Some(started + Duration::from_secs(2));
        let stopwatch = Stopwatch { started, submitted, images: ImageTimes::default() };
        let usage = Usage { queue: Duration::from_secs(3), generated_tokens: 5, ..Usage::default() };
        let timings = stopwatch.read(&usage);
        assert_eq!(timings.validation, Duration::from_secs(2));
        assert_eq!(timings.total, timings.validation + timings.queue + timings.inference);
        assert_eq!(timings.time_per_token, timings.inference / 5);
    }

    #[test]
    fn headers_hold_whole_milliseconds() {
        let mut headers = HeaderMap::new();
        let usage = Usage { prompt_tokens: 7, generated_tokens: 2, ..Usage::default() };
        Stopwatch::start().read(&usage).write_headers(&usage, &mut headers);
        for name in ["x-total-time", "x-validation-time", "x-queue-time", "x-inference-time", "x-time-per-token"] {
            assert!(headers[name].to_str().unwrap().parse::<u64>().is_ok(), "{name}");
        }
        assert_eq!(headers["x-prompt-tokens"], "7");
        assert!(headers["x-compute-time"].to_str().unwrap().parse::<f64>().is_ok());
    }

    #[test]
    fn server_timing_lists_the_stages() {
        let mut headers = HeaderMap::new();
        Stopwatch::start().read(&Usage::default()).write_server_timing(&mut headers);
        let text = headers[SERVER_TIMING].to_str().unwrap();
        assert!(text.starts_with("fetch;dur=0.000, decode;dur="), "{text}");
        assert!(text.contains("total;dur="), "{text}");
    }
}
