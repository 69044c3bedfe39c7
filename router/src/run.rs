//! The life of a router: bind, load, serve, drain, stop.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use http::HeaderValue;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use crate::api::{self, ApiOptions, App, ModelInfo};
use crate::config::{self, LOAD_TIMEOUT, RouterConfig};
use crate::engine::{self, Engine, EngineConfig, RestartRequest};
use crate::families::{self, AskProcessor, ImageShape, VlmFamily};
use crate::grammar::{GrammarCompiler, Vocabulary};
use crate::images::ImageLoader;
use crate::prepared::PreparedModel;
use crate::prompt::PromptBuilder;
use crate::server;
use crate::shard::{ModelFacts, ShardGroup, ShardProcessor};
use crate::telemetry;

/// How often a draining router looks whether its last request is done.
const DRAIN_PAUSE: Duration = Duration::from_millis(20);

/// Time that ended streams have to write their last event.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// What whoever runs the router tells it and hears from it.
pub struct Control<S, N, R> {
    /// Completes when the router is to drain and stop.
    pub shutdown: S,
    /// Completes when it is to stop at once, draining or not; streams still get a last word.
    pub stop_now: N,
    /// Called once, when requests are served.
    pub ready: R,
    /// Hears when the shards should be restarted.
    pub restarts: mpsc::Sender<RestartRequest>,
}

/// What a ready router says about itself.
#[derive(Clone, Debug)]
pub struct Ready {
    /// Where it listens.
    pub address: SocketAddr,
    /// What it serves.
    pub model_id: String,
    /// `cpu`, `cuda:0`, …
    pub device: String,
    /// Number type of the weights.
    pub dtype: String,
}

/// Serves until told to stop. Waits for the shards first, as long as they may take to load.
///
/// # Errors
/// The port is taken, the prepared file or a flag is bad, the shards do not come up, or lost shards stay lost.
pub async fn run<S, N, R>(config: RouterConfig, control: Control<S, N, R>) -> anyhow::Result<()>
where
    S: Future<Output = ()>,
    N: Future<Output = ()>,
    R: FnOnce(Ready),
{
    let Control { shutdown, stop_now, ready, restarts } = control;
    let (mut shutdown, mut stop_now) = (std::pin::pin!(shutdown), std::pin::pin!(stop_now));
    let socket = Http::open(config.address()).await?;
    let Started { app, engine, facts, mut step_loop } = tokio::select! {
        started = start(&config, restarts) => started?,
        () = &mut shutdown => return Ok(()),
        () = &mut stop_now => return Ok(()),
    };
    tokio::spawn(telemetry::upkeep(app.metrics.clone()));
    let said = said(socket.address, &app, &facts);
    socket.serve(api::router(app));
    ready(said);
    let lost = tokio::select! {
        () = shutdown => false,
        () = &mut stop_now => false,
        _ = &mut step_loop => true,
    };
    tokio::select! {
        () = drain(&engine, config.args.process.drain_limit()) => {}
        () = stop_now => {}
    }
    engine.stop();
    socket.close().await;
    if !lost {
        // With the step loop goes the last handle on a trace, which is written then.
        let _ = tokio::time::timeout(LAST_WORDS, &mut step_loop).await;
    }
    anyhow::ensure!(!lost, "the model shards were lost and did not come back");
    Ok(())
}

/// The listening socket. It answers "loading" until it is given routes.
struct Http {
    address: SocketAddr,
    routes: Arc<OnceLock<Router>>,
    close: oneshot::Sender<()>,
    serving: JoinHandle<()>,
}

impl Http {
    async fn open(address: SocketAddr) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))?;
        let (address, routes) = (listener.local_addr()?, Arc::new(OnceLock::new()));
        let (close, closed) = oneshot::channel();
        let gate = api::while_loading(Arc::clone(&routes));
        let serving = tokio::spawn(server::serve(listener, gate, server::HttpLimits::default(), async move {
            let _ = closed.await;
        }));
        Ok(Self { address, routes, close, serving })
    }

    fn serve(&self, routes: Router) {
        // Set once, right after the start.
        let _ = self.routes.set(routes);
    }

    /// Stops accepting and lets answers under way write their last event.
    async fn close(self) {
        let _ = self.close.send(());
        let _ = tokio::time::timeout(LAST_WORDS, self.serving).await;
    }
}

