//! Arguments turned into what the parts of the router need: the last place that knows flags, the first that knows
//! the model.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;

use crate::api::{ApiKey, ApiOptions, RequestLimits};
use crate::args::RouterArgs;
use crate::engine::EngineConfig;
use crate::families::{ImageShape, ImageSize, VlmFamily};
use crate::grammar::GrammarLimits;
use crate::images::{FetchPolicy, ImageLimits};
use crate::prepared::PreparedModel;
use crate::telemetry::MetricLimits;
use crate::timeline::Timeline;

/// How long shards may take to load the model.
pub(crate) const LOAD_TIMEOUT: Duration = Duration::from_mins(30);
/// Tokens of a step when no flag says otherwise.
const DEFAULT_STEP_TOKENS: u32 = 4096;
/// Sequences of a step when no flag says otherwise.
const DEFAULT_ROWS: u32 = 256;
/// Image tokens of a step when no flag says otherwise.
const DEFAULT_STEP_IMAGE_TOKENS: u32 = 4096;
/// Image tokens whose embeddings stay resident when no flag says otherwise.
const DEFAULT_EMBEDDING_CACHE_TOKENS: u32 = 16_384;
/// Names a server on loopback answers to, so that a web page cannot reach it under a name of its own.
const LOOPBACK_HOSTS: [&str; 3] = ["localhost", "127.0.0.1", "[::1]"];
/// Top of the length buckets when no flag limits lengths: metrics are set up before the shards say what they hold.
const DEFAULT_METRIC_TOKENS: u32 = 8192;

/// A router's settings.
#[derive(Debug)]
pub struct RouterConfig {
    /// The parsed flags.
    pub args: RouterArgs,
    /// The file that `text-generation-server prepare` wrote.
    pub prepared: PathBuf,
    /// gRPC addresses of the shards in rank order.
    pub shards: Vec<String>,
    /// The name users know the model by.
    pub model_id: Option<String>,
}

impl RouterConfig {
    /// Where to listen.
    pub fn address(&self) -> SocketAddr {
        self.args.listen.socket_address()
    }

    /// Where spans of requests and steps go.
    ///
    /// # Errors
    /// The file of `--trace` cannot be written.
    pub(crate) fn timeline(&self) -> anyhow::Result<Timeline> {
        let Some(file) = &self.args.process.trace else { return Ok(Timeline::default()) };
        Timeline::into_file(file).with_context(|| format!("--trace {}", file.display()))
    }

    pub(crate) fn engine(&self, model: &PreparedModel, largest_image: Option<ImageShape>) -> EngineConfig {
        let (limits, scheduling) = (&self.args.limits, &self.args.scheduling);
        EngineConfig {
            shards: self.shards.clone(),
            load_timeout: LOAD_TIMEOUT,
            step_timeout: self.args.process.shard_timeout(),
            max_concurrent_requests: limits.max_concurrent_requests as u32,
            max_input_tokens: limits.max_input_tokens(),
            max_total_tokens: limits.max_total_tokens,
            max_step_tokens: scheduling.max_batch_prefill_tokens.unwrap_or(DEFAULT_STEP_TOKENS),
            max_kv_tokens: scheduling.max_batch_total_tokens,
            max_rows: scheduling.max_batch_size.unwrap_or(DEFAULT_ROWS),
            max_step_image_tokens: scheduling.max_step_image_tokens.unwrap_or(DEFAULT_STEP_IMAGE_TOKENS),
            embedding_cache_tokens: scheduling.embedding_cache_tokens.unwrap_or(DEFAULT_EMBEDDING_CACHE_TOKENS),
            block_size: scheduling.block_size,
            prefix_caching: scheduling.prefix_caching,
            end_tokens: model.eos_token_ids.clone(),
            largest_image,
            timeline: Timeline::default(),
        }
    }

