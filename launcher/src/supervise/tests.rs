//! Supervision with shell scripts for shards and small futures for the router.

use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt;

use tempfile::TempDir;
use text_generation_router::args::parse;
use tokio::sync::watch;

use super::*;
use crate::args::LauncherArgs;

/// A folder, a shell script that stands for the Python program, and what is needed to supervise it.
struct Stage {
    folder: TempDir,
    spawner: Spawner,
    board: ProgressBoard,
    ask: watch::Sender<u32>,
    stop: Stop,
}

impl Stage {
    /// `script` runs once for each rank and start; `$starts` is a file, `$rank` the rank.
    fn new(script: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (ask, stop) = Stop::by_hand();
        let stage = Self { folder, spawner: Spawner::start().unwrap(), board: ProgressBoard::new(false), ask, stop };
        let starts = stage.path("starts");
        let text = format!(
            "#!/bin/sh\nstarts={}\nwhile [ $# -gt 0 ]; do [ \"$1\" = --rank ] && rank=$2; shift; done\n{script}\n",
            starts.display()
        );
        std::fs::write(stage.path("server"), text).unwrap();
        std::fs::set_permissions(stage.path("server"), std::fs::Permissions::from_mode(0o700)).unwrap();
        stage
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn starts(&self) -> usize {
        std::fs::read_to_string(self.path("starts")).unwrap_or_default().lines().count()
    }

    fn supervisor(&self, ranks: u32, max_restarts: u32) -> Supervisor<'_> {
        let args: LauncherArgs = parse([OsString::from("text-generation-launcher")]).unwrap();
        Supervisor {
            plan: ShardPlan {
                server: ServerProgram::new(self.path("server"), &args),
                prepared: self.path("prepared.json"),
                sockets: (0..ranks).map(|rank| self.path(&format!("shard-{rank}"))).collect(),
                master_port: None,
            },
            spawner: &self.spawner,
            board: &self.board,
            stop: &self.stop,
            budget: RestartBudget::new(max_restarts),
            drain_limit: Duration::from_mins(1),
        }
    }

    /// Waits until the scripts have started `times` times.
    async fn started(&self, times: usize) {
        while self.starts() < times {
            sleep(Duration::from_millis(10)).await;
        }
    }

    fn ask_to_stop(&self) {
        self.ask.send_modify(|times| *times += 1);
    }
}

const RUN_ON: &str = "echo $$ >> $starts\nexec sleep 60";

fn ready() -> Ready {
    let [model_id, device, dtype] = ["tiny", "cpu", "float32"].map(str::to_owned);
    Ready { address: ([127, 0, 0, 1], 3000).into(), model_id, device, dtype }
}

/// A router that is ready at once and ends when it is told to.
async fn obedient(start: RouterStart) -> anyhow::Result<()> {
    let _ = start.ready.send(ready());
    tokio::select! {
        () = start.shutdown.cancelled() => {}
        () = start.stop_now.cancelled() => std::fs::write(start.prepared, "last words")?,
    }
    Ok(())
}

/// A router whose shards never finish loading.
async fn waiting(start: RouterStart) -> anyhow::Result<()> {
    start.shutdown.cancelled().await;
    std::future::pending().await
}

fn is_running(pid: &str) -> bool {
    std::path::Path::new("/proc").join(pid).join("stat").exists()
}

#[tokio::test]
async fn a_crash_while_loading_is_final_and_tells_its_reason() {
    let stage = Stage::new("echo start >> $starts\necho 'ValueError: no weights' >&2\nexit 3");
    let error = stage.supervisor(1, 3).run(waiting, |_| {}).await.unwrap_err();
    assert_eq!(error.to_string(), "shard 0 exited with code 3 while loading: ValueError: no weights");
    assert_eq!(stage.starts(), 1);
}

