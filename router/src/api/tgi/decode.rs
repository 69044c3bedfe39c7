//! From generated tokens to TGI's tokens and text. Streamed token texts show special tokens; the final text does not.

use std::sync::Arc;

use text_generation_scheduler::{self as scheduler, TokenId};

use super::types::{FinishReason, Token};
use crate::api::stop::BoundaryStops;
use crate::detokenize::{Detokenizer, TokenTable};
use crate::engine::GeneratedToken;

/// Reads one sequence.
pub(super) struct Decoder {
    table: Arc<TokenTable>,
    /// What token texts come from, special tokens included.
    shown: Detokenizer,
    /// What the final text comes from.
    plain: Detokenizer,
    text: String,
    stops: BoundaryStops,
    /// The end of the shown text, as far as a stop string can reach back.
    tail: String,
}

/// A generated token as TGI shows it.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) token: Token,
    pub(super) top_tokens: Vec<Token>,
    pub(super) finish: Option<FinishReason>,
}

impl Decoder {
    pub(super) fn new(table: Arc<TokenTable>, stops: BoundaryStops) -> Self {
        Self {
            shown: Detokenizer::new(Arc::clone(&table), false),
            plain: Detokenizer::new(Arc::clone(&table), true),
            table,
            text: String::new(),
            stops,
            tail: String::new(),
        }
    }

    pub(super) fn push(&mut self, generated: &GeneratedToken) -> Step {
        let text = self.shown.push(generated.id);
        self.text.push_str(&self.plain.push(generated.id));
        let finish = self.finish(&text, generated.finish);
        let special = self.table.is_special(generated.id);
        Step {
            token: Token { id: generated.id, text, logprob: generated.logprob, special },
            top_tokens: generated.top.iter().map(|&(id, logprob)| self.alternative(id, logprob)).collect(),
            finish,
        }
    }

    /// Length and end of sequence come before stop strings, as in TGI.
    fn finish(&mut self, text: &str, finish: Option<scheduler::FinishReason>) -> Option<FinishReason> {
        match finish {
            Some(finish) => Some(finish.into()),
            None => self.stopped(text).then_some(FinishReason::StopSequence),
        }
    }

    fn stopped(&mut self, text: &str) -> bool {
        self.tail.push_str(text);
        let met = self.stops.met(&self.tail);
        let from = self.tail.floor_char_boundary(self.tail.len().saturating_sub(self.stops.window()));
        self.tail.drain(..from);
        met
    }

    fn alternative(&self, id: TokenId, logprob: f32) -> Token {
        Token { id, text: self.table.token_text(id), logprob, special: self.table.is_special(id) }
    }

    /// The final text behind `prefix`; an unfinished character becomes a replacement character.
    pub(super) fn into_text(mut self, prefix: &str) -> String {
        let rest = self.plain.flush();
        format!("{prefix}{}{rest}", self.text)
    }
}

impl From<scheduler::FinishReason> for FinishReason {
    fn from(finish: scheduler::FinishReason) -> Self {
        match finish {
            scheduler::FinishReason::Length => Self::Length,
            scheduler::FinishReason::EndOfSequence => Self::EosToken,
        }
    }
}
