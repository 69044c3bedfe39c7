//! What only whole processes show: exit codes, what is said on standard error, and that nothing outlives the launcher,
//! not even when it is killed.
//!
//! There is no test harness: with the argument `launch` this program is itself a launcher whose router never gets
//! ready, so that supervision is seen without a model. The Python program is a small script.

// Clippy knows tests by their attribute, which a program without a harness has none of.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::ffi::OsString;
use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;
use text_generation_launcher::args::LauncherArgs;
use text_generation_launcher::launch::launch;
use text_generation_launcher::program::{block_on, start, start_logging};
use text_generation_launcher::stop::Stop;
use text_generation_launcher::supervise::RouterStart;

const ROUTER: &str = env!("CARGO_BIN_EXE_text-generation-router");
const LAUNCHER: &str = env!("CARGO_BIN_EXE_text-generation-launcher");
const PATIENCE: Duration = Duration::from_secs(20);

/// Stands for the shard program. It asks the kernel to be killed with its parent, as the real one does, and leaves its
/// number and the folder of its socket in files. `{after}` is what it does then.
const SERVER: &str = r#"#!/usr/bin/env python3
import ctypes, os, signal, sys, time
from pathlib import Path

here = Path(sys.argv[0]).parent
if sys.argv[1] == "prepare":
    {prepare}
    print(here / "server")
    sys.exit(0)
value = dict(zip(sys.argv[2::1], sys.argv[3::1]))
ask, parent = {ask}, int(value["--parent-pid"])
if ask and ctypes.CDLL(None).prctl(1, signal.SIGKILL) != 0 or os.getppid() != parent:
    sys.exit(7)
(here / ("socket-" + value["--rank"])).write_text(value["--socket"])
name = here / ("pid-" + value["--rank"])
name.with_suffix(".tmp").write_text(str(os.getpid()))
name.with_suffix(".tmp").rename(name)
{after}
"#;

/// A folder with a script that stands for the Python program, and the launcher that was started with it.
struct Stage {
    folder: TempDir,
}

#[derive(Default)]
struct Script<'a> {
    prepare: &'a str,
    ask: bool,
    after: &'a str,
}

impl Stage {
    fn new(script: &Script<'_>) -> Self {
        let stage = Self { folder: tempfile::tempdir().unwrap() };
        let text = SERVER
            .replace("{prepare}", if script.prepare.is_empty() { "pass" } else { script.prepare })
            .replace("{ask}", if script.ask { "True" } else { "False" })
            .replace("{after}", script.after);
        fs::write(stage.path("server"), text).unwrap();
        fs::set_permissions(stage.path("server"), fs::Permissions::from_mode(0o700)).unwrap();
        stage
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// This program again, as a launcher of two shards whose router never gets ready.
    fn launch(&self) -> Running {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["launch", "--num-shard", "2", "--device", "cpu"]);
        self.start(command)
    }

    /// The real launcher.
    fn launcher(&self, flags: &[&str]) -> Running {
        let mut command = Command::new(LAUNCHER);
        command.args(flags);
        self.start(command)
    }

    fn start(&self, mut command: Command) -> Running {
        command.args(["--port", "0", "--text-generation-server"]).arg(self.path("server"));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        for name in ["HOSTNAME", "PORT", "MODEL_ID", "NUM_SHARD", "LOG_LEVEL", "CUDA_VISIBLE_DEVICES"] {
            command.env_remove(name);
        }
        Running(command.spawn().unwrap())
    }

    /// Numbers of both shards, once they run.
    fn shards(&self) -> [i32; 2] {
        [0, 1].map(|rank| {
            let file = self.path(&format!("pid-{rank}"));
            wait_until("a shard starts", || file.exists());
            fs::read_to_string(file).unwrap().parse().unwrap()
        })
    }

    /// The folder that the shards' sockets were to be in.
    fn socket_folder(&self) -> PathBuf {
        let socket = fs::read_to_string(self.path("socket-0")).unwrap();
        Path::new(&socket).parent().unwrap().to_owned()
    }
}

/// A process that does not outlive its test.
struct Running(Child);

impl Running {
    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.0.id() as i32), signal).unwrap();
    }

    /// Exit code, and what it wrote to standard error.
    fn end(mut self) -> (Option<i32>, String) {
        let mut said = String::new();
        let deadline = Instant::now() + PATIENCE;
        while self.0.try_wait().unwrap().is_none() {
            assert!(Instant::now() < deadline, "the launcher does not end");
            std::thread::sleep(Duration::from_millis(10));
        }
        self.0.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        (self.0.wait().unwrap().code(), said)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail when it has ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "not in {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn is_running(pid: i32) -> bool {
    // A killed orphan may stay a zombie where no init collects it.
    let status = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = status.rsplit(") ").next().unwrap_or_default();
    !status.is_empty() && !state.starts_with('Z')
}