#[tokio::test]
async fn the_ranks_of_a_group_die_together() {
    let stage = Stage::new("echo $$ >> $starts\n[ $rank = 1 ] && { sleep 0.2; exit 1; }\nexec sleep 60");
    let error = stage.supervisor(2, 3).run(waiting, |_| {}).await.unwrap_err();
    assert!(matches!(error, LaunchError::ShardCannotStart { rank: 1, .. }), "{error}");
    let pids = std::fs::read_to_string(stage.path("starts")).unwrap();
    assert!(pids.lines().count() == 2 && !pids.lines().any(is_running), "{pids}");
}

#[tokio::test]
async fn restarts_are_bounded() {
    let stage = Stage::new("echo start >> $starts\nsleep 0.1\nkill -9 $$");
    let error = stage.supervisor(1, 2).run(obedient, |_| {}).await.unwrap_err();
    let text = "shard 0 was killed by signal 9 (SIGKILL); giving up after 2 restarts in ten minutes";
    assert_eq!(error.to_string(), text);
    assert_eq!(stage.starts(), 3);
    assert_eq!(std::fs::read_to_string(stage.path("prepared.json")).unwrap(), "last words");
}

#[tokio::test]
async fn all_ranks_start_again_when_one_dies() {
    let stage = Stage::new(
        "echo start >> $starts\n[ $rank = 1 ] && [ $(wc -l < $starts) -le 2 ] && { sleep 0.2; exit 1; }\nexec sleep 60",
    );
    let running = stage.supervisor(2, 3).run(obedient, |_| {});
    let stopper = async {
        stage.started(4).await;
        stage.ask_to_stop();
    };
    let (ended, ()) = timeout(Duration::from_secs(10), async { tokio::join!(running, stopper) }).await.unwrap();
    ended.unwrap();
    assert_eq!(stage.starts(), 4);
}

#[tokio::test]
async fn hung_shards_are_killed_and_started_again() {
    let stage = Stage::new(RUN_ON);
    let (again, first) = (stage.path("starts"), stage.path("starts"));
    let complaining = |start: RouterStart| async move {
        let _ = start.ready.send(ready());
        while std::fs::read_to_string(&first).unwrap_or_default().is_empty() {
            sleep(Duration::from_millis(10)).await;
        }
        start.restarts.send(RestartRequest::Hung).await?;
        start.shutdown.cancelled().await;
        Ok(())
    };
    let running = stage.supervisor(1, 3).run(complaining, |_| {});
    let stopper = async {
        stage.started(2).await;
        let pids = std::fs::read_to_string(&again).unwrap();
        assert!(!is_running(pids.lines().next().unwrap()), "the hung shard still runs");
        stage.ask_to_stop();
    };
    let (ended, ()) = timeout(Duration::from_secs(10), async { tokio::join!(running, stopper) }).await.unwrap();
    ended.unwrap();
}

#[tokio::test]
async fn a_stop_lets_the_router_finish_before_the_shards_end() {
    let stage = Stage::new(RUN_ON);
    let starts = stage.path("starts");
    let busy = |start: RouterStart| async move {
        let _ = start.ready.send(ready());
        start.shutdown.cancelled().await;
        sleep(Duration::from_millis(300)).await;
        let pid = std::fs::read_to_string(starts)?;
        anyhow::ensure!(is_running(pid.trim()), "the shard ended before its requests");
        std::fs::write(start.prepared, "finished")?;
        Ok(())
    };
    let running = stage.supervisor(1, 3).run(busy, |_| {});
    let stopper = async {
        stage.started(1).await;
        sleep(Duration::from_millis(100)).await;
        stage.ask_to_stop();
    };
    let (ended, ()) = tokio::join!(running, stopper);
    ended.unwrap();
    assert_eq!(std::fs::read_to_string(stage.path("prepared.json")).unwrap(), "finished");
    let pid = std::fs::read_to_string(stage.path("starts")).unwrap();
    assert!(!is_running(pid.trim()));
}

