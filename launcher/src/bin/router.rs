//! `text-generation-router`: the router alone, for shards that somebody else started, here or on other hosts.

use std::path::PathBuf;
use std::process::ExitCode;

use text_generation_launcher::program::{block_on, start, start_logging};
use text_generation_launcher::serving::serve;
use text_generation_launcher::stop::Stop;
use text_generation_launcher::supervise::RouterStart;
use text_generation_router::Ready;
use text_generation_router::args::{RouterArgs, lines_of};
use text_generation_router::config::check;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

/// Serves HTTP in front of shards that are started by hand.
#[derive(Clone, Debug, clap::Parser)]
#[command(name = "text-generation-router", version, about, args_override_self = true)]
struct Args {
    /// The file that `text-generation-server prepare` named.
    #[arg(long, env = "PREPARED", value_name = "FILE")]
    prepared: PathBuf,

    /// Address of a shard, in rank order: `unix:/path`, or `http://host:port`. Repeatable.
    #[arg(long = "shard", env = "SHARDS", value_delimiter = ',', value_name = "ADDRESS")]
    shards: Vec<String>,

    /// Socket of the first shard.
    #[arg(long, env = "MASTER_SHARD_UDS_PATH", value_name = "PATH")]
    master_shard_uds_path: Option<PathBuf>,

    /// Accepted for compatibility, without effect.
    #[arg(long, env = "TOKENIZER_NAME", hide = true)]
    tokenizer_name: Option<String>,

    #[command(flatten)]
    router: RouterArgs,
}

impl AsMut<RouterArgs> for Args {
    fn as_mut(&mut self) -> &mut RouterArgs {
        &mut self.router
    }
}

impl Args {
    fn addresses(&self) -> Vec<String> {
        let first = self.master_shard_uds_path.iter().map(|path| format!("unix:{}", path.display()));
        first.chain(self.shards.iter().cloned()).collect()
    }

    fn not_served(&self) -> Vec<String> {
        let row = (self.tokenizer_name.is_some(), "--tokenizer-name", "the prepared file holds the tokenizer");
        [self.router.not_served(), lines_of(&[row])].concat()
    }
}

fn main() -> ExitCode {
    start(std::env::args_os(), run)
}

fn run(args: Args) -> anyhow::Result<()> {
    start_logging(&args.router.process, &args.not_served())?;
    check(&args.router)?;
    let shards = args.addresses();
    anyhow::ensure!(!shards.is_empty(), "name the shards with --shard or --master-shard-uds-path");
    block_on(serve_by_hand(args.router, args.prepared, shards))
}

async fn serve_by_hand(args: RouterArgs, prepared: PathBuf, shards: Vec<String>) -> anyhow::Result<()> {
    let stop = Stop::on_signals()?;
    let (shutdown, stop_now) = (CancellationToken::new(), CancellationToken::new());
    let (ready, announced) = oneshot::channel();
    // Nobody here can start shards anew: requests for that are dropped with their receiver.
    let (restarts, _) = mpsc::channel(1);
    let start =
        RouterStart { prepared, shards, shutdown: shutdown.clone(), stop_now: stop_now.clone(), ready, restarts };
    tokio::spawn(announce(announced));
    tokio::spawn(pass_on(stop, shutdown, stop_now));
    serve(args, None, start).await
}

async fn announce(announced: oneshot::Receiver<Ready>) {
    if let Ok(ready) = announced.await {
        tracing::info!("Ready: http://{}  model {}", ready.address, ready.model_id);
    }
}

/// The first signal asks for an orderly end, the second for an immediate one.
async fn pass_on(stop: Stop, shutdown: CancellationToken, stop_now: CancellationToken) {
    stop.asked().await;
    shutdown.cancel();
    stop.insisted().await;
    stop_now.cancel();
}
