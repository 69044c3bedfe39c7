//! From generated tokens to the text of an answer: special tokens say nothing, a stop string and what follows it never
//! show, and log-probabilities come out with the text they belong to.

use std::collections::VecDeque;
use std::sync::Arc;

use text_generation_scheduler::{self as scheduler, TokenId};

use super::answers::{Alternative, FinishReason, Logprobs, TokenLogprob};
use super::tools::{CallDelta, CallReader, CallReading, Read};
use super::validate::Reply;
use crate::api::stop::{Cut, StopCutter};
use crate::detokenize::{Detokenizer, TokenTable};
use crate::engine::GeneratedToken;

/// Reads one sequence.
pub(super) struct Decoder {
    table: Arc<TokenTable>,
    detokenizer: Detokenizer,
    cutter: StopCutter,
    /// `None` if no tools were offered.
    calls: Option<CallReader>,
    /// Bytes of text generated, and let out.
    generated: usize,
    shown: usize,
    /// `None` when nobody asked. Entries wait here as long as their text is held back.
    waiting: Option<VecDeque<Waiting>>,
}

/// The entry of a token, and where its text ends in all that was generated.
struct Waiting {
    end: usize,
    entry: TokenLogprob,
}

/// What a token adds to the answer.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) text: String,
    pub(super) calls: Vec<CallDelta>,
    pub(super) logprobs: Option<Logprobs>,
    pub(super) finish: Option<FinishReason>,
}

impl Decoder {
    pub(super) fn new(table: Arc<TokenTable>, reply: &Reply) -> Self {
        let markers = reply.calls.as_ref().map(CallReading::markers).unwrap_or_default();
        Self {
            detokenizer: Detokenizer::new(Arc::clone(&table), true).showing(markers),
            table,
            cutter: StopCutter::new(reply.stops.clone()),
            calls: reply.calls.as_ref().map(CallReading::reader),
            generated: 0,
            shown: 0,
            waiting: reply.logprobs.then(VecDeque::new),
        }
    }

    pub(super) fn push(&mut self, token: &GeneratedToken) -> Step {
        let mut text = self.detokenizer.push(token.id);
        if token.finish.is_some() {
            text.push_str(&self.detokenizer.flush());
        }
        self.wait(token, text.len());
        let (text, finish) = match (self.cutter.push(&text), token.finish) {
            (Cut::Stopped(text), _) => (text, Some(FinishReason::Stop)),
            (Cut::Open(text), None) => (text, None),
            (Cut::Open(text), Some(finish)) => (text + &self.cutter.finish(), Some(finish.into())),
        };
        self.shown += text.len();
        let logprobs = self.release();
        let (read, finish) = self.read_calls(text, finish);
        Step { text: read.text, calls: read.calls, logprobs, finish }
    }

    /// Takes calls out of the text. An answer that called something ended for that reason, unless it was cut.
    fn read_calls(&mut self, text: String, finish: Option<FinishReason>) -> (Read, Option<FinishReason>) {
        let Some(reader) = &mut self.calls else { return (Read { text, calls: Vec::new() }, finish) };
        let mut read = reader.push(&text);
        if finish.is_some() {
            reader.finish(&mut read);
        }
        let finish = match finish {
            _ if reader.is_over() => Some(FinishReason::ToolCalls),
            Some(FinishReason::Stop) if reader.has_called() => Some(FinishReason::ToolCalls),
            finish => finish,
        };
        (read, finish)
    }

    fn wait(&mut self, token: &GeneratedToken, bytes: usize) {
        self.generated += bytes;
        let (table, end) = (&self.table, self.generated);
        if let Some(waiting) = &mut self.waiting {
            let alternatives = token.top.iter().map(|&(id, logprob)| alternative(table, id, logprob));
            let entry = TokenLogprob {
                token: alternative(table, token.id, token.logprob),
                top_logprobs: alternatives.collect(),
            };
            waiting.push_back(Waiting { end, entry });
        }
    }

    /// Entries whose text has been let out. Those behind a stop string are never released.
    fn release(&mut self) -> Option<Logprobs> {
        let waiting = self.waiting.as_mut()?;
        let shown = waiting.iter().take_while(|entry| entry.end <= self.shown).count();
        Some(Logprobs { content: waiting.drain(..shown).map(|waiting| waiting.entry).collect() })
    }
}

fn alternative(table: &TokenTable, id: TokenId, logprob: f32) -> Alternative {
    Alternative { token: table.token_text(id), logprob, bytes: table.token_bytes(id).map(<[u8]>::to_vec) }
}

impl From<scheduler::FinishReason> for FinishReason {
    fn from(finish: scheduler::FinishReason) -> Self {
        match finish {
            scheduler::FinishReason::Length => Self::Length,
            scheduler::FinishReason::EndOfSequence => Self::Stop,
        }
    }
}