fn said(address: SocketAddr, app: &App, facts: &ModelFacts) -> Ready {
    let (device, dtype) = (facts.device.clone(), facts.dtype.clone());
    Ready { address, model_id: app.model.id.clone(), device, dtype }
}

/// Refuses new requests and waits for the running ones.
async fn drain(engine: &Engine, limit: Duration) {
    engine.drain();
    let deadline = Instant::now() + limit;
    while engine.num_requests() > 0 && Instant::now() < deadline {
        sleep(DRAIN_PAUSE).await;
    }
}

struct Started {
    app: App,
    engine: Engine,
    facts: ModelFacts,
    step_loop: JoinHandle<()>,
}

async fn start(config: &RouterConfig, restarts: mpsc::Sender<RestartRequest>) -> anyhow::Result<Started> {
    let model = PreparedModel::read(&config.prepared)?;
    let (metrics, timeline) = (telemetry::init_metrics(config.metrics())?, config.timeline()?);
    let family = families::of(&model, processor(config)?)?;
    let prompts = Arc::new(PromptBuilder::new(&model, family.clone())?);
    let grammars = config
        .grammars()
        .map(|limits| Arc::new(GrammarCompiler::new(Vocabulary::of(&prompts, model.eos_token_ids.clone()), limits)));
    let images = family.clone().map(|family| image_loader(config, &model, family)).transpose()?;
    let largest_image = largest_image(config, family).await?;
    let engine_config = EngineConfig { timeline, ..config.engine(&model, largest_image) };
    let (engine, facts, step_loop) = engine::start(engine_config, restarts).await?;
    anyhow::ensure!(
        facts.model_type == model.model_type,
        "the shards hold a {} model, the prepared file is of a {} model",
        facts.model_type,
        model.model_type
    );
    let app = App {
        generator: Arc::new(engine.clone()),
        prompts,
        grammars,
        images,
        model: model_info(config, &model, &facts),
        limits: config.requests(),
        options: ApiOptions { compute_type: compute_type(&facts), ..config.api()? },
        metrics,
    };
    Ok(Started { app, engine, facts, step_loop })
}

/// The model's own processor, for a family that is none of ours.
fn processor(config: &RouterConfig) -> anyhow::Result<Arc<dyn AskProcessor>> {
    let first = config.shards.first().context("there is no shard")?;
    Ok(Arc::new(ShardProcessor::new(first)?))
}

/// The image the shards are warmed up with. A family may have to ask them: they must be up, and the asking blocks.
async fn largest_image(
    config: &RouterConfig,
    family: Option<Arc<dyn VlmFamily>>,
) -> anyhow::Result<Option<ImageShape>> {
    let Some(family) = family else { return Ok(None) };
    ShardGroup::connect(&config.shards, LOAD_TIMEOUT).await?;
    let max_pixels = config.args.images.max_image_pixels;
    Ok(tokio::task::spawn_blocking(move || config::largest_image(&*family, max_pixels)).await?)
}

fn image_loader(
    config: &RouterConfig,
    model: &PreparedModel,
    family: Arc<dyn VlmFamily>,
) -> anyhow::Result<Arc<ImageLoader>> {
    let identity = *blake3::hash(model.identity.as_bytes()).as_bytes();
    Ok(Arc::new(ImageLoader::new(family, identity, config.images(), config.fetch()?)?))
}

fn model_info(config: &RouterConfig, model: &PreparedModel, facts: &ModelFacts) -> ModelInfo {
    ModelInfo {
        id: config.model_id.clone().unwrap_or_else(|| model.model_id.clone()),
        revision: model.revision.clone(),
        dtype: Some(facts.dtype.clone()),
        device: Some(facts.device.clone()),
        pipeline_tag: facts.takes_images.then(|| "image-text-to-text".to_owned()),
        special_tokens: model.special_tokens.clone(),
        chat_template: model.chat_template.clone(),
    }
}

/// `x-compute-type`, which TGI's clients read: its own word on GPUs, the plain truth elsewhere.
fn compute_type(facts: &ModelFacts) -> HeaderValue {
    HeaderValue::from_static(if facts.device.starts_with("cuda") { "gpu+optimized" } else { "cpu" })
}
