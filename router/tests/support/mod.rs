//! A shard over a real unix socket whose answers a test writes down. It can be killed and started again.

use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use text_generation_proto as pb;
use text_generation_proto::image_piece::Piece;
use text_generation_proto::shard_server::{Shard, ShardServer};
use tokio::net::UnixListener;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, UnixListenerStream};
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status, Streaming};
use tonic_health::ServingStatus;

/// What the shard does with every step.
#[derive(Clone, Debug)]
pub(crate) struct Script {
    /// Time a step takes.
    pub(crate) step: Duration,
    /// Sequences whose prompt holds this token fail.
    pub(crate) poison: Option<u32>,
    /// Never answer a step.
    pub(crate) hang: bool,
    /// Leave prompts without scores.
    pub(crate) unscored: bool,
    /// Say on the health service that nothing is served.
    pub(crate) ill: bool,
}

impl Default for Script {
    fn default() -> Self {
        Self { step: Duration::from_millis(1), poison: None, hang: false, unscored: false, ill: false }
    }
}

/// What the shard was told, for tests to look at.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) forgotten: Vec<u64>,
    pub(crate) images: Vec<Vec<u8>>,
    pub(crate) encoded: Vec<Vec<u8>>,
    pub(crate) layouts: Vec<(u32, u32)>,
    /// Row, offset and length of each.
    pub(crate) both_ways: Vec<(u32, u32, u32)>,
    pub(crate) max_rows: usize,
    pub(crate) steps: u64,
}

#[derive(Clone)]
struct Scripted {
    script: Script,
    seen: Arc<Mutex<Seen>>,
}

/// A running shard. Dropping it kills it: its runtime goes, and every connection with it.
pub(crate) struct ScriptedShard {
    runtime: Option<Runtime>,
    socket: PathBuf,
    pub(crate) seen: Arc<Mutex<Seen>>,
}

impl ScriptedShard {
    pub(crate) fn start(socket: &Path, script: Script) -> Self {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let shard = Scripted { script, seen: Arc::clone(&seen) };
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = std::os::unix::net::UnixListener::bind(socket).unwrap();
        listener.set_nonblocking(true).unwrap();
        runtime.spawn(serve(listener, shard));
        Self { runtime: Some(runtime), socket: socket.to_owned(), seen }
    }
}

impl Drop for ScriptedShard {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
        let _ = std::fs::remove_file(&self.socket);
    }
}

async fn serve(listener: std::os::unix::net::UnixListener, shard: Scripted) {
    let (health, health_service) = tonic_health::server::health_reporter();
    let status = if shard.script.ill { ServingStatus::NotServing } else { ServingStatus::Serving };
    health.set_service_status("", status).await;
    let incoming = UnixListenerStream::new(UnixListener::from_std(listener).unwrap());
    let router = tonic::transport::Server::builder().add_service(health_service).add_service(ShardServer::new(shard));
    router.serve_with_incoming(incoming).await.unwrap();
}

type Results = Pin<Box<dyn Stream<Item = Result<pb::StepResult, Status>> + Send>>;

#[tonic::async_trait]
impl Shard for Scripted {
    async fn get_info(&self, _: Request<pb::GetInfoRequest>) -> Result<Response<pb::ShardInfo>, Status> {
        Ok(Response::new(pb::ShardInfo {
            model_type: "fast_vlm".into(),
            dtype: "float32".into(),
            device: "none".into(),
            vocab_size: 1000,
            supported_block_sizes: vec![4],
            embedding_width: 1,
            max_positions: 256,
            world_size: 1,
            position_axes: 1,
            takes_images: true,
            ..Default::default()
        }))
    }

    async fn warmup(&self, request: Request<pb::WarmupRequest>) -> Result<Response<pb::WarmupResult>, Status> {
        let cap = request.into_inner().max_blocks;
        Ok(Response::new(pb::WarmupResult { num_blocks: if cap == 0 { 256 } else { cap }, kv_cache_bytes: 0 }))
    }

    async fn put_image(
        &self,
        request: Request<Streaming<pb::ImageChunk>>,
    ) -> Result<Response<pb::PutImageResult>, Status> {
        let mut chunks = request.into_inner();
        while let Some(chunk) = chunks.message().await? {
            if let Some(header) = chunk.header {
                self.seen.lock().unwrap().images.push(header.key.to_vec());
            }
        }
        Ok(Response::new(pb::PutImageResult {}))
    }

