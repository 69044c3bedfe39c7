//! From flags to a running server: check what can be checked at once, prepare the model, supervise.

use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use text_generation_router::Ready;

use crate::args::LauncherArgs;
use crate::command::ServerProgram;
use crate::error::LaunchError;
use crate::preflight::{ensure_free, find_server};
use crate::prepare::prepare;
use crate::progress::ProgressBoard;
use crate::restarts::RestartBudget;
use crate::sockets::SocketFolder;
use crate::spawner::Spawner;
use crate::stop::Stop;
use crate::supervise::{RouterStart, ShardPlan, Supervisor};

/// Starts everything and returns when it ended in order.
///
/// # Errors
/// Why the server could not start, or why it ended by itself.
pub async fn launch<F>(
    args: &LauncherArgs,
    board: &ProgressBoard,
    stop: &Stop,
    router: impl FnOnce(RouterStart) -> F,
) -> Result<(), LaunchError>
where
    F: Future<Output = anyhow::Result<()>> + Send + 'static,
{
    let world_size = args.shards.world_size()?;
    ensure_free(args.router.listen.socket_address())?;
    let server = ServerProgram::new(server_program(args)?, args);
    let spawner = Spawner::start()?;
    let prepared = tokio::select! {
        prepared = prepare(&server, args.model.name(), &spawner, board) => prepared?,
        () = stop.asked() => return Ok(()),
    };
    let folder = SocketFolder::new(&std::env::temp_dir())?;
    let sockets = folder.sockets(world_size);
    let supervisor = Supervisor {
        plan: ShardPlan { server, prepared, sockets, master_port: args.shards.master_port },
        spawner: &spawner,
        board,
        stop,
        budget: RestartBudget::new(args.shards.max_shard_restarts),
        drain_limit: args.router.process.drain_limit(),
    };
    let ended = supervisor.run(router, |ready| announce(args, &ready)).await;
    board.clear();
    ended
}

/// The Python program that this launch would use.
///
/// # Errors
/// It is nowhere to be found.
pub fn server_program(args: &LauncherArgs) -> Result<PathBuf, LaunchError> {
    let this_program = std::env::current_exe().ok();
    let (asked_for, path) = (args.shards.text_generation_server.as_deref(), args.shards.visible.path.as_deref());
    find_server(asked_for.map(Path::new), this_program.as_deref(), path)
}

/// The line that people and scripts wait for.
fn announce(args: &LauncherArgs, ready: &Ready) {
    let Ready { address, model_id, device, dtype } = ready;
    let model = args.model.model_id.as_ref().unwrap_or(model_id);
    let line = format!("Ready: http://{}  model {model} on {device}, {dtype} (Ctrl-C stops)", reachable(*address));
    if args.router.process.json_output {
        tracing::info!("{line}");
    } else {
        say(&line);
    }
}

#[allow(clippy::print_stdout)] // the one line that is the program's answer, not its log
fn say(line: &str) {
    println!("{line}");
}

/// An address that a browser on this machine can open.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = if address.ip().is_unspecified() { IpAddr::V4(Ipv4Addr::LOCALHOST) } else { address.ip() };
    SocketAddr::new(ip, address.port())
}
