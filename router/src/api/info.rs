//! What the server says about itself: `/info`, `/metrics`.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_TYPE, HeaderValue};
use metrics::{counter, gauge};
use serde::Serialize;
use utoipa::ToSchema;

use super::Api;
use super::openapi::Refusals;
use crate::images::ImageLimits;

/// The format of `/metrics`.
const PROMETHEUS_TEXT: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

/// TGI's fields, then ours.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Info {
    /// Hub id or path.
    model_id: String,
    /// Hub revision.
    model_sha: Option<String>,
    /// `float32`, `bfloat16`, …
    model_dtype: Option<String>,
    /// `cpu`, `cuda:0`, …
    model_device_type: Option<String>,
    /// The Hub's task name for the model.
    model_pipeline_tag: Option<String>,
    /// Requests beyond these are refused with 429.
    max_concurrent_requests: u32,
    /// Most sequences of a request.
    max_best_of: u32,
    /// Most stop strings of a request.
    max_stop_sequences: usize,
    /// Most alternatives listed for a token.
    max_top_n_tokens: u32,
    /// Most tokens of a prompt.
    max_input_tokens: u32,
    /// Most tokens of prompt and answer together.
    max_total_tokens: u32,
    /// Tokenizer threads.
    validation_workers: u32,
    /// Most prompts of a `/v1/completions` request.
    max_client_batch_size: usize,
    /// Name of the program.
    router: &'static str,
    /// Its version.
    version: &'static str,
    /// The commit it was built from, where that is known.
    sha: Option<&'static str>,
    /// Label of its container, where there is one.
    docker_label: Option<&'static str>,
    /// Whether the model takes images.
    takes_images: bool,
    /// Most bytes of a body.
    payload_limit: usize,
    /// Most messages of a conversation.
    max_messages: usize,
    /// Most parts of all its messages together.
    max_parts: usize,
    /// Most tools of a request.
    max_tools: usize,
    /// Most bytes of a grammar or schema; null if they are not served.
    max_grammar_bytes: Option<usize>,
    /// What may be asked of images; null if the model takes none.
    image_limits: Option<ImageBounds>,
}

/// Limits on the images of a request. Whatever is beyond one is refused with a 422.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ImageLimits)]
struct ImageBounds {
    /// Images.
    max_images: usize,
    /// Encoded bytes of one image.
    max_bytes: u64,
    /// Encoded bytes of all of them.
    max_request_bytes: u64,
    /// Pixels of one image.
    max_pixels: u64,
    /// Pixels of all of them.
    max_request_pixels: u64,
    /// Width and height of one image.
    max_side: u32,
    /// Seconds for fetching and decoding them all.
    timeout_seconds: u64,
}

impl From<&ImageLimits> for ImageBounds {
    fn from(limits: &ImageLimits) -> Self {
        Self {
            max_images: limits.max_images,
            max_bytes: limits.max_bytes,
            max_request_bytes: limits.max_request_bytes,
            max_pixels: limits.max_pixels,
            max_request_pixels: limits.max_request_pixels,
            max_side: limits.max_side,
            timeout_seconds: limits.media_timeout.as_secs(),
        }
    }
}

/// The model and the limits of the server.
#[utoipa::path(
    get, path = "/info", tag = "Server",
    responses((status = 200, description = "What the server says about itself.", body = Info), Refusals),
)]
pub(super) async fn info(State(api): State<Arc<Api>>) -> Json<Info> {
    let (model, limits, engine) = (&api.model, &api.limits, api.generator.limits());
    Json(Info {
        model_id: model.id.clone(),
        model_sha: model.revision.clone(),
        model_dtype: model.dtype.clone(),
        model_device_type: model.device.clone(),
        model_pipeline_tag: model.pipeline_tag.clone(),
        max_concurrent_requests: engine.max_concurrent_requests,
        max_best_of: limits.max_best_of,
        max_stop_sequences: limits.max_stop_sequences,
        max_top_n_tokens: limits.max_top_n_tokens,
        max_input_tokens: engine.max_input_tokens,
        max_total_tokens: engine.max_total_tokens,
        validation_workers: api.options.validation_workers,
        max_client_batch_size: limits.max_client_batch_size,
        router: env!("CARGO_PKG_NAME"),
        version: env!("CARGO_PKG_VERSION"),
        sha: None,
        docker_label: None,
        takes_images: api.images.is_some(),
        payload_limit: limits.payload_limit,
        max_messages: limits.max_messages,
        max_parts: limits.max_parts,
        max_tools: limits.max_tools,
        max_grammar_bytes: api.grammars.as_ref().map(|grammars| grammars.limits().max_bytes),
        image_limits: api.images.as_ref().map(|images| images.limits().into()),
    })
}

/// What nobody counts as it happens is looked up when somebody asks.
fn snapshot(api: &Api) {
    let (limits, stats) = (api.generator.limits(), api.generator.stats().scheduler);
    gauge!("tgi_batch_max_total_tokens").set(limits.max_kv_tokens);
    gauge!("tgi_batch_total_tokens").set(limits.max_kv_tokens);
    let used = stats.blocks_total.saturating_sub(stats.blocks_free + stats.blocks_cached);
    gauge!("tgi_kv_cache_usage").set(used as f64 / stats.blocks_total.max(1) as f64);
    counter!("tgi_prefix_cache_hit_tokens").absolute(stats.prefix_hit_tokens);
    counter!("tgi_image_embedding_hits").absolute(stats.image_hits);
    counter!("tgi_image_embedding_misses").absolute(stats.image_misses);
}

/// Counters and histograms in the text format of Prometheus.
#[utoipa::path(
    get, path = "/metrics", tag = "Server",
    responses((status = 200, description = "Metrics.", body = String, content_type = "text/plain")),
)]
pub(super) async fn metrics(State(api): State<Arc<Api>>) -> Response {
    snapshot(&api);
    let mut response = api.metrics.render().into_response();
    response.headers_mut().insert(CONTENT_TYPE, PROMETHEUS_TEXT);
    response
}
