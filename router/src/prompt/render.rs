//! A conversation as the model's chat template writes it, with the user's parts known.

use super::context::{ContentShape, ContextBuilder};
use super::conversation::{Content, Conversation, Role};
use super::encode::Encoder;
use super::error::PromptError;
use super::marks::{ControlPieces, Marking, Marks};
use super::probe;
use super::spanned::Spanned;
use super::template::{ChatTemplate, InvalidTemplate, TemplateLimits};
use super::tool_probe::{ToolTemplate, tool_template};
use crate::prepared::PreparedModel;

/// A chat template and what it takes.
pub(super) struct Renderer {
    template: ChatTemplate,
    shape: ContentShape,
    /// What the template writes once an image; it need not be a token.
    anchor: Option<String>,
}

impl Renderer {
    /// `None` for a model without a chat template.
    pub(super) fn new(
        model: &PreparedModel,
        anchor: Option<&str>,
        limits: TemplateLimits,
    ) -> Result<Option<Self>, InvalidTemplate> {
        let Some(source) = &model.chat_template else { return Ok(None) };
        let template = ChatTemplate::new(source, model.special_tokens.clone(), limits)?;
        let shape = probe::content_shape(&template, anchor);
        Ok(Some(Self { template, shape, anchor: anchor.map(str::to_owned) }))
    }

    /// What the template writes for an image.
    pub(super) fn image_text(&self) -> Option<String> {
        probe::image_text(&self.template, &self.shape)
    }

    /// What the template makes of tools.
    pub(super) fn tool_template(&self) -> ToolTemplate {
        tool_template(&self.template, &self.shape)
    }

    /// The text the model is to be sent, and which parts of it the user wrote.
    pub(super) fn render(&self, conversation: &Conversation, encoder: &Encoder) -> Result<Spanned, PromptError> {
        check(conversation)?;
        let marks = self.marks(conversation).ok_or(PromptError::ControlTokens)?;
        let rendering =
            Rendering { renderer: self, conversation, encoder, cut: conversation.continue_final.then_some(marks.cut) };
        let text = rendering.run(Marking::Off)?;
        let has_anchor = self.anchor.as_ref().is_some_and(|anchor| text.contains(anchor.as_str()));
        if !has_anchor && encoder.added_tokens(&text).is_empty() {
            return Ok(Spanned { text, user: Vec::new() });
        }
        match rendering.marked(Marking::Whole(marks), marks, &text) {
            Some(spanned) => Ok(spanned),
            None => rendering.with_marked_tokens(marks, &text),
        }
    }

    fn marks(&self, conversation: &Conversation) -> Option<Marks> {
        Marks::absent_from(|visit| {
            conversation.each_text(&mut |text| visit(text));
            visit(self.template.source());
        })
    }
}

/// A chat needs a message, and a continued one a message of the assistant to continue.
fn check(conversation: &Conversation) -> Result<(), PromptError> {
    let last = conversation.messages.last().ok_or_else(|| PromptError::Template("there are no messages".to_owned()))?;
    let continuable = last.role == Role::Assistant && !matches!(last.content, Content::None);
    if conversation.continue_final && !continuable { Err(PromptError::NothingToContinue) } else { Ok(()) }
}

/// One conversation, rendered several times.
struct Rendering<'a> {
    renderer: &'a Renderer,
    conversation: &'a Conversation,
    encoder: &'a Encoder,
    cut: Option<char>,
}

impl Rendering<'_> {
    fn run(&self, marking: Marking<'_>) -> Result<String, PromptError> {
        let builder =
            ContextBuilder { shape: &self.renderer.shape, marking, encoder: Some(self.encoder), cut: self.cut };
        let mut text = self.renderer.template.render(builder.build(self.conversation)?)?;
        if let Some(cut) = self.cut {
            text.truncate(text.rfind(cut).ok_or(PromptError::NothingToContinue)?);
        }
        Ok(text)
    }

    /// Where user text is in `text`; `None` when marks change what the template writes.
    fn marked(&self, marking: Marking<'_>, marks: Marks, text: &str) -> Option<Spanned> {
        let spanned = marks.strip(&self.run(marking).ok()?)?;
        (spanned.text == text).then_some(spanned)
    }

    /// For templates that look at how a text begins or ends: marks go only where a control token could come from.
    /// A template that takes a text apart could still join one out of the rest, so the control tokens must be as many
    /// as the template writes around other texts.
    fn with_marked_tokens(&self, marks: Marks, text: &str) -> Result<Spanned, PromptError> {
        let encoder = self.encoder;
        let pieces = ControlPieces::new(encoder);
        let spanned = self.marked(Marking::Tokens(marks, &pieces), marks, text).ok_or(PromptError::ControlTokens)?;
        let blank = self.run(Marking::Blank).map_err(|_| PromptError::ControlTokens)?;
        let expected = encoder.control_tokens_outside(&Spanned { text: blank, user: Vec::new() });
        if encoder.control_tokens_outside(&spanned) == expected { Ok(spanned) } else { Err(PromptError::ControlTokens) }
    }
}
