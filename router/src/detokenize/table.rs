//! The bytes of every token, read from the tokenizer's vocabulary and decoder.

use std::collections::HashSet;

use serde_json::Value;
use text_generation_scheduler::TokenId;

/// A decoder this server does not know.
#[derive(Debug, thiserror::Error)]
pub enum InvalidDecoder {
    /// A kind of decoder no supported family has.
    #[error("the tokenizer's decoder {0:?} is not supported")]
    Unknown(String),
    /// The vocabulary is not where it should be.
    #[error("the tokenizer has no vocabulary")]
    NoVocabulary,
}

/// How tokens become text.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Scheme {
    /// Tokens are bytes in disguise; characters may span tokens.
    ByteLevel,
    /// Tokens are text; single bytes are tokens named `<0xNN>`.
    Pieces(Pieces),
}

/// Settings of the `SentencePiece` kind of decoder.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Pieces {
    /// Replaced in every token, in order.
    replacements: Vec<(String, String)>,
    byte_fallback: bool,
    /// Taken off the start of a text.
    leading: Option<Leading>,
}

/// Characters taken off the start of a text.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Leading {
    pub(super) letter: char,
    /// So many at most.
    pub(super) most: usize,
    /// Only as far as the first token goes.
    pub(super) first_token_only: bool,
}

/// What one token contributes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Piece {
    /// These bytes.
    Text(Box<[u8]>),
    /// One byte of a character that has no token.
    Byte(u8),
}

impl Piece {
    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            Self::Text(bytes) => bytes,
            Self::Byte(byte) => std::slice::from_ref(byte),
        }
    }
}

/// Bytes and kind of every token of a model.
#[derive(Clone, Debug)]
pub struct TokenTable {
    pieces: Vec<Option<Piece>>,
    special: HashSet<TokenId>,
    scheme: Scheme,
}

impl TokenTable {
    /// From a tokenizer in the `tokenizers` library's own format.
    pub fn new(tokenizer: &Value) -> Result<Self, InvalidDecoder> {
        let scheme = scheme(&tokenizer["decoder"])?;
        let mut table = Self { pieces: Vec::new(), special: HashSet::new(), scheme };
        table.add_vocabulary(&tokenizer["model"]["vocab"])?;
        for token in tokenizer["added_tokens"].as_array().into_iter().flatten() {
            let (Some(id), Some(content)) = (id(&token["id"]), token["content"].as_str()) else { continue };
            table.set(id, content);
            if token["special"].as_bool() == Some(true) {
                table.special.insert(id);
            }
        }
        Ok(table)
    }

    /// Whether the token is one of the tokenizer's special tokens.
    pub fn is_special(&self, id: TokenId) -> bool {
        self.special.contains(&id)
    }

    /// The special token of this text.
    pub fn special_token(&self, text: &str) -> Option<TokenId> {
        let mut ids = self.special.iter().copied();
        ids.find(|&id| self.token_bytes(id) == Some(text.as_bytes()))
    }

    /// The token by itself as text; U+FFFD where it is not whole characters. Empty for an unknown id.
    pub fn token_text(&self, id: TokenId) -> String {
        self.token_bytes(id).map(|bytes| String::from_utf8_lossy(bytes).into_owned()).unwrap_or_default()
    }

    /// The bytes the token stands for; `None` for an unknown id.
    pub fn token_bytes(&self, id: TokenId) -> Option<&[u8]> {
        self.piece(id).map(Piece::bytes)
    }

    /// One more than the largest id.
    pub fn len(&self) -> usize {
        self.pieces.len()
    }

    /// Whether there is no token at all.
    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    pub(super) fn piece(&self, id: TokenId) -> Option<&Piece> {
        self.pieces.get(id as usize)?.as_ref()
    }

    pub(super) fn scheme(&self) -> &Scheme {
        &self.scheme
    }

    /// What the decoder takes off the start of a text.
    pub(super) fn leading(&self) -> Option<&Leading> {
        match &self.scheme {
            Scheme::Pieces(pieces) => pieces.leading.as_ref(),
            Scheme::ByteLevel => None,
        }
    }

    /// A map from text to id (BPE) or a list of texts with scores (Unigram).
    fn add_vocabulary(&mut self, vocabulary: &Value) -> Result<(), InvalidDecoder> {
        match vocabulary {
            Value::Object(map) => {
                map.iter()
                    .filter_map(|(text, value)| Some((id(value)?, text)))
                    .for_each(|(id, text)| self.set(id, text));
            }
            Value::Array(entries) => {
                let texts = entries.iter().map(|entry| entry[0].as_str().unwrap_or_default());
                texts.enumerate().for_each(|(index, text)| self.set(index as TokenId, text));
            }
            _ => return Err(InvalidDecoder::NoVocabulary),
        }
        Ok(())
    }

