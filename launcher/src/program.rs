//! What the two programs have in common: from `main` to an async function, and back to an exit code.

use std::ffi::OsString;
use std::future::Future;
use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use text_generation_router::args::{ProcessArgs, RouterArgs, parse};

use crate::logs;
use crate::progress::ProgressBoard;

/// The system's allocator gives every large buffer back at once and has the kernel clear it anew for the next image,
/// which costs as much time as decoding and resizing. This one keeps what was freed a moment ago.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Threads that are still busy when everything else has ended are not waited for longer.
const LAST_WAIT: Duration = Duration::from_secs(1);

/// Parses the arguments and runs the program. A failure is one line on standard error and exit code 1, a bad argument
/// exit code 2.
pub fn start<P: Parser + AsMut<RouterArgs>>(
    arguments: impl IntoIterator<Item = OsString>,
    program: impl FnOnce(P) -> anyhow::Result<()>,
) -> ExitCode {
    let outcome = match parse::<P>(arguments) {
        Ok(args) => program(args),
        Err(error) => {
            // Help goes to standard output, complaints to standard error; nothing is left to do if neither works.
            let _ = error.print();
            return ExitCode::from(error.exit_code() as u8);
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("Error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Starts logging; the board shows progress on the same terminal.
///
/// # Errors
/// The log filter cannot be understood.
pub fn start_logging(process: &ProcessArgs, not_served: &[String]) -> anyhow::Result<ProgressBoard> {
    let terminal = std::io::stderr().is_terminal();
    let board = ProgressBoard::new(terminal && !process.json_output);
    logs::start(process, terminal, board.clone())?;
    for line in not_served {
        tracing::warn!("{line}");
    }
    Ok(board)
}

/// Runs a future on a runtime of its own.
///
/// # Errors
/// Those of the future, or there is no runtime to be had.
pub fn block_on(future: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let ended = runtime.block_on(future);
    runtime.shutdown_timeout(LAST_WAIT);
    ended
}
