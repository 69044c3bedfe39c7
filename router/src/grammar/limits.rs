//! Every bound on grammars, with its name and default. Flags fill these in; nothing else here reads a setting.

use std::time::Duration;

/// Bounds on what one grammar, and all grammars together, may cost the router.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct GrammarLimits {
    /// Bytes of a grammar as it was sent (`--max-grammar-bytes`).
    pub max_bytes: usize,
    /// Brackets, or values of a schema, inside each other. The libraries that read grammars call themselves for each.
    pub max_nesting: usize,
    /// How far a grammar may lead from one rule or reference to the next, taken at its worst: definitions of a Lark
    /// grammar, or references of a schema times its nesting.
    pub max_levels: usize,
    /// Properties of one object that may be left out. The parser follows every choice among them at once.
    pub max_optional: usize,
    /// Letters and classes of a regular expression with its counted repetitions written out.
    pub max_regex_parts: u64,
    /// Time for compiling a grammar and for its first mask (`--grammar-timeout-ms`).
    pub time_limit: Duration,
    /// Time a grammar waits for its turn; then the request is refused as one too many.
    pub queue_limit: Duration,
    /// Grammars compiled at the same time.
    pub threads: usize,
    /// Grammars that may wait for a thread; one more is refused at once.
    pub max_waiting: usize,
    /// Verdicts kept for grammars that come again.
    pub max_verdicts: usize,
}

impl Default for GrammarLimits {
    fn default() -> Self {
        Self {
            max_bytes: 128 << 10,
            max_nesting: 64,
            max_levels: 1000,
            max_optional: 500,
            max_regex_parts: 100_000,
            time_limit: Duration::from_secs(1),
            queue_limit: Duration::from_millis(900),
            threads: 2,
            max_waiting: 64,
            max_verdicts: 1024,
        }
    }
}
