//! A shard that computes nothing: every sampled row gets the next of a few fixed token ids at once. Benchmarks put it
//! behind a router to measure the router alone.
//!
//!     zero_cost_shard SOCKET [--vocab-size N] [--max-positions N] [--tokens 300,301,302]

use std::error::Error;
use std::pin::Pin;

use text_generation_proto as pb;
use text_generation_proto::shard_server::{Shard, ShardServer};
use tokio::net::UnixListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, UnixListenerStream};
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status, Streaming};

/// KV blocks offered when the router names no cap.
const NUM_BLOCKS: u32 = 1 << 16;

#[derive(Clone)]
struct ZeroCostShard {
    vocab_size: u32,
    max_positions: u32,
    tokens: Vec<u32>,
}

type Results = Pin<Box<dyn Stream<Item = Result<pb::StepResult, Status>> + Send>>;

#[tonic::async_trait]
impl Shard for ZeroCostShard {
    async fn get_info(&self, _: Request<pb::GetInfoRequest>) -> Result<Response<pb::ShardInfo>, Status> {
        Ok(Response::new(pb::ShardInfo {
            model_type: "fast_vlm".into(),
            dtype: "float32".into(),
            device: "none".into(),
            vocab_size: self.vocab_size,
            supported_block_sizes: vec![16],
            embedding_width: 1,
            max_positions: self.max_positions,
            rank: 0,
            world_size: 1,
            position_axes: 1,
            takes_images: true,
            attention_backend: "none".into(),
        }))
    }

    async fn warmup(&self, request: Request<pb::WarmupRequest>) -> Result<Response<pb::WarmupResult>, Status> {
        let cap = request.into_inner().max_blocks;
        let num_blocks = if cap == 0 { NUM_BLOCKS } else { cap };
        Ok(Response::new(pb::WarmupResult { num_blocks, kv_cache_bytes: 0 }))
    }

    async fn put_image(
        &self,
        request: Request<Streaming<pb::ImageChunk>>,
    ) -> Result<Response<pb::PutImageResult>, Status> {
        let mut chunks = request.into_inner();
        while chunks.message().await?.is_some() {}
        Ok(Response::new(pb::PutImageResult {}))
    }

    async fn layout_image(
        &self,
        _: Request<pb::LayoutImageRequest>,
    ) -> Result<Response<pb::LayoutImageResult>, Status> {
        Err(Status::failed_precondition("the router lays out this model's images"))
    }

    type RunStream = Results;

    async fn run(&self, request: Request<Streaming<pb::StepPlan>>) -> Result<Response<Results>, Status> {
        let (sender, receiver) = mpsc::channel(4);
        let (mut plans, shard) = (request.into_inner(), self.clone());
        tokio::spawn(async move {
            while let Some(Ok(plan)) = plans.next().await {
                if sender.send(Ok(shard.step(&plan))).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}

impl ZeroCostShard {
    fn step(&self, plan: &pb::StepPlan) -> pb::StepResult {
        let sample = pb::RowFlag::Sample as u32;
        let rows = plan.row_flags.iter().enumerate().filter(|(_, flags)| *flags & sample != 0);
        let sampled: Vec<usize> = rows.map(|(row, _)| row).collect();
        let token = |row: usize| {
            let position = plan.row_start[row] + plan.row_num_tokens[row];
            self.tokens[position as usize % self.tokens.len()]
        };
        pb::StepResult {
            epoch: plan.epoch,
            step: plan.step,
            sampled_sequence: sampled.iter().map(|&row| plan.row_sequence[row]).collect(),
            sampled_token: sampled.iter().map(|&row| token(row)).collect(),
            sampled_logprob: vec![-0.5; sampled.len()],
            ..Default::default()
        }
    }
}

/// The value after a flag, or its default.
fn option<T: std::str::FromStr>(name: &str, default: T) -> T {
    let mut args = std::env::args().skip_while(|arg| arg != name);
    args.nth(1).and_then(|value| value.parse().ok()).unwrap_or(default)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let socket = std::env::args().nth(1).ok_or("usage: zero_cost_shard SOCKET [--vocab-size N] [--tokens a,b]")?;
    let tokens: String = option("--tokens", "300,301,302,303".into());
    let shard = ZeroCostShard {
        vocab_size: option("--vocab-size", 2304),
        max_positions: option("--max-positions", 2048),
        tokens: tokens.split(',').map(str::parse).collect::<Result<_, _>>()?,
    };
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_service_status("", tonic_health::ServingStatus::Serving).await;
    let incoming = UnixListenerStream::new(UnixListener::bind(socket)?);
    let limit = pb::MAX_MESSAGE_BYTES;
    let service = ShardServer::new(shard).max_decoding_message_size(limit).max_encoding_message_size(limit);
    tonic::transport::Server::builder()
        .add_service(health_service)
        .add_service(service)
        .serve_with_incoming(incoming)
        .await?;
    Ok(())
}
