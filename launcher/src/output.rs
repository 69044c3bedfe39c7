//! What children say: each line of their output is read, bounded, and said again with the child's name, or shown as
//! progress. The last lines are kept, because they tell why a child ended.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::progress::{Progress, ProgressBoard};

/// A longer line is cut into lines of this size.
const MAX_LINE_BYTES: u64 = 16 << 10;
const TAIL_LINES: usize = 20;
/// Under which name children's lines are logged.
const CHILDREN: &str = "text_generation_server";
/// How long an ended child's last lines are waited for; a grandchild may keep the pipe open.
const SETTLE: Duration = Duration::from_millis(500);

/// One line of a child.
#[derive(Debug, PartialEq)]
pub(crate) enum Line {
    Progress(Progress),
    Log {
        level: tracing::Level,
        message: String,
    },
    /// Not one of our log lines: a traceback, or a library that prints.
    Text(String),
}

/// The last lines of a child that may tell why it ended: errors, and text that is no log line.
#[derive(Clone, Default)]
pub(crate) struct Tail {
    state: Arc<Mutex<TailState>>,
}

#[derive(Default)]
struct TailState {
    lines: VecDeque<(Kind, String)>,
    ended: bool,
}

#[derive(Copy, Clone, Eq, PartialEq)]
enum Kind {
    Error,
    Text,
}

impl Tail {
    fn push(&self, kind: Kind, line: &str) {
        self.with(|state| {
            state.lines.push_back((kind, line.to_owned()));
            if state.lines.len() > TAIL_LINES {
                state.lines.pop_front();
            }
        });
    }

    /// The child's reason for ending, as far as it said one: its last error, else the last line of its traceback.
    pub(crate) fn reason(&self) -> Option<String> {
        self.last(Kind::Error).or_else(|| self.last(Kind::Text))
    }

    /// The last error alone: a child that was killed had no time for a traceback.
    pub(crate) fn error(&self) -> Option<String> {
        self.last(Kind::Error)
    }

    fn last(&self, kind: Kind) -> Option<String> {
        self.with(|state| state.lines.iter().rev().find(|(of, _)| *of == kind).map(|(_, line)| line.clone()))
    }

