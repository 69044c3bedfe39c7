//! From token ids back to text, one token at a time.
//!
//! A table of bytes per token and a few held-back bytes: constant work for every token, whatever came before. What it
//! yields, put together, is what the tokenizer's own decoder makes of all the ids at once.

use std::sync::Arc;

use text_generation_scheduler::TokenId;

mod table;
#[cfg(test)]
pub(crate) mod tests;

pub use table::{InvalidDecoder, TokenTable};
use table::{Piece, Scheme};

/// Bytes of byte-fallback tokens that are held back at most.
const MAX_HELD_BYTES: usize = 64;

/// The text of one sequence, as it grows.
///
/// Counts as the continuation of a prompt: a blank that the first token begins with is kept.
#[derive(Clone, Debug)]
pub struct Detokenizer {
    table: Arc<TokenTable>,
    skip_special: bool,
    /// Special tokens that are text all the same.
    shown: Arc<[TokenId]>,
    /// Characters that may still be taken off the start of the text.
    leading: usize,
    held: Vec<u8>,
}

impl Detokenizer {
    /// For what a model generates after a prompt. `skip_special` leaves special tokens out.
    pub fn new(table: Arc<TokenTable>, skip_special: bool) -> Self {
        Self { table, skip_special, shown: Arc::default(), leading: 0, held: Vec::new() }
    }

    /// For ids that are a whole text: decoders of the `SentencePiece` kind drop the blank in front.
    pub fn from_start(table: Arc<TokenTable>, skip_special: bool) -> Self {
        let leading = table.leading().map_or(0, |leading| leading.most);
        Self { leading, ..Self::new(table, skip_special) }
    }

    /// With these special tokens as text, whatever happens to the others.
    #[must_use]
    pub fn showing(self, shown: Arc<[TokenId]>) -> Self {
        Self { shown, ..self }
    }

    /// The text this token completes; empty while a character is incomplete.
    pub fn push(&mut self, id: TokenId) -> String {
        let Some(piece) = self.table.piece(id) else { return String::new() };
        if self.skip_special && self.table.is_special(id) && !self.shown.contains(&id) {
            return String::new();
        }
        match (self.table.scheme(), piece) {
            (Scheme::ByteLevel, piece) => {
                self.held.extend_from_slice(piece.bytes());
                take_characters(&mut self.held)
            }
            (Scheme::Pieces(_), Piece::Byte(byte)) => {
                self.held.push(*byte);
                let text = self.take_fallback_bytes();
                self.without_leading(text)
            }
            (Scheme::Pieces(_), Piece::Text(bytes)) => {
                let text = replaced(&std::mem::take(&mut self.held)) + &String::from_utf8_lossy(bytes);
                self.without_leading(text)
            }
        }
    }

    /// What was held back. To be called once, after the last token.
    pub fn flush(&mut self) -> String {
        let held = std::mem::take(&mut self.held);
        match self.table.scheme() {
            Scheme::ByteLevel => String::from_utf8_lossy(&held).into_owned(),
            Scheme::Pieces(_) => replaced(&held),
        }
    }

    /// The text of a token without what the decoder takes off the start of a text.
    fn without_leading(&mut self, mut text: String) -> String {
        if let Some(leading) = self.table.leading().filter(|_| self.leading > 0) {
            let taken = text.chars().take(self.leading).take_while(|&letter| letter == leading.letter).count();
            text.drain(..taken * leading.letter.len_utf8());
            let ends = leading.first_token_only || !text.is_empty();
            self.leading = if ends { 0 } else { self.leading - taken };
        }
        text
    }

    /// The run of bytes so far, once it is text or has grown too long to be.
    fn take_fallback_bytes(&mut self) -> String {
        match String::from_utf8(std::mem::take(&mut self.held)) {
            Ok(text) => text,
            Err(error) if error.as_bytes().len() >= MAX_HELD_BYTES => replaced(error.as_bytes()),
            Err(error) => {
                self.held = error.into_bytes();
                String::new()
            }
        }
    }
}

/// The complete characters, with one U+FFFD for every run of bytes that no character begins with.
fn take_characters(held: &mut Vec<u8>) -> String {
    let mut text = String::new();
    let mut kept = 0;
    for chunk in held.utf8_chunks() {
        text.push_str(chunk.valid());
        kept = chunk.invalid().len();
        if !chunk.invalid().is_empty() {
            text.push(char::REPLACEMENT_CHARACTER);
        }
    }
    if kept > 0 && is_beginning(&held[held.len() - kept..]) {
        text.pop();
    } else {
        kept = 0;
    }
    held.drain(..held.len() - kept);
    text
}

/// Whether more bytes could make a character of these, which are none yet.
fn is_beginning(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_err_and(|error| error.error_len().is_none() && error.valid_up_to() == 0)
}

/// A run of byte-fallback tokens that is no text: one U+FFFD for every byte.
fn replaced(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => char::REPLACEMENT_CHARACTER.to_string().repeat(bytes.len()),
    }
}