    fn set(&mut self, id: TokenId, text: &str) {
        let index = id as usize;
        if index >= self.pieces.len() {
            self.pieces.resize(index + 1, None);
        }
        self.pieces[index] = Some(self.scheme.piece(text));
    }
}

/// Ids beyond this are a broken file, not a vocabulary.
const MAX_ID: u64 = 1 << 24;

fn id(value: &Value) -> Option<TokenId> {
    value.as_u64().filter(|&id| id < MAX_ID).map(|id| id as TokenId)
}

impl Scheme {
    fn piece(&self, text: &str) -> Piece {
        match self {
            Self::ByteLevel => Piece::Text(byte_level(text).into()),
            Self::Pieces(pieces) => pieces.piece(text),
        }
    }
}

impl Pieces {
    fn piece(&self, text: &str) -> Piece {
        let replaced = |text: String, (from, to): &(String, String)| text.replace(from.as_str(), to);
        let text = self.replacements.iter().fold(text.to_owned(), replaced);
        match fallback_byte(&text).filter(|_| self.byte_fallback) {
            Some(byte) => Piece::Byte(byte),
            None => Piece::Text(text.into_bytes().into()),
        }
    }
}

fn fallback_byte(text: &str) -> Option<u8> {
    let digits = text.strip_prefix("<0x")?.strip_suffix('>')?;
    if digits.len() == 2 { u8::from_str_radix(digits, 16).ok() } else { None }
}

/// The bytes behind a token of a byte-level vocabulary; a token with a character outside the disguise is its own text.
fn byte_level(text: &str) -> Vec<u8> {
    let bytes: Option<Vec<u8>> = text.chars().map(disguised_byte).collect();
    bytes.unwrap_or_else(|| text.as_bytes().to_vec())
}

/// GPT-2's disguise: printable Latin-1 stands for itself, the 68 other bytes for U+0100 and on, in order.
fn disguised_byte(letter: char) -> Option<u8> {
    let printable = |byte: u8| matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    match u8::try_from(letter) {
        Ok(byte) => printable(byte).then_some(byte),
        Err(_) => (0..=u8::MAX).filter(|&byte| !printable(byte)).nth((letter as usize).checked_sub(0x100)?),
    }
}

/// Reads the decoder, which is one step or a sequence of them.
fn scheme(decoder: &Value) -> Result<Scheme, InvalidDecoder> {
    let steps: Vec<&Value> = match decoder["decoders"].as_array() {
        Some(steps) => steps.iter().collect(),
        None => vec![decoder],
    };
    if steps.iter().any(|step| step["type"] == "ByteLevel") {
        return Ok(Scheme::ByteLevel);
    }
    let mut pieces = Pieces::default();
    steps.into_iter().try_for_each(|step| pieces.read(step))?;
    Ok(Scheme::Pieces(pieces))
}

impl Pieces {
    fn read(&mut self, step: &Value) -> Result<(), InvalidDecoder> {
        let text = |key: &str| step[key].as_str().map(str::to_owned);
        match step["type"].as_str() {
            Some("Replace") => {
                let pattern = step["pattern"]["String"].as_str().map(str::to_owned);
                let pair = pattern.zip(text("content")).ok_or_else(|| unknown(step))?;
                self.replacements.push(pair);
            }
            Some("ByteFallback") => self.byte_fallback = true,
            Some("Fuse") => {}
            Some("Strip") if step["stop"].as_u64() == Some(0) => self.read_strip(step)?,
            Some("Metaspace") => self.read_metaspace(step)?,
            _ => return Err(unknown(step)),
        }
        Ok(())
    }

    fn read_strip(&mut self, step: &Value) -> Result<(), InvalidDecoder> {
        let letter =
            step["content"].as_str().and_then(|content| content.chars().next()).ok_or_else(|| unknown(step))?;
        let most = step["start"].as_u64().unwrap_or(0) as usize;
        self.leading = Some(Leading { letter, most, first_token_only: false });
        Ok(())
    }

    fn read_metaspace(&mut self, step: &Value) -> Result<(), InvalidDecoder> {
        let blank = step["replacement"].as_str().ok_or_else(|| unknown(step))?;
        self.replacements.push((blank.to_owned(), " ".to_owned()));
        let blanks = Leading { letter: ' ', most: usize::MAX, first_token_only: true };
        self.leading = (step["prepend_scheme"] != "never").then_some(blanks);
        Ok(())
    }
}

fn unknown(step: &Value) -> InvalidDecoder {
    InvalidDecoder::Unknown(step["type"].as_str().unwrap_or("none").to_owned())
}