    /// As many tokens as columns between two markers; taller images than wide ones are refused, empty ones never asked.
    async fn layout_image(
        &self,
        request: Request<pb::LayoutImageRequest>,
    ) -> Result<Response<pb::LayoutImageResult>, Status> {
        let pb::LayoutImageRequest { width, height } = request.into_inner();
        self.seen.lock().unwrap().layouts.push((width, height));
        if height > width {
            return Ok(Response::new(pb::LayoutImageResult { refused: true, ..Default::default() }));
        }
        let text = |text: &str| pb::ImagePiece { piece: Some(Piece::Text(text.to_owned())) };
        let tokens = pb::ImagePiece { piece: Some(Piece::NumTokens(width)) };
        Ok(Response::new(pb::LayoutImageResult { pieces: vec![text("["), tokens, text("]")], refused: false }))
    }

    type RunStream = Results;

    async fn run(&self, request: Request<Streaming<pb::StepPlan>>) -> Result<Response<Results>, Status> {
        let (sender, receiver) = mpsc::channel(4);
        let (mut plans, shard) = (request.into_inner(), self.clone());
        tokio::spawn(async move {
            while let Some(Ok(plan)) = plans.next().await {
                tokio::time::sleep(shard.script.step).await;
                if !shard.script.hang && sender.send(Ok(shard.step(&plan))).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}

impl Scripted {
    /// Every row that samples gets the token `100 + its length`.
    fn step(&self, plan: &pb::StepPlan) -> pb::StepResult {
        self.note(plan);
        let mut result = pb::StepResult { epoch: plan.epoch, step: plan.step, ..Default::default() };
        let mut ids = plan.token_ids.chunks_exact(4).map(|id| u32::from_le_bytes(id.try_into().unwrap()));
        for row in 0..plan.row_sequence.len() {
            let sampled = plan.row_flags[row] & pb::RowFlag::UseSampledToken as u32 != 0;
            let count = if sampled { 0 } else { plan.row_num_tokens[row] as usize };
            let tokens: Vec<u32> = ids.by_ref().take(count).collect();
            if self.script.poison.is_some_and(|poison| tokens.contains(&poison)) {
                let (sequence, message) = (plan.row_sequence[row], "poisoned".to_owned());
                result.failures.push(pb::SequenceFailure { sequence, message, ..Default::default() });
                continue;
            }
            if plan.row_flags[row] & pb::RowFlag::Score as u32 != 0 && !self.script.unscored {
                score(&mut result, plan, row);
            }
            if plan.row_flags[row] & pb::RowFlag::Sample as u32 != 0 {
                result.sampled_sequence.push(plan.row_sequence[row]);
                result.sampled_token.push(100 + plan.row_start[row] + plan.row_num_tokens[row]);
                result.sampled_logprob.push(-1.0);
            }
        }
        result
    }

    fn note(&self, plan: &pb::StepPlan) {
        let mut seen = self.seen.lock().unwrap();
        seen.steps += 1;
        seen.max_rows = seen.max_rows.max(plan.row_sequence.len());
        seen.forgotten.extend(&plan.forget_sequences);
        let ranges = plan.both_ways_offset.iter().zip(&plan.both_ways_length);
        seen.both_ways
            .extend(plan.both_ways_row.iter().zip(ranges).map(|(row, (offset, length))| (*row, *offset, *length)));
        seen.encoded.extend(plan.encode_images.iter().map(|image| image.key.to_vec()));
    }
}

/// The log-probability of a token is less the further behind it is.
fn score(result: &mut pb::StepResult, plan: &pb::StepPlan, row: usize) {
    let (start, count) = (plan.row_start[row], plan.row_num_tokens[row]);
    result.scored_sequence.push(plan.row_sequence[row]);
    result.scored_first.push(start + 1);
    result.scored_num_tokens.push(count);
    result.scored_num_top.push(1);
    for token in start + 1..=start + count {
        result.prompt_logprob.push(-(token as f32));
        result.prompt_top_token.push(token);
        result.prompt_top_logprob.push(-0.5);
    }
}
