//! The spine: shards and router up, then whatever comes first: requests are answered, a shard ends or hangs, the router
//! ends, or somebody asks to stop.

use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use text_generation_router::Ready;
use text_generation_router::engine::RestartRequest;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinError, JoinHandle};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::command::{Seat, ServerProgram};
use crate::error::LaunchError;
use crate::group::{Exit, ShardGroup};
use crate::preflight::free_port;
use crate::progress::ProgressBoard;
use crate::restarts::RestartBudget;
use crate::spawner::Spawner;
use crate::stop::Stop;

/// How long shards have to end before they are killed. They hold nothing that needs saving.
const SHARD_PATIENCE: Duration = Duration::from_secs(5);
/// How long the router has, after its own limit or a second signal, to end its last streams with an error event.
pub const LAST_WORDS: Duration = Duration::from_secs(4);
/// A router that ended because a shard did: how long the shard's own end, which says more, is waited for.
const BLAME: Duration = Duration::from_millis(500);

/// What the router is given.
pub struct RouterStart {
    /// The file that describes the model.
    pub prepared: PathBuf,
    /// gRPC addresses of the shards, in rank order. The shards are still loading, and come back at the same addresses
    /// after a restart.
    pub shards: Vec<String>,
    /// Cancelled when the router is to finish running requests and end.
    pub shutdown: CancellationToken,
    /// Cancelled when it is to end at once, with a last word to whoever is still there.
    pub stop_now: CancellationToken,
    /// Told once requests are answered.
    pub ready: oneshot::Sender<Ready>,
    /// Told when the shards hang: they are killed and started anew.
    pub restarts: mpsc::Sender<RestartRequest>,
}

/// What shards are started from, the first time and again.
pub(crate) struct ShardPlan {
    pub(crate) server: ServerProgram,
    pub(crate) prepared: PathBuf,
    /// One for each rank.
    pub(crate) sockets: Vec<PathBuf>,
    /// Where the ranks meet; a free port when it does not matter.
    pub(crate) master_port: Option<u16>,
}

impl ShardPlan {
    pub(crate) fn addresses(&self) -> Vec<String> {
        self.sockets.iter().map(|socket| format!("unix:{}", socket.display())).collect()
    }

    fn commands(&self) -> Result<Vec<Command>, LaunchError> {
        let master_port = self.master_port.map_or_else(free_port, Ok)?;
        let (world_size, prepared) = (self.sockets.len() as u32, self.prepared.as_path());
        let seat = |(rank, socket)| Seat { rank, world_size, prepared, socket, master_port };
        Ok((0..).zip(self.sockets.iter().map(PathBuf::as_path)).map(|place| self.server.serve(seat(place))).collect())
    }
}

/// Watches the shards and the router of one model.
pub(crate) struct Supervisor<'a> {
    pub(crate) plan: ShardPlan,
    pub(crate) spawner: &'a Spawner,
    pub(crate) board: &'a ProgressBoard,
    pub(crate) stop: &'a Stop,
    pub(crate) budget: RestartBudget,
    pub(crate) drain_limit: Duration,
}

/// The router while it runs, and the lines to it.
struct RunningRouter {
    task: JoinHandle<anyhow::Result<()>>,
    shutdown: CancellationToken,
    stop_now: CancellationToken,
    announced: Option<oneshot::Receiver<Ready>>,
    restarts: mpsc::Receiver<RestartRequest>,
}

enum Event {
    Ready(Ready),
    ShardEnded(Exit),
    ShardsHung,
    RouterEnded(String),
    StopAsked,
}

impl Supervisor<'_> {
    /// Runs shards and router until somebody asks to stop, or they cannot go on. Nothing it started outlives it.
    pub(crate) async fn run<F>(
        mut self,
        router: impl FnOnce(RouterStart) -> F,
        announce: impl Fn(Ready),
    ) -> Result<(), LaunchError>
    where
        F: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        let mut shards = self.start_shards().await?;
        let mut router = RunningRouter::start(&self.plan, router);
        match self.watch(&mut shards, &mut router, announce).await {
            Ok(()) => self.drain(shards, router).await,
            Err(error) => {
                router.last_words().await;
                Err(error)
            }
        }
    }

    /// Returns when somebody asks to stop. What cannot be mended is an error.
    async fn watch(
        &mut self,
        shards: &mut ShardGroup,
        router: &mut RunningRouter,
        announce: impl Fn(Ready),
    ) -> Result<(), LaunchError> {
        loop {
            match next_event(shards, router, self.stop).await? {
                Event::Ready(ready) => {
                    self.board.clear();
                    announce(ready);
                }
                Event::StopAsked => return Ok(()),
                Event::RouterEnded(reason) => return Err(blame(shards, router, reason).await),
                Event::ShardEnded(exit) if !router.is_ready() => return Err(cannot_start(exit)),
                Event::ShardEnded(exit) => *shards = self.restart(std::mem::take(shards), router, exit).await?,
                Event::ShardsHung => *shards = self.restart(std::mem::take(shards), router, hung()).await?,
            }
        }
    }

    async fn start_shards(&self) -> Result<ShardGroup, LaunchError> {
        for socket in &self.plan.sockets {
            remove_if_there(socket).map_err(LaunchError::system("cannot remove a socket"))?;
        }
        let started = ShardGroup::start(self.plan.commands()?, self.spawner, self.board).await;
        started.map_err(self.plan.server.cannot_start())
    }

    /// Kills what is left of the shards and starts them again, unless that happened too often lately.
    async fn restart(
        &mut self,
        shards: ShardGroup,
        router: &mut RunningRouter,
        exit: Exit,
    ) -> Result<ShardGroup, LaunchError> {
        drop(shards);
        // A wish to restart the shards that are gone now must not meet the next ones.
        while router.restarts.try_recv().is_ok() {}
        self.board.clear();
        let Some(wait) = self.budget.take(Instant::now()) else {
            return Err(gave_up(exit, self.budget.max_restarts()));
        };
        tracing::error!("shard {} {}{}; starting the shards again in {wait:?}", exit.rank, exit.how, said(&exit));
        tokio::select! {
            () = sleep(wait) => self.start_shards().await,
            // The event loop sees the same wish next.
            () = self.stop.asked() => Ok(ShardGroup::default()),
        }
    }

    /// Lets running requests finish, then ends the shards. A second signal cuts it short.
    async fn drain(&self, shards: ShardGroup, mut router: RunningRouter) -> Result<(), LaunchError> {
        router.shutdown.cancel();
        if router.is_ready() {
            let seconds = self.drain_limit.as_secs();
            tracing::info!("stopping: running requests have {seconds} s to finish; a second signal ends them at once");
            router.end_within(self.drain_limit + LAST_WORDS, self.stop).await;
        }
        router.task.abort();
        self.board.clear();
        shards.stop(if self.stop.is_insisted() { Duration::ZERO } else { SHARD_PATIENCE }).await;
        Ok(())
    }
}