#[tokio::test]
async fn a_second_signal_cuts_the_drain_short() {
    let stage = Stage::new(RUN_ON);
    let prepared = stage.path("prepared.json");
    let stubborn = |start: RouterStart| async move {
        let _ = start.ready.send(ready());
        start.stop_now.cancelled().await;
        std::fs::write(start.prepared, "last words")?;
        Ok(())
    };
    let running = stage.supervisor(1, 3).run(stubborn, |_| {});
    let stopper = async {
        stage.started(1).await;
        sleep(Duration::from_millis(100)).await;
        stage.ask_to_stop();
        sleep(Duration::from_millis(100)).await;
        stage.ask_to_stop();
    };
    let (ended, ()) = timeout(Duration::from_secs(5), async { tokio::join!(running, stopper) }).await.unwrap();
    ended.unwrap();
    assert_eq!(std::fs::read_to_string(prepared).unwrap(), "last words");
}

#[tokio::test]
async fn a_stop_while_loading_waits_for_nothing() {
    let stage = Stage::new(RUN_ON);
    let running = stage.supervisor(1, 3).run(waiting, |_| {});
    let stopper = async {
        stage.started(1).await;
        stage.ask_to_stop();
    };
    let (ended, ()) = timeout(Duration::from_secs(5), async { tokio::join!(running, stopper) }).await.unwrap();
    ended.unwrap();
}

#[tokio::test]
async fn a_stop_during_the_back_off_waits_for_nothing() {
    let stage = Stage::new("echo start >> $starts\nsleep 0.1\nexit 1");
    let mut supervisor = stage.supervisor(1, 8);
    // The fifth restart waits for eight seconds.
    (0..4).for_each(|_| assert!(supervisor.budget.take(Instant::now()).is_some()));
    let running = supervisor.run(obedient, |_| {});
    let stopper = async {
        stage.started(1).await;
        sleep(Duration::from_millis(500)).await;
        stage.ask_to_stop();
    };
    let (ended, ()) = timeout(Duration::from_secs(5), async { tokio::join!(running, stopper) }).await.unwrap();
    ended.unwrap();
    assert_eq!(stage.starts(), 1);
}

#[tokio::test]
async fn a_router_that_fails_takes_the_shards_with_it() {
    let stage = Stage::new(RUN_ON);
    let starts = stage.path("starts");
    let failing = |_: RouterStart| async move {
        while std::fs::read_to_string(&starts).unwrap_or_default().is_empty() {
            sleep(Duration::from_millis(10)).await;
        }
        anyhow::bail!("no such family")
    };
    let error = stage.supervisor(1, 3).run(failing, |_| {}).await.unwrap_err();
    assert_eq!(error.to_string(), "the router ended: no such family");
    let pid = std::fs::read_to_string(stage.path("starts")).unwrap();
    assert!(!is_running(pid.trim()));
}

#[tokio::test]
async fn a_router_that_lost_its_shard_leaves_the_blame_to_it() {
    let stage = Stage::new("sleep 0.2\necho 'out of memory' >&2\nexit 1");
    let losing = |_: RouterStart| async { anyhow::bail!("shard 0 is unreachable") };
    let error = stage.supervisor(1, 3).run(losing, |_| {}).await.unwrap_err();
    assert_eq!(error.to_string(), "shard 0 exited with code 1 while loading: out of memory");
}

#[tokio::test]
async fn a_shard_that_ignores_the_polite_signal_is_killed() {
    let stage = Stage::new("trap '' TERM\necho $$ >> $starts\nwhile :; do sleep 1; done");
    let group = stage.supervisor(1, 0).start_shards().await.unwrap();
    stage.started(1).await;
    let pid = std::fs::read_to_string(stage.path("starts")).unwrap();
    group.stop(Duration::from_millis(300)).await;
    assert!(!is_running(pid.trim()));
}

#[tokio::test]
async fn a_program_that_is_none_is_named() {
    let stage = Stage::new("exit 0");
    std::fs::set_permissions(stage.path("server"), std::fs::Permissions::from_mode(0o600)).unwrap();
    let error = stage.supervisor(1, 0).run(waiting, |_| {}).await.unwrap_err().to_string();
    assert!(error.starts_with("cannot start ") && error.contains("server: Permission denied"), "{error}");
}
