//! From text to token ids, such that user text never becomes a control token.
//!
//! Honest text is tokenised whole, exactly as transformers does it. Only when a control token is found that overlaps
//! what a user wrote is the text cut at it, and the cut-out piece tokenised without looking at added tokens. At the
//! end the control tokens are counted; a wrong number refuses the request, whatever the reason.

use std::collections::HashMap;
use std::ops::Range;

use serde_json::Value;
use text_generation_scheduler::TokenId;
use tokenizers::{
    AddedToken, Encoding, Model as _, Normalizer as _, OffsetReferential, OffsetType, PreTokenizedString,
    PreTokenizer as _, Tokenizer,
};

use super::error::PromptError;
use super::spanned::Spanned;

/// A tokenizer that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum InvalidTokenizer {
    /// The `tokenizers` library does not take it.
    #[error("the tokenizer cannot be loaded: {0}")]
    Load(String),
    /// It has no token of this name, though the model's settings speak of one.
    #[error("the tokenizer has no token {0:?}")]
    MissingToken(String),
    /// It has no token of this id, though the model's configuration speaks of one.
    #[error("the tokenizer has no token with id {0}")]
    MissingId(TokenId),
}

/// Tokens a text must not become.
#[derive(Clone, Debug, Default)]
pub(super) struct Forbidden(HashMap<TokenId, String>);

impl Forbidden {
    pub(super) fn has(&self, id: TokenId) -> bool {
        self.0.contains_key(&id)
    }

    pub(super) fn texts(&self) -> impl Iterator<Item = &str> {
        self.0.values().map(String::as_str)
    }

    /// Whether such a token lies in a text, or the text, or its beginning or end, in such a token.
    pub(super) fn may_hold(&self, text: &str) -> bool {
        let cuts = || text.char_indices().map(|(at, _)| at).skip(1);
        self.texts().any(|token| {
            let inside = token.contains(text) || text.contains(token);
            inside || cuts().any(|at| token.ends_with(&text[..at]) || token.starts_with(&text[at..]))
        })
    }
}

/// Token ids and where in the text they come from.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Encoded {
    pub(super) ids: Vec<TokenId>,
    /// Byte ranges, one a token; empty when they were not asked for.
    pub(super) offsets: Vec<(usize, usize)>,
}

/// An added token found in a text.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct FoundToken {
    pub(super) id: TokenId,
    pub(super) range: Range<usize>,
}

/// A tokenizer that knows which tokens are not for users.
pub(super) struct Encoder {
    tokenizer: Tokenizer,
    added: HashMap<TokenId, AddedToken>,
    control: Forbidden,
    media: Forbidden,
    /// What the model makes of characters it has no token for; honest text may have some.
    unknown: Option<TokenId>,
    newline: Vec<TokenId>,
    around: (Vec<TokenId>, Vec<TokenId>),
}

impl Encoder {
    /// `json` is the tokenizer as the prepared model holds it; `control` and `media` are texts of added tokens.
    pub(super) fn new(json: &Value, control: &[String], media: &[String]) -> Result<Self, InvalidTokenizer> {
        let mut tokenizer: Tokenizer =
            serde_json::from_value(json.clone()).map_err(|error| InvalidTokenizer::Load(error.to_string()))?;
        tokenizer.with_truncation(None).map_err(|error| InvalidTokenizer::Load(error.to_string()))?;
        tokenizer.with_padding(None);
        let added: HashMap<TokenId, AddedToken> = tokenizer.get_added_tokens_decoder().into_iter().collect();
        let mut encoder = Self {
            control: forbidden(&tokenizer, control)?,
            media: forbidden(&tokenizer, media)?,
            unknown: unknown_token(json, &tokenizer),
            tokenizer,
            added,
            newline: Vec::new(),
            around: Default::default(),
        };
        encoder.newline = encoder.encode_whole("\n", false).map(|encoded| encoded.ids).unwrap_or_default();
        encoder.around = encoder.special_tokens_around().unwrap_or_default();
        Ok(encoder)
    }

    /// Makes the token of this id a control and media token too, and returns its text.
    pub(super) fn forbid_media(&mut self, id: TokenId) -> Result<String, InvalidTokenizer> {
        let text = self.tokenizer.id_to_token(id).ok_or(InvalidTokenizer::MissingId(id))?;
        self.control.0.insert(id, text.clone());
        self.media.0.insert(id, text.clone());
        Ok(text)
    }

    /// Everything user text must not become in a chat.
    pub(super) fn control(&self) -> &Forbidden {
        &self.control
    }

    /// What user text must not become anywhere: the tokens that stand for images, videos and sounds.
    pub(super) fn media(&self) -> &Forbidden {
        &self.media
    }

    /// Whether the text has a control token that does not stand for media: a client wrote the chat format by hand.
    pub(super) fn has_chat_markup(&self, text: &str) -> bool {
        self.added_tokens(text).iter().any(|found| self.control.has(found.id) && !self.media.has(found.id))
    }

    /// What the post-processor puts before and after a text (`<s>`, say).
    pub(super) fn special_tokens(&self) -> &(Vec<TokenId>, Vec<TokenId>) {
        &self.around
    }

