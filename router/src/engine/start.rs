//! Bringing the engine up: connect, warm up, size the scheduler, start the step loop and the heartbeat.

use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use text_generation_scheduler::{Config, ConfigError, Scheduler, TokenId};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;

use super::deliver::Sequences;
use super::health::Monitor;
use super::metrics::StepMetrics;
use super::session::{Reconnect, Session};
use super::step_loop::StepLoop;
use super::types::RestartRequest;
use super::uploads::{Pictures, Uploads};
use super::{Engine, EngineStats, Limits, Mailbox, Shared};
use crate::families::ImageShape;
use crate::shard::{ModelFacts, ShardError, ShardGroup, WarmupSpec};
use crate::timeline::Timeline;

/// Longest time between two health checks of the shards.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(2);

/// What the engine is told at start. `None` means: choose from the model and the memory.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// gRPC addresses in rank order: `unix:/path` or `http://host:port`.
    pub shards: Vec<String>,
    /// How long shards may take to load, at start and after a restart.
    pub load_timeout: Duration,
    /// How long a step may take before the shards count as hung.
    pub step_timeout: Duration,
    /// Requests that may be in the server at once.
    pub max_concurrent_requests: u32,
    /// Most tokens of a prompt.
    pub max_input_tokens: Option<u32>,
    /// Most tokens of prompt and answer together.
    pub max_total_tokens: Option<u32>,
    /// Tokens a step may compute.
    pub max_step_tokens: u32,
    /// Cap on the KV cache, in tokens.
    pub max_kv_tokens: Option<u32>,
    /// Sequences that may run in one step.
    pub max_rows: u32,
    /// Image tokens a step may encode.
    pub max_step_image_tokens: u32,
    /// Image tokens whose embeddings stay resident.
    pub embedding_cache_tokens: u32,
    /// Tokens a KV block; the attention backend's favourite when `None`.
    pub block_size: Option<u32>,
    /// Whether equal prompt beginnings share KV blocks.
    pub prefix_caching: bool,
    /// Ids that end a sequence.
    pub end_tokens: Vec<TokenId>,
    /// The largest image the model takes.
    pub largest_image: Option<ImageShape>,
    /// Where spans of requests and steps go.
    pub timeline: Timeline,
}

