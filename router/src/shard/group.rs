//! Every rank of one model, connected.

use std::time::Duration;

use futures::future::try_join_all;
use text_generation_proto as pb;
use tokio::time::{Instant, sleep};
use tonic::transport::{Channel, Endpoint};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use super::{ShardError, StepStream};
use crate::families::{ImageShape, ImageSize};

/// Pause between two attempts to reach a shard that is still loading.
const CONNECT_PAUSE: Duration = Duration::from_millis(20);

/// The name the shard registers with the standard health service.
const HEALTH_SERVICE: &str = "";

/// Client of one rank.
pub(super) type Client = pb::shard_client::ShardClient<Channel>;

/// The ranks of one model, in rank order.
#[derive(Clone, Debug)]
pub struct ShardGroup {
    channels: Vec<Channel>,
}

/// What the shards loaded; equal on every rank.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelFacts {
    /// `model_type` of the checkpoint.
    pub model_type: String,
    /// Number type of weights and KV cache.
    pub dtype: String,
    /// Device of rank 0.
    pub device: String,
    /// Rows of the output head.
    pub vocab_size: u32,
    /// Tokens a KV block may hold, best first.
    pub block_sizes: Vec<u32>,
    /// Longest sequence the model was made for.
    pub max_positions: u32,
    /// Whether the model has a vision encoder.
    pub takes_images: bool,
    /// Name of the attention backend.
    pub attention: String,
}

/// The largest step the router will ever send.
#[derive(Clone, Debug)]
pub struct WarmupSpec {
    /// Tokens a KV block.
    pub block_size: u32,
    /// Largest sum of tokens of a step.
    pub max_step_tokens: u32,
    /// Most rows of a step.
    pub max_rows: u32,
    /// Longest prompt plus answer.
    pub max_sequence_tokens: u32,
    /// Largest sum of image tokens encoded in a step.
    pub max_step_image_tokens: u32,
    /// The largest image; `None` for a text model.
    pub largest_image: Option<ImageShape>,
    /// Cap on KV blocks; `None` leaves it to the memory.
    pub max_blocks: Option<u32>,
    /// Image tokens whose embeddings may be resident at once.
    pub embedding_cache_tokens: u32,
}

impl ShardGroup {
    /// Connects to every rank, trying again until `timeout` is over: shards load while the router waits.
    pub async fn connect(addresses: &[String], timeout: Duration) -> Result<Self, ShardError> {
        let deadline = Instant::now() + timeout;
        let ranks = addresses.iter().enumerate().map(|(rank, address)| connect_rank(rank, address, deadline));
        Ok(Self { channels: try_join_all(ranks).await? })
    }

    /// Number of ranks.
    pub fn world_size(&self) -> usize {
        self.channels.len()
    }

    /// A client of one rank.
    pub(super) fn client(&self, rank: usize) -> Client {
        pb::shard_client::ShardClient::new(self.channels[rank].clone())
            .max_decoding_message_size(pb::MAX_MESSAGE_BYTES)
            .max_encoding_message_size(pb::MAX_MESSAGE_BYTES)
    }

    /// Asks every rank what it loaded and checks that they agree.
    pub async fn facts(&self) -> Result<ModelFacts, ShardError> {
        let infos = try_join_all((0..self.world_size()).map(|rank| self.info(rank))).await?;
        let mut facts = Vec::with_capacity(infos.len());
        for (rank, info) in infos.into_iter().enumerate() {
            if (info.rank as usize, info.world_size as usize) != (rank, self.world_size()) {
                let (is, of) = (info.rank, info.world_size);
                return Err(ShardError::Disagree(format!("address {rank} answers as rank {is} of {of}")));
            }
            facts.push(ModelFacts::from(info));
        }
        let first = facts.swap_remove(0);
        let same = |other: &ModelFacts| ModelFacts { device: first.device.clone(), ..other.clone() } == first;
        if facts.iter().all(same) {
            Ok(first)
        } else {
            Err(ShardError::Disagree("ranks loaded different models".into()))
        }
    }