#[track_caller]
fn check_end(running: Running, code: i32, line: &str) {
    let (ended, said) = running.end();
    assert_eq!(ended, Some(code), "{said}");
    assert!(said.contains(line), "no {line:?} in: {said}");
}

fn killed_launcher_leaves_no_child_by_parent_death_signal() {
    let stage = Stage::new(&Script { ask: true, after: "time.sleep(600)", ..Script::default() });
    let launcher = stage.launch();
    let shards = stage.shards();
    // Long enough for a pool thread to end: the parent, for the kernel, is the thread that forked.
    std::thread::sleep(Duration::from_secs(2));
    assert!(shards.iter().all(|pid| is_running(*pid)), "the shards died before the launcher");
    launcher.signal(Signal::SIGKILL);
    wait_until("the shards are gone", || !shards.iter().any(|pid| is_running(*pid)));
}

fn killed_launcher_leaves_no_child_by_end_of_input() {
    let after = "sys.stdin.read(); os._exit(0)";
    let stage = Stage::new(&Script { after, ..Script::default() });
    let launcher = stage.launch();
    let shards = stage.shards();
    launcher.signal(Signal::SIGKILL);
    wait_until("the shards are gone", || !shards.iter().any(|pid| is_running(*pid)));
}

fn sigterm_ends_everything_with_code_0() {
    let stage = Stage::new(&Script { ask: true, after: "time.sleep(600)", ..Script::default() });
    let launcher = stage.launch();
    let shards = stage.shards();
    let folder = stage.socket_folder();
    assert_eq!(fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700);
    launcher.signal(Signal::SIGTERM);
    check_end(launcher, 0, "");
    assert!(!shards.iter().any(|pid| is_running(*pid)), "shards outlive the launcher");
    assert!(!folder.exists(), "{} is left behind", folder.display());
}

fn a_shard_that_crashes_while_loading_is_quoted() {
    let after = r#"sys.exit("MemoryError: no room for the weights") if value["--rank"] == "1" else time.sleep(600)"#;
    let stage = Stage::new(&Script { after, ..Script::default() });
    let line = "Error: shard 1 exited with code 1 while loading: MemoryError: no room for the weights\n";
    check_end(stage.launch(), 1, line);
}

fn sigterm_during_the_preparation_ends_it() {
    let prepare = r#"(here / "preparing").write_text(str(os.getpid())); time.sleep(600)"#;
    let stage = Stage::new(&Script { prepare, ..Script::default() });
    let launcher = stage.launcher(&[]);
    wait_until("the preparation runs", || fs::metadata(stage.path("preparing")).is_ok_and(|file| file.len() > 0));
    let preparing = fs::read_to_string(stage.path("preparing")).unwrap().parse().unwrap();
    launcher.signal(Signal::SIGTERM);
    check_end(launcher, 0, "");
    assert!(!is_running(preparing));
}

fn a_bad_model_is_refused_with_its_reason() {
    let prepare = r#"sys.exit('{"level":"ERROR","message":"cannot prepare it: no such model"}')"#;
    let stage = Stage::new(&Script { prepare, ..Script::default() });
    let refused = stage.launcher(&["--model-id", "org/nothing"]);
    check_end(refused, 1, "Error: cannot prepare it: no such model\n");
}

fn a_taken_port_is_refused_before_the_model_is_prepared() {
    let prepare = r#"(here / "preparing").write_text("")"#;
    let stage = Stage::new(&Script { prepare, ..Script::default() });
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let mut command = Command::new(LAUNCHER);
    command.args(["--port", &port.to_string(), "--text-generation-server"]).arg(stage.path("server"));
    command.env_remove("HOSTNAME").stderr(Stdio::piped());
    let line =
        format!("Error: cannot listen on 127.0.0.1:{port}: the port is taken by another program; choose another");
    check_end(Running(command.spawn().unwrap()), 1, &line);
    assert!(!stage.path("preparing").exists());
}

fn a_missing_server_program_is_named() {
    let stage = Stage::new(&Script::default());
    fs::remove_file(stage.path("server")).unwrap();
    let line = format!("Error: cannot find {}", stage.path("server").display());
    check_end(stage.launcher(&[]), 1, &line);
}