    pub(crate) fn metrics(&self) -> MetricLimits {
        let max_total_tokens = self.args.limits.max_total_tokens.unwrap_or(DEFAULT_METRIC_TOKENS);
        let max_input_tokens = self.args.limits.max_input_tokens().unwrap_or(max_total_tokens);
        MetricLimits { max_input_tokens, max_total_tokens }
    }

    pub(crate) fn images(&self) -> ImageLimits {
        let images = &self.args.images;
        ImageLimits {
            max_images: images.max_images_per_request,
            max_bytes: images.max_image_fetch_size as u64,
            max_pixels: images.max_image_pixels,
            media_timeout: images.fetch_timeout(),
            cache_bytes: images.image_cache_bytes,
            ..ImageLimits::default()
        }
    }

    pub(crate) fn fetch(&self) -> anyhow::Result<FetchPolicy> {
        fetch_policy(&self.args)
    }

    pub(crate) fn api(&self) -> anyhow::Result<ApiOptions> {
        api_options(&self.args)
    }

    /// `None`: every grammar is refused.
    pub(crate) fn grammars(&self) -> Option<GrammarLimits> {
        let limits = &self.args.limits;
        (!limits.disable_grammar_support).then(|| GrammarLimits {
            max_bytes: limits.max_grammar_bytes,
            time_limit: Duration::from_millis(limits.grammar_timeout_ms),
            ..GrammarLimits::default()
        })
    }

    pub(crate) fn requests(&self) -> RequestLimits {
        let limits = &self.args.limits;
        RequestLimits {
            max_best_of: limits.max_best_of as u32,
            max_stop_sequences: limits.max_stop_sequences,
            max_top_n_tokens: limits.max_top_n_tokens,
            prefill_logprobs: limits.enable_prefill_logprobs,
            max_client_batch_size: limits.max_client_batch_size,
            payload_limit: limits.payload_limit,
            ..RequestLimits::default()
        }
    }
}

/// Whether every flag can be used. Asked before a model is downloaded or loaded for it.
///
/// # Errors
/// Names the flag and what is wrong with it.
pub fn check(args: &RouterArgs) -> anyhow::Result<()> {
    fetch_policy(args)?;
    api_options(args)?;
    Ok(())
}

fn fetch_policy(args: &RouterArgs) -> anyhow::Result<FetchPolicy> {
    let allow = args.images.image_allow_address.iter().map(|target| target.parse());
    let allow = allow.collect::<Result<_, _>>().context("--image-allow-address")?;
    Ok(FetchPolicy { enabled: !args.images.disable_image_fetch, allow, ..FetchPolicy::default() })
}

fn api_options(args: &RouterArgs) -> anyhow::Result<ApiOptions> {
    let listen = &args.listen;
    let key = listen.api_key()?.map(|key| ApiKey::new(key.reveal()));
    let origins = listen.cors_allow_origin.iter().map(|origin| origin.parse());
    let on_loopback = listen.socket_address().ip().is_loopback();
    Ok(ApiOptions {
        api_keys: key.into_iter().collect(),
        cors_allow_origin: origins.collect::<Result<_, _>>().context("--cors-allow-origin")?,
        allowed_hosts: if on_loopback { LOOPBACK_HOSTS.map(str::to_owned).into() } else { Vec::new() },
        ..ApiOptions::default()
    })
}

/// What costs the encoder the most among images within the limits. Blocks: a family may have to ask the shards.
pub(crate) fn largest_image(family: &dyn VlmFamily, max_pixels: u64) -> Option<ImageShape> {
    let sides = family.probe_sides();
    let images = sides.iter().flat_map(|&width| sides.iter().map(move |&height| ImageSize::new(width, height)));
    let layouts =
        images.filter(|size| size.pixels() <= max_pixels).filter_map(|size| Some((size, family.layout(size).ok()?)));
    let (size, layout) = layouts.max_by_key(|(size, layout)| layout.cost(*size))?;
    let views = layout.views.iter().filter_map(|view| view.output(size)).collect();
    Some(ImageShape { size, views, num_tokens: layout.num_tokens() })
}