    /// The ids of a text in which user text never becomes a `forbidden` token.
    ///
    /// Errors: `ControlTokens` when the tokenizer makes one all the same.
    pub(super) fn encode(
        &self,
        spanned: &Spanned,
        forbidden: &Forbidden,
        with_offsets: bool,
    ) -> Result<Encoded, PromptError> {
        let found: Vec<FoundToken> =
            self.added_tokens(&spanned.text).into_iter().filter(|found| forbidden.has(found.id)).collect();
        let hostile: Vec<&FoundToken> = found.iter().filter(|found| overlaps(&spanned.user, &found.range)).collect();
        let encoded = if hostile.is_empty() {
            self.encode_whole(&spanned.text, with_offsets)?
        } else {
            refuse_swallowed(spanned, &hostile, forbidden)?;
            self.encode_pieces(&spanned.text, &hostile, with_offsets)?
        };
        let written = found.iter().filter(|found| !overlaps(&spanned.user, &found.range));
        let expected = written.filter(|found| Some(found.id) != self.unknown).count();
        let made = encoded.ids.iter().filter(|&&id| forbidden.has(id) && Some(id) != self.unknown).count();
        if made == expected { Ok(encoded) } else { Err(PromptError::ControlTokens) }
    }

    /// The control tokens that are no part of user text, in order.
    pub(super) fn control_tokens_outside(&self, spanned: &Spanned) -> Vec<TokenId> {
        let found = self.added_tokens(&spanned.text).into_iter();
        found
            .filter(|found| self.control.has(found.id) && !overlaps(&spanned.user, &found.range))
            .map(|found| found.id)
            .collect()
    }

    /// Every added token in the text, found by the tokenizer's own matcher. Blanks that a token takes in beside
    /// itself are not part of its range: they may be a user's.
    pub(super) fn added_tokens(&self, text: &str) -> Vec<FoundToken> {
        let extracted =
            self.tokenizer.get_added_vocabulary().extract_and_normalize(self.tokenizer.get_normalizer(), text);
        let splits = extracted.get_splits(OffsetReferential::Original, OffsetType::Byte);
        let found = splits.into_iter().filter_map(|(_, offsets, tokens)| Some((offsets, tokens.as_ref()?.first()?.id)));
        found.map(|((start, end), id)| FoundToken { id, range: self.core(text, id, start..end) }).collect()
    }

    fn core(&self, text: &str, id: TokenId, range: Range<usize>) -> Range<usize> {
        let content = self.added.get(&id).map_or("", |token| token.content.as_str());
        match text.get(range.clone()).and_then(|matched| matched.find(content)) {
            Some(at) if !content.is_empty() => range.start + at..range.start + at + content.len(),
            _ => range,
        }
    }

    /// As transformers tokenises a text, without the post-processor.
    fn encode_whole(&self, text: &str, with_offsets: bool) -> Result<Encoded, PromptError> {
        let added = self.tokenizer.get_added_vocabulary();
        self.finish(added.extract_and_normalize(self.tokenizer.get_normalizer(), text), with_offsets)
    }

    /// The ids of a text that no added token is looked for in; none if there are none.
    pub(super) fn plain(&self, text: &str) -> Vec<TokenId> {
        self.encode_plain(text, false).map(|encoded| encoded.ids).unwrap_or_default()
    }

    /// As plain text: no added token is looked for.
    fn encode_plain(&self, text: &str, with_offsets: bool) -> Result<Encoded, PromptError> {
        let mut pieces = PreTokenizedString::from(text);
        if let Some(normalizer) = self.tokenizer.get_normalizer() {
            pieces.normalize(|piece| normalizer.normalize(piece)).map_err(|_| PromptError::Tokenize)?;
        }
        self.finish(pieces, with_offsets)
    }

    fn finish(&self, mut pieces: PreTokenizedString, with_offsets: bool) -> Result<Encoded, PromptError> {
        let run = |pieces: &mut PreTokenizedString| -> tokenizers::Result<()> {
            self.tokenizer.get_pre_tokenizer().map_or(Ok(()), |split| split.pre_tokenize(pieces))?;
            self.tokenizer.get_model().tokenize_in_pretokenized(pieces, None)
        };
        run(&mut pieces).map_err(|_| PromptError::Tokenize)?;
        let offsets = if with_offsets { OffsetType::Byte } else { OffsetType::None };
        let encoding = pieces.into_encoding(None, 0, offsets).map_err(|_| PromptError::Tokenize)?;
        Ok(Encoded::from_encoding(&encoding, with_offsets))
    }

    /// The text cut at every hostile token: `text, token, text, …, text`, as transformers cuts a marked chat.
    fn encode_pieces(&self, text: &str, hostile: &[&FoundToken], with_offsets: bool) -> Result<Encoded, PromptError> {
        let first = hostile.first().map_or(text.len(), |found| found.range.start);
        let mut encoded = self.encode_whole(&text[..first], with_offsets)?;
        for (index, found) in hostile.iter().enumerate() {
            let next = hostile.get(index + 1).map_or(text.len(), |next| next.range.start);
            for (range, plain) in [(found.range.clone(), true), (found.range.end..next, false)] {
                encoded.append(self.encode_later_piece(&text[range.clone()], plain, with_offsets)?, range.start);
            }
        }
        Ok(encoded)
    }