impl RunningRouter {
    fn start<F>(plan: &ShardPlan, router: impl FnOnce(RouterStart) -> F) -> Self
    where
        F: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        let (ready, announced) = oneshot::channel();
        // One request is enough, further ones would mean the same.
        let (restarts, requests) = mpsc::channel(1);
        let (shutdown, stop_now) = (CancellationToken::new(), CancellationToken::new());
        let start = RouterStart {
            prepared: plan.prepared.clone(),
            shards: plan.addresses(),
            shutdown: shutdown.clone(),
            stop_now: stop_now.clone(),
            ready,
            restarts,
        };
        Self { task: tokio::spawn(router(start)), shutdown, stop_now, announced: Some(announced), restarts: requests }
    }

    fn is_ready(&self) -> bool {
        self.announced.is_none()
    }

    /// Lets it tell those who still wait that there will be no answer.
    async fn last_words(&mut self) {
        self.stop_now.cancel();
        if self.is_ready() && !self.task.is_finished() {
            // One that does not end in time is cut off with the process.
            let _ = timeout(LAST_WORDS, &mut self.task).await;
        }
    }

    /// Returns when it ended, or when waiting for it has no point any more.
    async fn end_within(&mut self, limit: Duration, stop: &Stop) {
        let ended = tokio::select! {
            ended = &mut self.task => Ok(ended),
            () = stop.insisted() => {
                self.stop_now.cancel();
                timeout(LAST_WORDS, &mut self.task).await
            }
            () = sleep(limit) => timeout(Duration::ZERO, &mut self.task).await,
        };
        match ended {
            Ok(Ok(Ok(()))) => {}
            Ok(ended) => tracing::warn!("the router did not end cleanly: {}", end_of(ended)),
            Err(_) => tracing::warn!("requests were still running at the end"),
        }
    }
}

async fn next_event(shards: &mut ShardGroup, router: &mut RunningRouter, stop: &Stop) -> Result<Event, LaunchError> {
    let RunningRouter { task, announced, restarts, .. } = router;
    tokio::select! {
        biased;
        () = stop.asked() => Ok(Event::StopAsked),
        exit = shards.any_exit() => exit.map(Event::ShardEnded).map_err(LaunchError::system("cannot watch the shards")),
        ended = task => Ok(Event::RouterEnded(end_of(ended))),
        // A router that has given up ends by itself.
        Some(RestartRequest::Hung) = restarts.recv() => Ok(Event::ShardsHung),
        ready = announcement(announced) => Ok(Event::Ready(ready)),
    }
}

/// What the router says when it is ready, once. One that ends before that tells so by its own end.
async fn announcement(announced: &mut Option<oneshot::Receiver<Ready>>) -> Ready {
    let said = match announced {
        Some(receiver) => receiver.await,
        None => std::future::pending().await,
    };
    match said {
        Ok(ready) => {
            *announced = None;
            ready
        }
        Err(_) => std::future::pending().await,
    }
}

/// A router that lost its shards says less than the shards do.
async fn blame(shards: &mut ShardGroup, router: &RunningRouter, reason: String) -> LaunchError {
    match timeout(BLAME, shards.any_exit()).await {
        Ok(Ok(exit)) if !router.is_ready() => cannot_start(exit),
        _ => LaunchError::Router(reason),
    }
}

fn end_of(ended: Result<anyhow::Result<()>, JoinError>) -> String {
    match ended {
        Ok(Ok(())) => "it was not asked to".to_owned(),
        Ok(Err(error)) => format!("{error:#}"),
        Err(error) => error.to_string(),
    }
}

fn cannot_start(exit: Exit) -> LaunchError {
    let said = said(&exit);
    LaunchError::ShardCannotStart { rank: exit.rank, how: exit.how, said }
}

fn gave_up(exit: Exit, restarts: u32) -> LaunchError {
    let said = said(&exit);
    LaunchError::ShardFailed { rank: exit.rank, how: exit.how, restarts, said }
}

fn said(exit: &Exit) -> String {
    exit.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default()
}

/// A hung shard as if it had ended: the kill follows.
fn hung() -> Exit {
    Exit { rank: 0, how: "gives no answer any more".to_owned(), reason: None }
}

fn remove_if_there(socket: &Path) -> io::Result<()> {
    match std::fs::remove_file(socket) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
