//! Metrics: how they are set up, and every metric's name, kind, meaning and buckets. What is recorded when is
//! decided where it happens. Nothing here is ever sent anywhere.

use std::time::Duration;

use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};

/// How often samples of histograms are folded into buckets when nobody scrapes.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

/// Why telemetry could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// Something in this process records already, or a table of buckets is empty.
    #[error("metrics cannot be set up: {0}")]
    Metrics(#[from] BuildError),
}

/// The tables that buckets depend on.
#[derive(Copy, Clone, Debug)]
pub struct MetricLimits {
    /// Longest prompt.
    pub max_input_tokens: u32,
    /// Longest prompt and answer together.
    pub max_total_tokens: u32,
}

/// Starts recording for the whole process; what comes back renders `/metrics`. Every metric is there from now on, at
/// zero, so that alerts find it.
pub fn init_metrics(limits: MetricLimits) -> Result<PrometheusHandle, TelemetryError> {
    let handle = builder(limits)?.install_recorder()?;
    register();
    Ok(handle)
}

/// Folds samples into buckets until the task is dropped; without it they would pile up between scrapes.
pub async fn upkeep(handle: PrometheusHandle) {
    let mut interval = tokio::time::interval(UPKEEP_INTERVAL);
    loop {
        interval.tick().await;
        handle.run_upkeep();
    }
}

fn builder(limits: MetricLimits) -> Result<PrometheusBuilder, BuildError> {
    let mut builder = PrometheusBuilder::new();
    for histogram in HISTOGRAMS {
        let buckets = histogram.buckets.table(limits);
        builder = builder.set_buckets_for_metric(Matcher::Full(histogram.name.to_owned()), &buckets)?;
    }
    Ok(builder)
}

/// What a histogram counts, and with it its buckets.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
enum Buckets {
    /// Seconds, from 0.15 ms up in 35 steps of half as much again.
    Duration,
    /// Tokens of a prompt.
    Input,
    /// Tokens of prompt and answer.
    Total,
    /// Sequences of a batch.
    Batch,
    /// Tokens beyond the first of a step.
    Skipped,
}

impl Buckets {
    fn table(self, limits: MetricLimits) -> Vec<f64> {
        match self {
            Self::Duration => (0..35).map(|step| 1.5e-4 * 1.5f64.powi(step)).collect(),
            Self::Input => linear(limits.max_input_tokens),
            Self::Total => linear(limits.max_total_tokens),
            Self::Batch => (1..=1024).map(f64::from).collect(),
            Self::Skipped => (0..=16).map(f64::from).collect(),
        }
    }

    fn unit(self) -> Unit {
        if self == Self::Duration { Unit::Seconds } else { Unit::Count }
    }
}

/// A hundred steps up to `max`.
fn linear(max: u32) -> Vec<f64> {
    (1..=100).map(|step| f64::from(max.max(1)) / 100.0 * f64::from(step)).collect()
}

struct Histogram {
    name: &'static str,
    buckets: Buckets,
    /// Values of its `method` label; none has no label.
    methods: &'static [&'static str],
    text: &'static str,
}

const fn seconds(name: &'static str, text: &'static str) -> Histogram {
    Histogram { name, buckets: Buckets::Duration, methods: &[], text }
}

const fn tokens(name: &'static str, buckets: Buckets, text: &'static str) -> Histogram {
    Histogram { name, buckets, methods: &[], text }
}