    async fn info(&self, rank: usize) -> Result<pb::ShardInfo, ShardError> {
        let answer = self.client(rank).get_info(pb::GetInfoRequest {}).await;
        Ok(answer.map_err(refused(rank, "GetInfo"))?.into_inner())
    }

    /// Runs the worst case on every rank; the answer is the number of KV blocks that every rank has.
    pub async fn warm_up(&self, spec: &WarmupSpec) -> Result<u32, ShardError> {
        let calls = (0..self.world_size()).map(|rank| {
            let (mut client, request) = (self.client(rank), warmup_request(spec));
            async move { client.warmup(request).await.map_err(refused(rank, "Warmup")) }
        });
        let results = try_join_all(calls).await?;
        Ok(results.into_iter().map(|result| result.into_inner().num_blocks).min().unwrap_or(0))
    }

    /// Opens the step stream of every rank under a new epoch.
    pub async fn open(&self, epoch: u64) -> Result<StepStream, ShardError> {
        StepStream::open(self, epoch).await
    }

    /// Whether every rank says that it is serving, within `timeout`.
    pub async fn healthy(&self, timeout: Duration) -> bool {
        let checks = self.channels.iter().map(|channel| async move {
            let request = HealthCheckRequest { service: HEALTH_SERVICE.into() };
            let answer = HealthClient::new(channel.clone()).check(request).await;
            answer.is_ok_and(|answer| answer.into_inner().status() == ServingStatus::Serving)
        });
        let all = futures::future::join_all(checks);
        tokio::time::timeout(timeout, all).await.is_ok_and(|ranks| ranks.into_iter().all(|serving| serving))
    }
}

impl From<pb::ShardInfo> for ModelFacts {
    fn from(info: pb::ShardInfo) -> Self {
        Self {
            model_type: info.model_type,
            dtype: info.dtype,
            device: info.device,
            vocab_size: info.vocab_size,
            block_sizes: info.supported_block_sizes,
            max_positions: info.max_positions,
            takes_images: info.takes_images,
            attention: info.attention_backend,
        }
    }
}

async fn connect_rank(rank: usize, address: &str, deadline: Instant) -> Result<Channel, ShardError> {
    let unreachable = |reason: String| ShardError::Unreachable { rank, reason };
    let endpoint = Endpoint::from_shared(address.to_owned()).map_err(|error| unreachable(error.to_string()))?;
    let endpoint = endpoint.connect_timeout(Duration::from_secs(5));
    loop {
        match endpoint.connect().await {
            Ok(channel) => return Ok(channel),
            Err(error) if Instant::now() >= deadline => return Err(unreachable(error.to_string())),
            Err(_) => sleep(CONNECT_PAUSE).await,
        }
    }
}

fn warmup_request(spec: &WarmupSpec) -> pb::WarmupRequest {
    pb::WarmupRequest {
        block_size: spec.block_size,
        max_step_tokens: spec.max_step_tokens,
        max_rows: spec.max_rows,
        max_sequence_tokens: spec.max_sequence_tokens,
        max_step_image_tokens: spec.max_step_image_tokens,
        largest_image: spec.largest_image.as_ref().map(image_header),
        max_blocks: spec.max_blocks.unwrap_or(0),
        embedding_cache_tokens: spec.embedding_cache_tokens.into(),
    }
}

fn image_header(image: &ImageShape) -> pb::ImageHeader {
    let size = |size: &ImageSize| pb::ViewSize { width: size.width, height: size.height };
    pb::ImageHeader {
        key: Vec::new().into(),
        original_width: image.size.width,
        original_height: image.size.height,
        views: image.views.iter().map(size).collect(),
        num_tokens: image.num_tokens,
    }
}

pub(super) fn refused(rank: usize, call: &'static str) -> impl FnOnce(tonic::Status) -> ShardError {
    move |status| ShardError::Refused { rank, call, reason: status.message().to_owned() }
}
