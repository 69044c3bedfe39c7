//! The steps from rendered text, or from segments, to a finished prompt.

use text_generation_scheduler::TokenId;

use super::conversation::{Content, Conversation, Message, Part, Role, Segment};
use super::encode::{Encoded, Forbidden};
use super::error::PromptError;
use super::expand::{Expanded, expand};
use super::finished::{Prompt, SpanKind, TokenSpan, Tokenized};
use super::place::{Placed, place};
use super::spanned::Spanned;
use super::{Inner, RawPrompt};
use crate::families::PlacedPrompt;
use crate::images::LoadedImage;

/// A prompt with the offsets of its tokens, if they were asked for.
pub(super) struct Built {
    pub(super) prompt: Prompt,
    offsets: Vec<(usize, usize)>,
    regions: Vec<std::ops::Range<usize>>,
}

impl Built {
    pub(super) fn tokenized(self) -> Tokenized {
        let text = self.prompt.text;
        let kind = |index: &usize| {
            if self.regions.iter().any(|region| region.contains(index)) { SpanKind::Image } else { SpanKind::Text }
        };
        let span = |(index, (&id, &(start, stop))): (usize, (&TokenId, &(usize, usize)))| TokenSpan {
            id,
            text: text.get(start..stop).unwrap_or_default().to_owned(),
            start,
            stop,
            kind: kind(&index),
        };
        let tokens = self.prompt.token_ids.iter().zip(&self.offsets).enumerate().map(span).collect();
        Tokenized { text, tokens }
    }
}

/// How a text is turned into a prompt.
struct Assembly<'a> {
    forbidden: &'a Forbidden,
    special_tokens: bool,
    truncate: Option<u32>,
    with_offsets: bool,
}

impl Inner {
    pub(super) fn chat(
        &self,
        conversation: &Conversation,
        images: Vec<LoadedImage>,
        with_offsets: bool,
    ) -> Result<Built, PromptError> {
        self.chat_truncated(conversation, images, None, with_offsets)
    }

    fn chat_truncated(
        &self,
        conversation: &Conversation,
        images: Vec<LoadedImage>,
        truncate: Option<u32>,
        with_offsets: bool,
    ) -> Result<Built, PromptError> {
        let renderer = self
            .renderer
            .as_ref()
            .ok_or_else(|| PromptError::Template("this model has no chat template".to_owned()))?;
        self.check_images(&images)?;
        let spanned = renderer.render(conversation, &self.encoder)?;
        let assembly = Assembly {
            forbidden: self.encoder.control(),
            special_tokens: self.chat_adds_special_tokens(&spanned.text),
            truncate,
            with_offsets: with_offsets || truncate.is_some(),
        };
        self.assemble(spanned, images, &assembly)
    }

    pub(super) fn raw(
        &self,
        segments: Vec<Segment>,
        images: Vec<LoadedImage>,
        truncate: Option<u32>,
    ) -> Result<Prompt, PromptError> {
        if self.raw_prompt == RawPrompt::Chat && self.renderer.is_some() && !self.has_chat_markup(&segments) {
            return self.chat_truncated(&one_turn(segments), images, truncate, false).map(|built| built.prompt);
        }
        self.raw_truncated(&segments, images, truncate, false).map(|built| built.prompt)
    }

    pub(super) fn of_ids(&self, ids: Vec<TokenId>, truncate: Option<u32>) -> Result<Prompt, PromptError> {
        self.check_images(&[])?;
        if let Some(&id) = ids.iter().find(|&&id| self.table.token_bytes(id).is_none()) {
            return Err(PromptError::UnknownToken(id));
        }
        if let Some(&id) = ids.iter().find(|&&id| self.encoder.media().has(id)) {
            return Err(PromptError::MediaToken(id));
        }
        let mut expanded = Expanded::text_only(Encoded { ids, offsets: Vec::new() });
        if let Some(truncate) = truncate {
            expanded.keep_last(truncate as usize, &[])?;
        }
        Ok(self.finish(expanded, Placed::default()).prompt)
    }

    pub(super) fn raw_text(
        &self,
        segments: &[Segment],
        images: Vec<LoadedImage>,
        with_offsets: bool,
    ) -> Result<Built, PromptError> {
        self.raw_truncated(segments, images, None, with_offsets)
    }