const fn step_seconds(name: &'static str, methods: &'static [&'static str], text: &'static str) -> Histogram {
    Histogram { name, buckets: Buckets::Duration, methods, text }
}

/// The values of the `method` label.
const METHODS: &[&str] = &["prefill", "decode"];
/// The values of the `err` label.
const FAILURES: &[&str] = &["overloaded", "validation", "incomplete", "template", "generation", "dropped"];
/// The values of the `reason` label.
const CONCATENATIONS: &[&str] = &["backpressure", "wait_exceeded", "chunking"];

const HISTOGRAMS: &[Histogram] = &[
    seconds("tgi_request_duration", "Whole time of a request"),
    seconds("tgi_request_validation_duration", "Time until a request was queued, images included"),
    seconds("tgi_request_queue_duration", "Time from queue to first step"),
    seconds("tgi_request_inference_duration", "Time from first step to last token"),
    seconds("tgi_request_mean_time_per_token_duration", "Inference time per generated token"),
    seconds("tgi_time_to_first_token_duration", "Time from request to first token"),
    seconds("tgi_inter_token_duration", "Time between two tokens of a sequence"),
    tokens("tgi_request_generated_tokens", Buckets::Total, "Generated tokens of a request"),
    tokens("tgi_request_input_length", Buckets::Input, "Prompt tokens of a request, images included"),
    tokens("tgi_request_max_new_tokens", Buckets::Total, "Most tokens a request may generate"),
    tokens("tgi_request_skipped_tokens", Buckets::Skipped, "Tokens accepted in a step beyond the first"),
    tokens("tgi_batch_next_size", Buckets::Batch, "Sequences that joined in a step"),
    step_seconds("tgi_batch_inference_duration", METHODS, "Time of a step as the router sees it"),
    step_seconds("tgi_batch_forward_duration", METHODS, "Time of a step's forward pass"),
    step_seconds("tgi_batch_decode_duration", METHODS, "Time of a step's sampling"),
    step_seconds("tgi_batch_filter_duration", METHODS, "Always empty: there is no batch to filter"),
    step_seconds("tgi_batch_concat_duration", &["decode"], "Always empty: there is no batch to concatenate"),
    seconds("tgi_image_fetch_duration", "Download time of an image"),
    seconds("tgi_image_decode_duration", "Decode time of an image"),
    seconds("tgi_image_resize_duration", "Resize time of an image"),
    seconds("tgi_image_encode_duration", "Vision encoder time of a step"),
];

struct Counter {
    name: &'static str,
    /// Its label and the values that may have; none has no label.
    label: Option<(&'static str, &'static [&'static str])>,
    text: &'static str,
}

const fn count(name: &'static str, text: &'static str) -> Counter {
    Counter { name, label: None, text }
}

const fn count_by(
    name: &'static str,
    label: &'static str,
    values: &'static [&'static str],
    text: &'static str,
) -> Counter {
    Counter { name, label: Some((label, values)), text }
}

const COUNTERS: &[Counter] = &[
    count("tgi_request_count", "Requests that came in"),
    count("tgi_request_success", "Requests that were answered"),
    count_by("tgi_request_failure", "err", FAILURES, "Requests that were not answered"),
    count_by("tgi_batch_inference_count", "method", METHODS, "Steps begun"),
    count_by("tgi_batch_inference_success", "method", METHODS, "Steps finished"),
    count_by("tgi_batch_inference_failure", "method", METHODS, "Steps lost"),
    count_by("tgi_batch_concat", "reason", CONCATENATIONS, "Always zero: there is no batch to concatenate"),
    count("tgi_image_count", "Images of requests"),
    count("tgi_image_bytes", "Encoded bytes of images that came inline"),
    count("tgi_image_pixels", "Pixels of images before resizing"),
    count("tgi_image_tokens", "Prompt tokens that stand for images"),
    count("tgi_image_cache_hits", "Images that needed no decoding"),
    count("tgi_image_encoded_count", "Images that went through the vision encoder"),
    count("tgi_image_embedding_hits", "Images whose embedding the shard still had"),
    count("tgi_image_embedding_misses", "Images whose embedding the shard did not have"),
    count("tgi_prompt_tokens", "Prompt tokens of started sequences"),
    count("tgi_prefix_cache_hit_tokens", "Prompt tokens that came from the prefix cache"),
];

const GAUGES: &[(&str, &str)] = &[
    ("tgi_queue_size", "Sequences that wait for their first step"),
    ("tgi_batch_current_size", "Sequences that run"),
    ("tgi_batch_current_max_tokens", "Tokens in the KV cache of sequences that run"),
    ("tgi_batch_max_total_tokens", "Tokens the KV cache holds"),
    ("tgi_batch_total_tokens", "Tokens the KV cache holds"),
    ("tgi_kv_cache_usage", "Share of the KV cache in use"),
    ("tgi_preemptions", "Sequences sent back to the queue for want of KV blocks"),
];

/// Makes every metric visible at zero.
fn register() {
    for metric in HISTOGRAMS {
        describe_histogram!(metric.name, metric.buckets.unit(), metric.text);
        if metric.methods.is_empty() {
            let _ = histogram!(metric.name);
        }
        for method in metric.methods {
            let _ = histogram!(metric.name, "method" => *method);
        }
    }
    for metric in COUNTERS {
        describe_counter!(metric.name, metric.text);
        match metric.label {
            None => counter!(metric.name).absolute(0),
            Some((label, values)) => values.iter().for_each(|value| counter!(metric.name, label => *value).absolute(0)),
        }
    }
    for (name, text) in GAUGES {
        describe_gauge!(*name, *text);
        gauge!(*name).set(0.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: MetricLimits = MetricLimits { max_input_tokens: 1000, max_total_tokens: 2000 };

    fn rendered() -> String {
        let recorder = builder(LIMITS).unwrap().build_recorder();
        let handle = recorder.handle();
        metrics::with_local_recorder(&recorder, register);
        handle.render()
    }

    #[test]
    fn every_metric_is_there_from_the_start() {
        let text = rendered();
        for metric in HISTOGRAMS {
            assert!(text.contains(&format!("# TYPE {} histogram", metric.name)), "{}", metric.name);
            assert!(text.contains(&format!("{}_bucket", metric.name)), "{}", metric.name);
        }
        let counters = COUNTERS.iter().map(|metric| (metric.name, "counter"));
        for (name, kind) in counters.chain(GAUGES.iter().map(|(name, _)| (*name, "gauge"))) {
            assert!(text.contains(&format!("# TYPE {name} {kind}")), "{name}");
        }
        assert!(text.contains("tgi_request_failure{err=\"dropped\"} 0"), "{text}");
        assert!(text.contains("tgi_request_duration_count 0"), "{text}");
    }

    #[test]
    fn names_are_not_changed_on_the_way() {
        // The exporter can add `_total` to counters; dashboards of TGI would not find them.
        assert!(!rendered().contains("_total "));
    }

    #[test]
    fn bucket_tables_are_those_of_tgi() {
        let durations = Buckets::Duration.table(LIMITS);
        assert_eq!(durations.len(), 35);
        assert!((durations[1] - 2.25e-4).abs() < 1e-9);
        assert_eq!(Buckets::Input.table(LIMITS).last(), Some(&1000.0));
        assert_eq!(Buckets::Total.table(LIMITS).len(), 100);
        assert_eq!(Buckets::Batch.table(LIMITS).len(), 1024);
    }
}
