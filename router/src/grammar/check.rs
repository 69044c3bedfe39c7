//! Whether a grammar can be followed: compiles it and computes its first mask. Blocks, and can be told to stop.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use llguidance::api::{ParserLimits, TopLevelGrammar};
use llguidance::toktrie::TokEnv;
use llguidance::{CancellationHandle, Matcher, ParserFactory};

use super::error::GrammarError;
use super::source::{Grammar, GrammarKind};
use super::vocabulary::Vocabulary;

/// The most that is told of the library's reason.
const MAX_REASON_CHARACTERS: usize = 400;

/// Compiles grammars for one model.
pub(super) struct Checker {
    factory: ParserFactory,
}

/// Tells a check to stop, from the outside and at any time.
#[derive(Debug, Default)]
pub(super) struct Stop {
    asked: AtomicBool,
    matcher: OnceLock<CancellationHandle>,
}

impl Stop {
    pub(super) fn ask(&self) {
        self.asked.store(true, Ordering::SeqCst);
        if let Some(handle) = self.matcher.get() {
            handle.cancel();
        }
    }

    /// Hands over what can be stopped from now on. Whoever asked before is heard here.
    fn arm(&self, matcher: &Matcher) {
        if let Some(handle) = matcher.cancellation_handle() {
            let _ = self.matcher.set(handle.clone());
            if self.asked.load(Ordering::SeqCst) {
                handle.cancel();
            }
        }
    }
}

impl Checker {
    /// Takes up to a second and some ten megabytes for a large vocabulary.
    pub(super) fn new(vocabulary: Vocabulary) -> Result<Self, GrammarError> {
        let environment: TokEnv = Arc::new(vocabulary.into_environment()?);
        let unsupported = |error: anyhow::Error| GrammarError::Unsupported(reason(&error.to_string()));
        let mut factory = ParserFactory::new_simple(&environment).map_err(unsupported)?;
        factory.quiet();
        *factory.limits_mut() = limits();
        Ok(Self { factory })
    }

    /// What was wrong when it was stopped is nobody's business any more.
    pub(super) fn check(&self, grammar: &Grammar, stop: &Stop) -> Result<(), GrammarError> {
        let parsed = parse(grammar)?;
        let mut matcher = Matcher::new(self.factory.create_parser(parsed)).into_cancellable();
        stop.arm(&matcher);
        if let Some(error) = matcher.get_error() {
            return Err(GrammarError::Invalid(reason(&error)));
        }
        match matcher.compute_mask() {
            Ok(_) => Ok(()),
            Err(error) => Err(GrammarError::Invalid(mask_reason(&error.to_string()))),
        }
    }
}

/// As in the shard's `grammar.py`: what passes here passes there.
fn limits() -> ParserLimits {
    ParserLimits {
        // Schemas as large as are taken need less; a regular expression of a few letters may ask for any amount.
        initial_lexer_fuel: 200_000,
        step_lexer_fuel: 100_000,
        step_max_items: 25_000,
        max_lexer_states: 25_000,
        max_grammar_size: 100_000,
        // Its errors would repeat what users wrote.
        verbose_errors: false,
        ..ParserLimits::default()
    }
}

fn parse(grammar: &Grammar) -> Result<TopLevelGrammar, GrammarError> {
    Ok(match grammar.kind {
        GrammarKind::JsonSchema => {
            let schema = serde_json::from_str(&grammar.text);
            TopLevelGrammar::from_json_schema(schema.map_err(|error| GrammarError::Invalid(error.to_string()))?)
        }
        GrammarKind::Regex => TopLevelGrammar::from_regex(&grammar.text),
        GrammarKind::Lark => TopLevelGrammar::from_lark(grammar.text.clone()),
    })
}

/// In words: what the library says of a grammar that allows nothing is the name of a state.
fn mask_reason(error: &str) -> String {
    if error.contains("NoExtension") { "no text is of this grammar".to_owned() } else { reason(error) }
}

fn reason(error: &str) -> String {
    error.trim().chars().take(MAX_REASON_CHARACTERS).collect()
}
