//! Where log lines go: standard error, as text or as JSON, without tearing the progress bars.

use std::io::{self, Write};

use text_generation_router::args::ProcessArgs;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::progress::ProgressBoard;

/// Starts logging for the whole process.
///
/// # Errors
/// The filter cannot be understood, or logging was started before.
pub fn start(process: &ProcessArgs, terminal: bool, board: ProgressBoard) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&process.log_level)
        .map_err(|error| anyhow::anyhow!("--log-level {:?}: {error}", process.log_level))?;
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(AboveBars(board));
    let started = if process.json_output {
        lines.json().flatten_event(true).with_current_span(false).with_span_list(false).try_init()
    } else {
        lines.with_ansi(process.log_colorize.unwrap_or(terminal)).try_init()
    };
    started.map_err(|error| anyhow::anyhow!("cannot start logging: {error}"))
}

/// The level that shards are asked for, by Python's name: the first bare level of the filter.
pub(crate) fn shard_level(filter: &str) -> &'static str {
    const LEVELS: [(&str, &str); 5] =
        [("error", "error"), ("warn", "warning"), ("info", "info"), ("debug", "debug"), ("trace", "debug")];
    let named = |part: &str| LEVELS.iter().find(|(level, _)| level.eq_ignore_ascii_case(part));
    filter.split(',').map(str::trim).find_map(named).map_or("info", |(_, level)| level)
}

/// Standard error, with the bars out of the way. The subscriber writes each line with one call.
struct AboveBars(ProgressBoard);

impl<'a> MakeWriter<'a> for AboveBars {
    type Writer = &'a Self;

    fn make_writer(&'a self) -> Self::Writer {
        self
    }
}

impl Write for &AboveBars {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.suspend(|| io::stderr().write(line))
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_get_the_bare_level_of_a_filter() {
        let rows = [
            ("info", "info"),
            ("DEBUG", "debug"),
            ("trace", "debug"),
            ("text_generation_router=debug, warn", "warning"),
            ("hyper=off", "info"),
        ];
        for (filter, level) in rows {
            assert_eq!(shard_level(filter), level, "{filter}");
        }
    }
}
