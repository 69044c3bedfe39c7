//! Flags and environment of the router, and the only place that reads either: everything below receives values.
//!
//! Both programs understand these flags. Names, environment twins and defaults are those of
//! text-generation-inference where it has the flag; a safer default is said in the flag's own text. Flags that are
//! accepted for its sake and change nothing are in [`UnservedArgs`], which says so once at start-up.

mod images;
mod limits;
mod listen;
mod unserved;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use clap::builder::BoolishValueParser;
use clap::error::ErrorKind;

pub use images::ImageArgs;
pub use limits::{LimitArgs, SchedulingArgs};
pub use listen::{ApiKey, InvalidHostname, ListenArgs};
pub use unserved::{UnservedArgs, UsageStats, lines_of};

/// What the launcher and the router have in common.
#[derive(Clone, Debug, clap::Args)]
pub struct RouterArgs {
    /// Where to listen, and who may ask.
    #[command(flatten)]
    pub listen: ListenArgs,
    /// What one request may ask for.
    #[command(flatten)]
    pub limits: LimitArgs,
    /// Which images are fetched, decoded and kept.
    #[command(flatten)]
    pub images: ImageArgs,
    /// How much work a step holds.
    #[command(flatten)]
    pub scheduling: SchedulingArgs,
    /// How the program logs and ends.
    #[command(flatten)]
    pub process: ProcessArgs,
    /// Accepted, without effect.
    #[command(flatten)]
    pub unserved: UnservedArgs,
}

/// Logs, deadlines and the end of the process.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Process")]
pub struct ProcessArgs {
    /// Log JSON lines instead of text.
    #[arg(long, env = "JSON_OUTPUT", value_parser = BoolishValueParser::new())]
    pub json_output: bool,

    /// Which log lines appear: a level, or filters such as `info,text_generation_router=debug`.
    #[arg(long, env = "LOG_LEVEL", default_value = "info")]
    pub log_level: String,

    /// Colours in the log. Without this flag: only on a terminal.
    #[arg(long, env = "LOG_COLORIZE", value_parser = BoolishValueParser::new(), num_args = 0..=1, default_missing_value = "true")]
    pub log_colorize: Option<bool>,

    /// Seconds that running requests have to finish after SIGTERM. A second signal ends them at once.
    #[arg(short = 'g', long, env = "GRACEFUL_TERMINATION_TIMEOUT", default_value_t = 90)]
    pub graceful_termination_timeout: u64,

    /// Seconds without a result after which a shard counts as hung. Its requests fail and it is started anew.
    #[arg(long, env = "SHARD_TIMEOUT_S", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
    pub shard_timeout_s: u64,

    /// Write what happened when, in router and shards, to this file at the end: Chrome trace events, for Perfetto.
    #[arg(long, env = "TRACE", value_name = "FILE")]
    pub trace: Option<PathBuf>,
}

impl ProcessArgs {
    /// How long running requests may go on after the first signal.
    pub fn drain_limit(&self) -> Duration {
        Duration::from_secs(self.graceful_termination_timeout)
    }

    /// How long a step may take before its shard counts as hung.
    pub fn shard_timeout(&self) -> Duration {
        Duration::from_secs(self.shard_timeout_s)
    }
}

impl RouterArgs {
    /// Finds what is wrong with the flags by themselves, before minutes are spent on a model.
    fn check(&self) -> Result<(), String> {
        self.listen.api_key().map_err(|error| error.to_string())?;
        match (self.limits.max_input_tokens(), self.limits.max_total_tokens) {
            (Some(input), Some(total)) if input >= total => {
                Err(format!("--max-input-tokens {input} must be less than --max-total-tokens {total}"))
            }
            _ => Ok(()),
        }
    }

    /// One line, with the reason, for each flag that was set and changes nothing.
    pub fn not_served(&self) -> Vec<String> {
        self.unserved.lines()
    }
}

/// Parses a program's arguments. What clap cannot see by itself, it is told here: whether the host name was asked
/// for or is merely what the shell calls this machine.
///
/// # Errors
/// Help and version as well as bad arguments: print it with [`clap::Error::exit`].
pub fn parse<P>(arguments: impl IntoIterator<Item = OsString>) -> Result<P, clap::Error>
where
    P: Parser + AsMut<RouterArgs>,
{
    let mut command = P::command();
    let matches = command.try_get_matches_from_mut(arguments)?;
    let mut program = P::from_arg_matches(&matches)?;
    let asked_for = matches.value_source("hostname");
    let listen = &mut program.as_mut().listen;
    listen.resolve_address(asked_for).map_err(|invalid| command.error(ErrorKind::ValueValidation, invalid))?;
    program.as_mut().check().map_err(|wrong| command.error(ErrorKind::ValueValidation, wrong))?;
    Ok(program)
}

#[cfg(test)]
mod tests;