/// Why the engine did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Something between router and shards.
    #[error(transparent)]
    Shard(#[from] ShardError),
    /// Limits that cannot be kept.
    #[error("{0}")]
    Limits(String),
    /// The scheduler refuses its numbers.
    #[error(transparent)]
    Scheduler(#[from] ConfigError),
}

/// Starts the engine. The task ends after [`Engine::stop`] or when lost shards stay lost. `restarts` hears when the
/// shards hang and whoever started them should start them again.
pub async fn start(
    config: EngineConfig,
    restarts: mpsc::Sender<RestartRequest>,
) -> Result<(Engine, ModelFacts, JoinHandle<()>), StartError> {
    let shards = ShardGroup::connect(&config.shards, config.load_timeout).await?;
    let facts = shards.facts().await?;
    let warmup = warmup_spec(&config, &facts)?;
    let num_blocks = shards.warm_up(&warmup).await?;
    let limits = limits(&config, &warmup, num_blocks)?;
    let scheduler = Scheduler::new(scheduler_config(&config, &warmup, num_blocks, shards.world_size() as u32))?;
    let stream = shards.open(1).await?;
    let shared = Arc::new(shared(&config, limits));
    shared.health.set_connected(true);
    let reconnect =
        Reconnect { addresses: config.shards, timeout: config.load_timeout, warmup, facts: facts.clone(), num_blocks };
    tokio::spawn(heartbeat(Arc::downgrade(&shared), shards.clone(), restarts.clone(), config.step_timeout));
    let step_loop = StepLoop {
        shared: Arc::clone(&shared),
        scheduler,
        session: Session { shards, stream },
        reconnect,
        restarts,
        step_timeout: config.step_timeout,
        sequences: Sequences::default(),
        pictures: Pictures::default(),
        uploads: Uploads::new(config.timeline.clone()),
        in_flight: std::collections::VecDeque::new(),
        metrics: StepMetrics::new(),
        restarts_seen: 0,
        timeline: config.timeline,
    };
    Ok((Engine(shared), facts, tokio::spawn(step_loop.run())))
}

fn warmup_spec(config: &EngineConfig, facts: &ModelFacts) -> Result<WarmupSpec, StartError> {
    let max_total = config.max_total_tokens.unwrap_or(facts.max_positions);
    if max_total > facts.max_positions {
        let most = facts.max_positions;
        return Err(StartError::Limits(format!("max_total_tokens is {max_total}; this model takes at most {most}")));
    }
    let block_size = match config.block_size {
        None => facts.block_sizes.first().copied().unwrap_or(16),
        Some(size) if facts.block_sizes.contains(&size) => size,
        Some(size) => {
            let known = &facts.block_sizes;
            return Err(StartError::Limits(format!("block_size is {size}; the attention backend takes {known:?}")));
        }
    };
    Ok(WarmupSpec {
        block_size,
        max_step_tokens: config.max_step_tokens,
        max_rows: config.max_rows,
        max_sequence_tokens: max_total,
        max_step_image_tokens: config.max_step_image_tokens,
        largest_image: config.largest_image.clone(),
        max_blocks: config.max_kv_tokens.map(|tokens| tokens.div_ceil(block_size)),
        embedding_cache_tokens: config.embedding_cache_tokens,
    })
}

/// The limits that requests are held to, after what the shards have room for.
fn limits(config: &EngineConfig, warmup: &WarmupSpec, num_blocks: u32) -> Result<Limits, StartError> {
    let max_kv_tokens = num_blocks.saturating_mul(warmup.block_size);
    if config.max_total_tokens.is_some_and(|total| total > max_kv_tokens) {
        let total = warmup.max_sequence_tokens;
        return Err(StartError::Limits(format!(
            "max_total_tokens is {total}; the KV cache holds {max_kv_tokens} tokens: lower --max-total-tokens, or make \
             room with --cuda-memory-fraction (on a CPU --cpu-kv-cache-mb), --max-batch-prefill-tokens or --num-shard"
        )));
    }
    let max_total_tokens = warmup.max_sequence_tokens.min(max_kv_tokens);
    let max_input_tokens = config.max_input_tokens.unwrap_or(max_total_tokens.saturating_sub(1));
    if max_input_tokens >= max_total_tokens {
        return Err(StartError::Limits(format!(
            "max_input_tokens is {max_input_tokens}; it must be less than max_total_tokens, {max_total_tokens}"
        )));
    }
    Ok(Limits {
        max_concurrent_requests: config.max_concurrent_requests,
        max_input_tokens,
        max_total_tokens,
        max_step_tokens: config.max_step_tokens,
        max_kv_tokens,
    })
}

fn scheduler_config(config: &EngineConfig, warmup: &WarmupSpec, num_blocks: u32, world_size: u32) -> Config {
    Config {
        block_size: warmup.block_size,
        num_blocks,
        max_step_tokens: config.max_step_tokens,
        max_step_image_tokens: config.max_step_image_tokens,
        max_rows: config.max_rows,
        max_sequence_tokens: warmup.max_sequence_tokens,
        embedding_cache_tokens: config.embedding_cache_tokens,
        max_pending_upload_tokens: config.embedding_cache_tokens.max(config.max_step_image_tokens),
        world_size,
        prefix_caching: config.prefix_caching,
    }
}

fn shared(config: &EngineConfig, limits: Limits) -> Shared {
    Shared {
        limits,
        end_tokens: config.end_tokens.clone().into(),
        permits: Arc::new(Semaphore::new(limits.max_concurrent_requests as usize)),
        draining: AtomicBool::new(false),
        next_sequence: AtomicU64::new(1),
        mailbox: Arc::new(Mailbox::default()),
        health: Monitor::new(),
        stats: Mutex::new(EngineStats::default()),
    }
}

/// Asks the shards for signs of life until the engine is gone. Channels reconnect by themselves after a restart.
/// Shards that are silent for `patience` although their streams are open have hung without a step to be late with.
async fn heartbeat(
    shared: Weak<Shared>,
    shards: ShardGroup,
    restarts: mpsc::Sender<RestartRequest>,
    patience: Duration,
) {
    let interval = HEARTBEAT_INTERVAL.min(patience / 4);
    loop {
        let alive = shards.healthy(interval).await;
        let Some(shared) = shared.upgrade() else { return };
        if alive {
            shared.health.beat();
        }
        let health = shared.health.report();
        drop(shared);
        if health.connected && health.heartbeat_age >= patience {
            let _ = restarts.try_send(RestartRequest::Hung);
        }
        tokio::time::sleep(interval).await;
    }
}
