//! Asks the Python program to resolve and download the model. The answer is one file, which says everything the
//! router needs to know about it.

use std::io::Read;
use std::path::PathBuf;
use std::process::{ChildStdout, ExitStatus};

use crate::command::ServerProgram;
use crate::error::LaunchError;
use crate::group::{Process, describe};
use crate::output::Tail;
use crate::progress::ProgressBoard;
use crate::spawner::Spawner;

/// The answer is one path.
const MAX_ANSWER_BYTES: u64 = 64 << 10;

/// Runs `prepare` to its end. Dropping the future kills it.
pub(crate) async fn prepare(
    server: &ServerProgram,
    model: &str,
    spawner: &Spawner,
    board: &ProgressBoard,
) -> Result<PathBuf, LaunchError> {
    let started = Process::start("prepare", server.prepare(), spawner, board).await;
    let mut process = started.map_err(server.cannot_start())?;
    let answer = process.take_stdout().map(|stdout| tokio::task::spawn_blocking(|| read_answer(stdout)));
    let status = process.ended().await.map_err(LaunchError::system("cannot watch the preparation"))?;
    board.clear();
    if !status.success() {
        process.errors().settle().await;
        return Err(LaunchError::Prepare(complaint(process.errors(), model, status)));
    }
    let path = match answer {
        Some(answer) => answer.await.ok().flatten(),
        None => None,
    };
    path.ok_or_else(|| LaunchError::Prepare(format!("cannot prepare {model}: the preparation named no file")))
}

/// Its error names the model; a traceback does not.
fn complaint(errors: &Tail, model: &str, status: ExitStatus) -> String {
    let unsaid = || format!("cannot prepare {model}: {}", errors.reason().unwrap_or_else(|| describe(status)));
    errors.error().unwrap_or_else(unsaid)
}

/// The last line that is not empty, if it names a file.
fn read_answer(stdout: ChildStdout) -> Option<PathBuf> {
    let mut answer = String::new();
    stdout.take(MAX_ANSWER_BYTES).read_to_string(&mut answer).ok()?;
    let path = answer.lines().map(str::trim).rfind(|line| !line.is_empty())?;
    Some(PathBuf::from(path)).filter(|path| path.is_file())
}