    /// Waits until everything an ended child wrote was read.
    pub(crate) async fn settle(&self) {
        let read = async {
            while !self.with(|state| state.ended) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        // A timeout only means that the reason may miss its last line.
        let _ = tokio::time::timeout(SETTLE, read).await;
    }

    fn with<T>(&self, look: impl FnOnce(&mut TailState) -> T) -> T {
        look(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Reads `stream` to its end on a thread of its own.
pub(crate) fn follow(name: String, stream: impl Read + Send + 'static, board: ProgressBoard) -> std::io::Result<Tail> {
    let tail = Tail::default();
    let kept = tail.clone();
    std::thread::Builder::new().name(format!("output of {name}")).spawn(move || {
        let mut reader = BufReader::new(stream);
        while let Some(line) = next_line(&mut reader) {
            say(&name, parse(&line), &kept, &board);
        }
        kept.with(|state| state.ended = true);
    })?;
    Ok(tail)
}

/// The next line without its end, at most [`MAX_LINE_BYTES`] of it; none at the end or when the pipe breaks.
fn next_line(reader: &mut impl BufRead) -> Option<String> {
    let mut bytes = Vec::new();
    let read = reader.take(MAX_LINE_BYTES).read_until(b'\n', &mut bytes).ok()?;
    (read > 0).then(|| String::from_utf8_lossy(&bytes).trim_end().to_owned())
}

fn say(name: &str, line: Line, tail: &Tail, board: &ProgressBoard) {
    match line {
        Line::Progress(progress) => board.update(name, &progress),
        Line::Log { level, message } => {
            log(level, name, &message);
            if level == tracing::Level::ERROR {
                tail.push(Kind::Error, first_line(&message));
            }
        }
        Line::Text(text) if text.is_empty() => {}
        Line::Text(text) => {
            log(tracing::Level::WARN, name, &text);
            tail.push(Kind::Text, &text);
        }
    }
}

/// The message without the traceback that may follow it, whose line ends are written out.
fn first_line(message: &str) -> &str {
    message.split_once("\\n").map_or(message, |(first, _)| first)
}

/// Says a line again. Levels of `tracing` are part of the call site, hence the arms.
fn log(level: tracing::Level, source: &str, message: &str) {
    match level {
        tracing::Level::ERROR => tracing::error!(target: CHILDREN, %source, "{message}"),
        tracing::Level::WARN => tracing::warn!(target: CHILDREN, %source, "{message}"),
        tracing::Level::INFO => tracing::info!(target: CHILDREN, %source, "{message}"),
        _ => tracing::debug!(target: CHILDREN, %source, "{message}"),
    }
}

/// Understands a line of a child's output.
pub(crate) fn parse(line: &str) -> Line {
    match serde_json::from_str::<Map<String, Value>>(line) {
        Ok(fields) => parse_fields(&fields).unwrap_or_else(|| Line::Text(printable(line))),
        Err(_) => Line::Text(printable(line)),
    }
}

fn parse_fields(fields: &Map<String, Value>) -> Option<Line> {
    let message = fields.get("message").and_then(Value::as_str).map(printable);
    if let Some(progress) = fields.get("progress") {
        return parse_progress(progress, message.as_deref()).map(Line::Progress);
    }
    let message = message?;
    Some(Line::Log { level: level(fields.get("level").and_then(Value::as_str)), message: message + &details(fields) })
}

fn parse_progress(fields: &Value, message: Option<&str>) -> Option<Progress> {
    let mut progress = Progress::deserialize(fields).ok()?;
    if progress.what.is_empty() {
        let subject = message.and_then(|message| message.split(':').next());
        subject.unwrap_or("loading").clone_into(&mut progress.what);
    }
    Some(progress)
}

/// Further fields of a log line, as ` name=value`.
fn details(fields: &Map<String, Value>) -> String {
    const SAID_OTHERWISE: [&str; 7] = ["message", "level", "target", "logger", "timestamp", "time", "rank"];
    let further = fields.iter().filter(|(name, _)| !SAID_OTHERWISE.contains(&name.as_str()));
    further.fold(String::new(), |details, (name, value)| details + &format!(" {name}={value}"))
}

/// Python's names for levels.
fn level(name: Option<&str>) -> tracing::Level {
    match name.unwrap_or_default().to_ascii_uppercase().as_str() {
        "CRITICAL" | "FATAL" | "ERROR" => tracing::Level::ERROR,
        "WARNING" | "WARN" => tracing::Level::WARN,
        "DEBUG" | "TRACE" => tracing::Level::DEBUG,
        _ => tracing::Level::INFO,
    }
}

/// Control characters are written out: a log line never moves a terminal's cursor or starts another line.
fn printable(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\t' => line.push(' '),
            control if control.is_control() => line.extend(control.escape_default()),
            plain => line.push(plain),
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(line: &str, parsed: &Line) {
        assert_eq!(&parse(line), parsed);
    }

    fn log_line(level: tracing::Level, message: &str) -> Line {
        Line::Log { level, message: message.to_owned() }
    }

    #[test]
    fn lines_are_progress_logs_or_text() {
        let progress = Progress { done: 5, total: 10, what: "weights".to_owned() };
        check(r#"{"progress":{"done":5,"total":10,"what":"weights"}}"#, &Line::Progress(progress.clone()));
        check(
            r#"{"level":"INFO","message":"x","progress":{"done":5,"total":10,"what":"weights"}}"#,
            &Line::Progress(progress.clone()),
        );
        let named = Progress { what: "loading weights".to_owned(), ..progress };
        check(r#"{"message":"loading weights: 5 MB","progress":{"done":5,"total":10}}"#, &Line::Progress(named));
        check(r#"{"level":"WARNING","target":"a.b","message":"slow"}"#, &log_line(tracing::Level::WARN, "slow"));
        check(r#"{"message":"no level","blocks":7}"#, &log_line(tracing::Level::INFO, "no level blocks=7"));
        check("Traceback (most recent call last):", &Line::Text("Traceback (most recent call last):".to_owned()));
        check(r#"{"no":"message"}"#, &Line::Text(r#"{"no":"message"}"#.to_owned()));
        check(r#"{"progress":"soon"}"#, &Line::Text(r#"{"progress":"soon"}"#.to_owned()));
        check("[1, 2]", &Line::Text("[1, 2]".to_owned()));
    }

    #[test]
    fn control_characters_are_written_out() {
        check("\u{1b}[31mred", &Line::Text("\\u{1b}[31mred".to_owned()));
        check(r#"{"message":"two\nlines"}"#, &log_line(tracing::Level::INFO, "two\\nlines"));
    }

    #[test]
    fn long_lines_are_cut() {
        let endless = vec![b'x'; 2 * MAX_LINE_BYTES as usize];
        let mut reader = BufReader::new(&endless[..]);
        let lengths: Vec<_> = std::iter::from_fn(|| next_line(&mut reader)).map(|line| line.len()).collect();
        assert_eq!(lengths, [MAX_LINE_BYTES as usize; 2]);
    }

    #[test]
    fn the_reason_is_the_last_error_else_the_last_text() {
        let (tail, board) = (Tail::default(), ProgressBoard::new(false));
        assert_eq!(tail.reason(), None);
        let after = |line: &str| {
            say("shard 0", parse(line), &tail, &board);
            tail.reason()
        };
        assert_eq!(after("ValueError: bad"), Some("ValueError: bad".to_owned()));
        assert_eq!(after(r#"{"level":"ERROR","message":"no space\nTraceback"}"#), Some("no space".to_owned()));
        assert_eq!(after("at exit"), Some("no space".to_owned()));
        assert_eq!(after(r#"{"level":"INFO","message":"bye"}"#), Some("no space".to_owned()));
        assert_eq!(tail.error(), Some("no space".to_owned()));
    }
}