    /// A piece from the middle of a text. A line break goes before it and is taken away again, so that no tokenizer
    /// sees the piece as the start of a text and puts a blank in front.
    fn encode_later_piece(&self, piece: &str, plain: bool, with_offsets: bool) -> Result<Encoded, PromptError> {
        if piece.is_empty() {
            return Ok(Encoded::default());
        }
        let encode = |text: &str| {
            if plain { self.encode_plain(text, with_offsets) } else { self.encode_whole(text, with_offsets) }
        };
        let mut encoded = encode(&format!("\n{piece}"))?;
        if !encoded.ids.starts_with(&self.newline) {
            return encode(piece);
        }
        encoded.skip(self.newline.len(), "\n".len());
        Ok(encoded)
    }

    /// What the post-processor adds around a text; none if it adds nothing or something else.
    fn special_tokens_around(&self) -> Option<(Vec<TokenId>, Vec<TokenId>)> {
        let plain = self.tokenizer.encode_fast("x", false).ok()?;
        let full = self.tokenizer.encode_fast("x", true).ok()?;
        let (plain, full) = (plain.get_ids(), full.get_ids());
        let at = full.windows(plain.len().max(1)).position(|window| window == plain)?;
        Some((full[..at].to_vec(), full[at + plain.len()..].to_vec()))
    }
}

impl Encoded {
    fn from_encoding(encoding: &Encoding, with_offsets: bool) -> Self {
        let offsets = if with_offsets { encoding.get_offsets().to_vec() } else { Vec::new() };
        Self { ids: encoding.get_ids().to_vec(), offsets }
    }

    /// Puts tokens that stand for no text before and after a text of this many bytes.
    pub(super) fn surround(&mut self, before: &[TokenId], after: &[TokenId], bytes: usize) {
        if !self.offsets.is_empty() || self.ids.is_empty() {
            self.offsets.splice(0..0, before.iter().map(|_| (0, 0)));
            self.offsets.extend(after.iter().map(|_| (bytes, bytes)));
        }
        self.ids.splice(0..0, before.iter().copied());
        self.ids.extend_from_slice(after);
    }

    fn append(&mut self, piece: Self, start: usize) {
        self.ids.extend(piece.ids);
        self.offsets.extend(piece.offsets.into_iter().map(|(from, to)| (from + start, to + start)));
    }

    /// Drops the first `tokens` tokens, which stand for the first `bytes` bytes.
    fn skip(&mut self, tokens: usize, bytes: usize) {
        self.ids.drain(..tokens);
        self.offsets.drain(..tokens.min(self.offsets.len()));
        for (from, to) in &mut self.offsets {
            *from = from.saturating_sub(bytes);
            *to = to.saturating_sub(bytes);
        }
    }
}

fn forbidden(tokenizer: &Tokenizer, texts: &[String]) -> Result<Forbidden, InvalidTokenizer> {
    let id = |text: &String| tokenizer.token_to_id(text).ok_or_else(|| InvalidTokenizer::MissingToken(text.clone()));
    texts.iter().map(|text| Ok((id(text)?, text.clone()))).collect::<Result<_, _>>().map(Forbidden)
}

fn unknown_token(json: &Value, tokenizer: &Tokenizer) -> Option<TokenId> {
    let by_index = json["model"]["unk_id"].as_u64().and_then(|id| TokenId::try_from(id).ok());
    json["model"]["unk_token"].as_str().and_then(|text| tokenizer.token_to_id(text)).or(by_index)
}

/// Whether a range shares a byte with one of the ordered `spans`.
fn overlaps(spans: &[Range<usize>], range: &Range<usize>) -> bool {
    let after = spans.partition_point(|span| span.end <= range.start);
    spans.get(after).is_some_and(|span| span.start < range.end)
}

/// A hostile match may reach over the edge of user text and take in a token the template wrote. Cutting it out would
/// take the template's token away, so that is refused.
fn refuse_swallowed(spanned: &Spanned, hostile: &[&FoundToken], forbidden: &Forbidden) -> Result<(), PromptError> {
    for found in hostile {
        let matched = &spanned.text[found.range.clone()];
        let swallows = |token: &str| {
            matched.len() > token.len()
                && matched.match_indices(token).any(|(at, _)| {
                    let start = found.range.start + at;
                    !overlaps(&spanned.user, &(start..start + token.len()))
                })
        };
        if !covers(&spanned.user, &found.range) && forbidden.texts().any(swallows) {
            return Err(PromptError::ControlTokens);
        }
    }
    Ok(())
}

/// Whether one of the ordered `spans` holds all of the range.
fn covers(spans: &[Range<usize>], range: &Range<usize>) -> bool {
    let after = spans.partition_point(|span| span.end <= range.start);
    spans.get(after).is_some_and(|span| span.start <= range.start && range.end <= span.end)
}