fn more_shards_than_gpus_are_refused() {
    let stage = Stage::new(&Script::default());
    let line = "Error: --num-shard 3 is more than the 2 visible GPUs\n";
    check_end(stage.launcher(&["--num-shard", "3", "--cuda-visible-devices", "0,1"]), 1, line);
}

fn bad_flags_exit_with_code_2() {
    let stage = Stage::new(&Script::default());
    let line = "--hostname takes an IP address such as 127.0.0.1 or 0.0.0.0, not \"localhost\"";
    check_end(stage.launcher(&["--hostname", "localhost"]), 2, line);
    check_end(stage.launcher(&["--max-total-tokens", "many"]), 2, "--max-total-tokens");
}

fn settings_come_from_variables_too() {
    let stage = Stage::new(&Script { prepare: r#"sys.exit("stop here")"#, ..Script::default() });
    let mut command = Command::new(LAUNCHER);
    command.envs([("HOSTNAME", "pod-1"), ("QUANTIZE", "awq"), ("NGROK", "true"), ("MODEL_ID", "org/model")]);
    command.args(["--port", "0", "--text-generation-server"]).arg(stage.path("server"));
    command.env_remove("LOG_LEVEL").stderr(Stdio::piped());
    let (code, said) = Running(command.spawn().unwrap()).end();
    assert_eq!(code, Some(1), "{said}");
    for line in ["--quantize has no effect: ", "--ngrok has no effect: ", "Error: cannot prepare org/model: stop here"]
    {
        assert!(said.contains(line), "no {line:?} in: {said}");
    }
}

fn the_router_alone_wants_a_file_and_shards() {
    let router = |flags: &[&str]| {
        let mut command = Command::new(ROUTER);
        command.args(flags).env_remove("HOSTNAME").stderr(Stdio::piped());
        Running(command.spawn().unwrap())
    };
    check_end(router(&[]), 2, "--prepared <FILE>");
    let line = "Error: name the shards with --shard or --master-shard-uds-path\n";
    check_end(router(&["--prepared", "/nonexistent.json"]), 1, line);
}

const TESTS: &[(&str, fn())] = &[
    ("killed_launcher_leaves_no_child_by_parent_death_signal", killed_launcher_leaves_no_child_by_parent_death_signal),
    ("killed_launcher_leaves_no_child_by_end_of_input", killed_launcher_leaves_no_child_by_end_of_input),
    ("sigterm_ends_everything_with_code_0", sigterm_ends_everything_with_code_0),
    ("a_shard_that_crashes_while_loading_is_quoted", a_shard_that_crashes_while_loading_is_quoted),
    ("sigterm_during_the_preparation_ends_it", sigterm_during_the_preparation_ends_it),
    ("a_bad_model_is_refused_with_its_reason", a_bad_model_is_refused_with_its_reason),
    ("a_taken_port_is_refused_before_the_model_is_prepared", a_taken_port_is_refused_before_the_model_is_prepared),
    ("a_missing_server_program_is_named", a_missing_server_program_is_named),
    ("more_shards_than_gpus_are_refused", more_shards_than_gpus_are_refused),
    ("bad_flags_exit_with_code_2", bad_flags_exit_with_code_2),
    ("settings_come_from_variables_too", settings_come_from_variables_too),
    ("the_router_alone_wants_a_file_and_shards", the_router_alone_wants_a_file_and_shards),
];

/// Runs the tests whose names contain the first argument; a panic is a failure.
fn run_tests(filter: &str) -> ExitCode {
    let chosen: Vec<_> = TESTS.iter().filter(|(name, _)| name.contains(filter)).collect();
    let mut failed = 0;
    for (name, test) in &chosen {
        let passed = std::panic::catch_unwind(test).is_ok();
        println!("test {name} ... {}", if passed { "ok" } else { "FAILED" });
        failed += usize::from(!passed);
    }
    println!("\n{} passed, {failed} failed", chosen.len() - failed);
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn run_launcher(args: &LauncherArgs) -> anyhow::Result<()> {
    let board = start_logging(&args.router.process, &args.not_served())?;
    block_on(async {
        let stop = Stop::on_signals()?;
        Ok(launch(args, &board, &stop, never_ready).await?)
    })
}

async fn never_ready(start: RouterStart) -> anyhow::Result<()> {
    start.shutdown.cancelled().await;
    Ok(())
}

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    match arguments.get(1).and_then(|first| first.to_str()) {
        Some("launch") => start(arguments.into_iter().skip(1), |args| run_launcher(&args)),
        filter => run_tests(filter.filter(|word| !word.starts_with('-')).unwrap_or_default()),
    }
}
