//! From generated tokens to the text of a completion: special tokens say nothing, a stop string and what follows it never
//! show, and a token comes out with the text it belongs to.

use std::collections::VecDeque;
use std::sync::Arc;

use text_generation_scheduler::TokenId;

use super::types::{Scores, TopLogprobs};
use crate::api::stop::{Cut, StopCutter};
use crate::api::tgi::{FinishReason, PrefillToken, Token};
use crate::detokenize::{Detokenizer, TokenTable};
use crate::engine::{GeneratedToken, PromptToken};

/// Reads one sequence.
pub(super) struct Decoder {
    table: Arc<TokenTable>,
    detokenizer: Detokenizer,
    /// What TGI's token texts come from, special tokens included.
    native: Detokenizer,
    cutter: StopCutter,
    /// Bytes of text generated, and let out.
    generated: usize,
    shown: usize,
    /// Characters of the text so far, an echoed prompt included.
    offset: usize,
    /// Tokens wait here as long as their text is held back.
    waiting: VecDeque<(usize, ShownToken)>,
}

/// A token of a text, generated or of the prompt.
#[derive(Clone, Debug)]
pub(super) struct ShownToken {
    pub(super) id: TokenId,
    /// `None` for the first token of a prompt.
    pub(super) logprob: Option<f32>,
    pub(super) top: Vec<(TokenId, f32)>,
    /// Where it begins in the text, in characters.
    pub(super) offset: usize,
    /// What TGI says it adds to the text.
    pub(super) native_text: String,
}

/// What a token adds to the answer.
#[derive(Debug)]
pub(super) struct Step {
    /// The scored prompt, with the first token behind it.
    pub(super) prompt: Vec<ShownToken>,
    pub(super) text: String,
    pub(super) tokens: Vec<ShownToken>,
    pub(super) finish: Option<FinishReason>,
}

impl Decoder {
    /// `offset` is how many characters stand before what is generated.
    pub(super) fn new(table: Arc<TokenTable>, stops: Vec<String>, offset: usize) -> Self {
        Self {
            detokenizer: Detokenizer::new(Arc::clone(&table), true),
            native: Detokenizer::new(Arc::clone(&table), false),
            table,
            cutter: StopCutter::new(stops),
            generated: 0,
            shown: 0,
            offset,
            waiting: VecDeque::new(),
        }
    }

    pub(super) fn push(&mut self, token: GeneratedToken) -> Step {
        let mut text = self.detokenizer.push(token.id);
        if token.finish.is_some() {
            text.push_str(&self.detokenizer.flush());
        }
        let finish = token.finish;
        self.wait(token, &text);
        let (text, finish) = match (self.cutter.push(&text), finish) {
            (Cut::Stopped(text), _) => (text, Some(FinishReason::StopSequence)),
            (Cut::Open(text), None) => (text, None),
            (Cut::Open(text), Some(finish)) => (text + &self.cutter.finish(), Some(finish.into())),
        };
        self.shown += text.len();
        Step { prompt: Vec::new(), text, tokens: self.release(), finish }
    }

    fn wait(&mut self, token: GeneratedToken, text: &str) {
        self.generated += text.len();
        let native_text = self.native.push(token.id);
        let (id, logprob, offset) = (token.id, Some(token.logprob), self.offset);
        self.offset += text.chars().count();
        self.waiting.push_back((self.generated, ShownToken { id, logprob, top: token.top, offset, native_text }));
    }

    /// Tokens whose text has been let out. Those behind a stop string are never released.
    fn release(&mut self) -> Vec<ShownToken> {
        let shown = self.waiting.iter().take_while(|(end, _)| *end <= self.shown).count();
        self.waiting.drain(..shown).map(|(_, token)| token).collect()
    }

    pub(super) fn table(&self) -> &Arc<TokenTable> {
        &self.table
    }
}

/// The tokens of a prompt that is repeated as `echo`, each with its place there.
pub(super) fn of_prompt(prompt: Vec<PromptToken>, echo: &str, table: &Arc<TokenTable>) -> Vec<ShownToken> {
    let mut detokenizer = Detokenizer::from_start(Arc::clone(table), false);
    let (mut said, mut begin, mut begins) = (String::new(), 0, Vec::with_capacity(prompt.len()));
    for token in &prompt {
        let text = detokenizer.push(token.id);
        begins.push(begin);
        begin += text.chars().count();
        said.push_str(&text);
    }
    said.push_str(&detokenizer.flush());
    let place = Place::of(echo, &said);
    let shown = |(token, begin): (PromptToken, usize)| ShownToken {
        id: token.id,
        logprob: token.logprob,
        top: token.top,
        offset: place.offset(begin),
        native_text: table.token_text(token.id),
    };
    prompt.into_iter().zip(begins).map(shown).collect()
}

/// Where what was written stands in what its tokens say, in characters. They may say more: a token for the beginning, a
/// turn of a chat around it.
struct Place {
    written: usize,
    before: usize,
    /// How much of what is written is not said, at its start.
    missing: usize,
}

impl Place {
    fn of(written: &str, said: &str) -> Self {
        let count = |text: &str| text.chars().count();
        let (length, of_said) = (count(written), count(said));
        match said.find(written) {
            Some(at) => Self { written: length, before: count(&said[..at]), missing: 0 },
            // Pictures say something else than their addresses, and what is cut from a prompt is its start. Either way the
            // ends are alike.
            None => Self {
                written: length,
                before: of_said.saturating_sub(length),
                missing: length.saturating_sub(of_said),
            },
        }
    }

    fn offset(&self, begin: usize) -> usize {
        (begin + self.missing).saturating_sub(self.before).min(self.written)
    }
}

impl ShownToken {
    pub(super) fn prefill(&self) -> PrefillToken {
        PrefillToken { id: self.id, text: self.native_text.clone(), logprob: self.logprob }
    }

    pub(super) fn native(&self, table: &TokenTable) -> Token {
        let special = table.is_special(self.id);
        Token { id: self.id, text: self.native_text.clone(), logprob: self.logprob.unwrap_or(0.0), special }
    }

    /// The best tokens in its place, as TGI shows them.
    pub(super) fn native_top(&self, most: usize, table: &TokenTable) -> Vec<Token> {
        let token = |&(id, logprob)| Token { id, text: table.token_text(id), logprob, special: table.is_special(id) };
        self.top.iter().take(most).map(token).collect()
    }
}

impl Scores {
    /// With `most` of the best tokens beside each.
    pub(super) fn of<'a>(tokens: impl IntoIterator<Item = &'a ShownToken>, most: usize, table: &TokenTable) -> Self {
        let mut logprobs = Self::default();
        for token in tokens {
            logprobs.tokens.push(table.token_text(token.id));
            logprobs.token_logprobs.push(token.logprob);
            logprobs.top_logprobs.push(token.logprob.map(|logprob| TopLogprobs::of(token, logprob, most, table)));
            logprobs.text_offset.push(token.offset);
        }
        logprobs
    }
}

impl TopLogprobs {
    /// The token itself is always among them. Of several tokens with one text the best is kept.
    fn of(token: &ShownToken, logprob: f32, most: usize, table: &TokenTable) -> Self {
        let mut entries: Vec<(String, f32)> = Vec::with_capacity(token.top.len() + 1);
        for &(id, logprob) in token.top.iter().take(most).chain([&(token.id, logprob)]) {
            let text = table.token_text(id);
            if !entries.iter().any(|(known, _)| *known == text) {
                entries.push((text, logprob));
            }
        }
        Self(entries)
    }
}