    pub(super) fn plain_text(&self, text: &str, special_tokens: bool) -> Result<Built, PromptError> {
        let mut spanned = Spanned::default();
        spanned.push_user_text(text);
        let forbidden = self.encoder.media();
        self.assemble(spanned, Vec::new(), &Assembly { forbidden, special_tokens, truncate: None, with_offsets: true })
    }

    fn raw_truncated(
        &self,
        segments: &[Segment],
        images: Vec<LoadedImage>,
        truncate: Option<u32>,
        with_offsets: bool,
    ) -> Result<Built, PromptError> {
        self.check_images(&images)?;
        let mut spanned = Spanned::default();
        for segment in segments {
            match segment {
                Segment::Text(text) => spanned.push_user_text(text),
                Segment::Image => spanned.text.push_str(&self.image_text),
            }
        }
        // Only offsets tell which separators belong to an image that is to be cut off whole.
        let with_offsets = with_offsets || truncate.is_some();
        let assembly = Assembly { forbidden: self.encoder.media(), special_tokens: true, truncate, with_offsets };
        self.assemble(spanned, images, &assembly)
    }

    fn has_chat_markup(&self, segments: &[Segment]) -> bool {
        segments.iter().any(|segment| matches!(segment, Segment::Text(text) if self.encoder.has_chat_markup(text)))
    }

    fn check_images(&self, images: &[LoadedImage]) -> Result<(), PromptError> {
        match &self.family {
            None if !images.is_empty() => Err(PromptError::NoImages),
            Some(family) if family.frame().is_some() && images.is_empty() => Err(PromptError::ImageNeeded),
            _ => Ok(()),
        }
    }

    /// The processors of vision-language models let the tokenizer add its special tokens, unless the template wrote
    /// the first one; the tokenizers of text models never do.
    fn chat_adds_special_tokens(&self, text: &str) -> bool {
        self.family.is_some() && !self.bos.as_ref().is_some_and(|bos| text.starts_with(bos.as_str()))
    }

    fn assemble(&self, spanned: Spanned, images: Vec<LoadedImage>, how: &Assembly<'_>) -> Result<Built, PromptError> {
        let placed = match &self.images {
            Some(marks) => place(&spanned, marks, &images)?,
            None => Placed { spanned, ..Placed::default() },
        };
        let mut encoded = self.encoder.encode(&placed.spanned, how.forbidden, how.with_offsets)?;
        if how.special_tokens {
            let (before, after) = self.encoder.special_tokens();
            encoded.surround(before, after, placed.spanned.text.len());
        }
        let mut expanded = match &self.family {
            Some(family) => expand(encoded, family.image_token(), &placed.runs, images)?,
            None => Expanded::text_only(encoded),
        };
        if let Some(truncate) = how.truncate {
            expanded.keep_last(truncate as usize, &placed.regions)?;
        }
        Ok(self.finish(expanded, placed))
    }

    fn finish(&self, expanded: Expanded, placed: Placed) -> Built {
        let mut prompt = Prompt { text: placed.spanned.text, ..Prompt::default() };
        if let Some(family) = &self.family {
            let images = expanded.placed();
            let placed_prompt = PlacedPrompt { token_ids: &expanded.token_ids, images: &images };
            prompt.positions = family.positions(&placed_prompt);
            prompt.both_ways = family.both_ways(&placed_prompt);
        }
        let regions = expanded.regions(&placed.regions);
        prompt.token_ids = expanded.token_ids;
        prompt.placeholders = expanded.placeholders;
        prompt.images = expanded.images;
        Built { prompt, offsets: expanded.offsets, regions }
    }
}

fn one_turn(segments: Vec<Segment>) -> Conversation {
    let part = |segment| match segment {
        Segment::Text(text) => Part::Text(text),
        Segment::Image => Part::Image,
    };
    let content = Content::Parts(segments.into_iter().map(part).collect());
    let message = Message { role: Role::User, name: None, content, tool_calls: None, tool_call_id: None };
    Conversation { messages: vec![message], ..Conversation::default() }
}
