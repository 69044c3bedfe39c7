//! The running shards of one model: started together, watched together, ended together. One rank without the others
//! is of no use, because every step needs all of them.

use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus};
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::time::{Instant, sleep};

use crate::output::{Tail, follow};
use crate::progress::ProgressBoard;
use crate::spawner::Spawner;

/// How often children are looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// A child that is killed, group and all, when it is dropped.
pub(crate) struct Process {
    child: Child,
    errors: Tail,
    status: Option<ExitStatus>,
}

/// A child's end.
#[derive(Clone, Debug)]
pub(crate) struct Exit {
    pub(crate) rank: u32,
    /// Exit code or signal, in words.
    pub(crate) how: String,
    /// The last thing it complained about.
    pub(crate) reason: Option<String>,
}

impl Process {
    /// Starts `command`; what it writes to standard error is said again under `name`.
    pub(crate) async fn start(
        name: &str,
        command: Command,
        spawner: &Spawner,
        board: &ProgressBoard,
    ) -> std::io::Result<Self> {
        let mut child = spawner.spawn(command).await?;
        let errors = match child.stderr.take() {
            Some(stream) => follow(name.to_owned(), stream, board.clone())?,
            None => Tail::default(),
        };
        Ok(Self { child, errors, status: None })
    }

    /// Its standard output, once.
    pub(crate) fn take_stdout(&mut self) -> Option<std::process::ChildStdout> {
        self.child.stdout.take()
    }

    /// What it complained about last.
    pub(crate) fn errors(&self) -> &Tail {
        &self.errors
    }

    /// Returns when it ended.
    pub(crate) async fn ended(&mut self) -> std::io::Result<ExitStatus> {
        loop {
            if let Some(status) = self.look()? {
                return Ok(status);
            }
            sleep(LOOK_INTERVAL).await;
        }
    }

    /// Its status if it ended. What it left in its group is killed with it.
    fn look(&mut self) -> std::io::Result<Option<ExitStatus>> {
        if self.status.is_none() {
            self.status = self.child.try_wait()?;
            if self.status.is_some() {
                self.signal_group(Signal::SIGKILL);
            }
        }
        Ok(self.status)
    }

    /// Signals it, unless it ended: its number may be somebody else's by now.
    fn signal(&self, signal: Signal) {
        if self.status.is_none() {
            self.signal_group(signal);
        }
    }

    fn signal_group(&self, signal: Signal) {
        // The group is gone when nothing is left in it.
        let _ = killpg(Pid::from_raw(self.child.id() as i32), signal);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.signal(Signal::SIGKILL);
        if self.status.is_none() {
            // A killed child is only waited for so that it does not stay a zombie.
            let _ = self.child.wait();
        }
    }
}

/// In words: `exited with code 1`, `was killed by signal 9 (SIGKILL)`.
pub(crate) fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exited with code {code}"),
        (None, Some(number)) => {
            let name = Signal::try_from(number).map_or_else(|_| String::new(), |signal| format!(" ({signal})"));
            format!("was killed by signal {number}{name}")
        }
        (None, None) => "ended".to_owned(),
    }
}

/// Every rank of one model, by rank.
#[derive(Default)]
pub(crate) struct ShardGroup {
    ranks: Vec<Process>,
}

impl ShardGroup {
    /// Starts all ranks. When one does not start, those before it are killed.
    pub(crate) async fn start(
        commands: Vec<Command>,
        spawner: &Spawner,
        board: &ProgressBoard,
    ) -> std::io::Result<Self> {
        let mut group = Self { ranks: Vec::with_capacity(commands.len()) };
        for (rank, command) in commands.into_iter().enumerate() {
            let name = format!("shard {rank}");
            let mut process = Process::start(&name, command, spawner, board).await?;
            if let Some(stdout) = process.take_stdout() {
                follow(name, stdout, board.clone())?;
            }
            group.ranks.push(process);
        }
        Ok(group)
    }

    /// Returns when any rank ended.
    pub(crate) async fn any_exit(&mut self) -> std::io::Result<Exit> {
        loop {
            if let Some((rank, status)) = self.ended_rank()? {
                let errors = self.ranks[rank].errors();
                errors.settle().await;
                let reason = if status.signal().is_some() { errors.error() } else { errors.reason() };
                return Ok(Exit { rank: rank as u32, how: describe(status), reason });
            }
            sleep(LOOK_INTERVAL).await;
        }
    }

    fn ended_rank(&mut self) -> std::io::Result<Option<(usize, ExitStatus)>> {
        for (rank, process) in self.ranks.iter_mut().enumerate() {
            if let Some(status) = process.look()? {
                return Ok(Some((rank, status)));
            }
        }
        Ok(None)
    }

    /// Ends all ranks: politely, then after `patience` by force. Returns when all are gone.
    pub(crate) async fn stop(mut self, patience: Duration) {
        self.ranks.iter().for_each(|rank| rank.signal(Signal::SIGTERM));
        let deadline = Instant::now() + patience;
        while self.any_running() && Instant::now() < deadline {
            sleep(LOOK_INTERVAL / 5).await;
        }
        // Dropping the rest kills it.
    }

    fn any_running(&mut self) -> bool {
        // A child that cannot be looked at is left to the kill that follows.
        self.ranks.iter_mut().any(|rank| matches!(rank.look(), Ok(None)))
    }
}
