//! What the step loop reports. Handles are looked up once: a step is too short for name lookups.

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};
use text_generation_scheduler::{Stats, StepPlan};

use crate::shard::ShardStep;

pub(super) struct StepMetrics {
    prefill: MethodMetrics,
    decode: MethodMetrics,
    encode_duration: Histogram,
    image_tokens: Counter,
    batch_next_size: Histogram,
    batch_current_size: Gauge,
    batch_current_max_tokens: Gauge,
    queue_size: Gauge,
    preemptions: Gauge,
}

struct MethodMetrics {
    count: Counter,
    success: Counter,
    inference: Histogram,
    forward: Histogram,
}

impl MethodMetrics {
    fn new(method: &'static str) -> Self {
        Self {
            count: counter!("tgi_batch_inference_count", "method" => method),
            success: counter!("tgi_batch_inference_success", "method" => method),
            inference: histogram!("tgi_batch_inference_duration", "method" => method),
            forward: histogram!("tgi_batch_forward_duration", "method" => method),
        }
    }
}

/// What a step was for. A step with any prompt tokens counts as prefill, as TGI's mixed batches do.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(super) enum StepKind {
    Prefill,
    Decode,
}

impl StepKind {
    pub(super) fn of(plan: &StepPlan) -> Self {
        let decode = plan.rows.iter().all(|row| row.num_tokens == 1 && row.sample);
        if decode { Self::Decode } else { Self::Prefill }
    }
}

impl StepMetrics {
    pub(super) fn new() -> Self {
        Self {
            prefill: MethodMetrics::new("prefill"),
            decode: MethodMetrics::new("decode"),
            encode_duration: histogram!("tgi_image_encode_duration"),
            image_tokens: counter!("tgi_image_encoded_count"),
            batch_next_size: histogram!("tgi_batch_next_size"),
            batch_current_size: gauge!("tgi_batch_current_size"),
            batch_current_max_tokens: gauge!("tgi_batch_current_max_tokens"),
            queue_size: gauge!("tgi_queue_size"),
            preemptions: gauge!("tgi_preemptions"),
        }
    }

    pub(super) fn planned(&self, plan: &StepPlan) {
        self.method(StepKind::of(plan)).count.increment(1);
        self.image_tokens.increment(plan.encode_images.len() as u64);
        if !plan.new_sequences.is_empty() {
            self.batch_next_size.record(plan.new_sequences.len() as f64);
        }
    }

    pub(super) fn finished(&self, kind: StepKind, seconds: f64, step: &ShardStep) {
        let method = self.method(kind);
        method.success.increment(1);
        method.inference.record(seconds);
        method.forward.record(f64::from(step.compute_us) * 1e-6);
        if step.encode_us > 0 {
            self.encode_duration.record(f64::from(step.encode_us) * 1e-6);
        }
    }

    /// `kv_tokens` is what all blocks of the cache hold.
    pub(super) fn state(&self, stats: &Stats, kv_tokens: u32) {
        let held = stats.blocks_total.saturating_sub(stats.blocks_free + stats.blocks_cached);
        let share = held as f64 / stats.blocks_total.max(1) as f64;
        self.batch_current_size.set(stats.running as f64);
        self.batch_current_max_tokens.set((share * f64::from(kv_tokens)).round());
        self.queue_size.set(stats.waiting as f64);
        self.preemptions.set(stats.preemptions as f64);
    }

    fn method(&self, kind: StepKind) -> &MethodMetrics {
        match kind {
            StepKind::Prefill => &self.prefill,
            StepKind::Decode => &self.decode,
        }
    }
}

impl std::fmt::Debug for StepMetrics {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("StepMetrics")
    }
}
