//! Helpers: the embedded model, a family whose images are as long as a test wants, and short ways to write chats.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;
use text_generation_scheduler::{ImageKey, Positions, TokenId};

use super::*;
use crate::families::{ImageLayout, ImageRejected, ImageSize, Piece, PlacedPrompt};
use crate::images::ImageTimings;

mod expansion;
mod frames;
mod injection;
mod other_tokenizers;
mod parity;
mod templates;

pub(super) const IMAGE: TokenId = 4;

/// Its images are made of the tokens they were loaded with; positions show where they are.
pub(super) struct TestFamily {
    pub(super) anchor: TokenId,
    pub(super) image_token: TokenId,
    /// For an anchor that is no token.
    pub(super) anchor_text: Option<&'static str>,
}

impl VlmFamily for TestFamily {
    fn layout(&self, _: ImageSize) -> Result<ImageLayout, ImageRejected> {
        Ok(ImageLayout { views: Vec::new(), pieces: vec![Piece::Tokens(1)] })
    }

    fn image_token(&self) -> TokenId {
        self.image_token
    }

    fn anchor(&self) -> TokenId {
        self.anchor
    }

    fn anchor_text(&self) -> Option<&str> {
        self.anchor_text
    }

    fn both_ways(&self, prompt: &PlacedPrompt<'_>) -> Vec<Range<u32>> {
        prompt.images.iter().flat_map(|image| image.runs).map(|run| run.offset..run.end()).collect()
    }

    fn positions(&self, prompt: &PlacedPrompt<'_>) -> Positions {
        let offsets = prompt.images.iter().map(|image| image.offset as i32).collect();
        Positions::Explicit { axes: vec![offsets], next: prompt.token_ids.len() as i32 }
    }
}

pub(super) fn family() -> Arc<dyn VlmFamily> {
    Arc::new(TestFamily { anchor: IMAGE, image_token: IMAGE, anchor_text: None })
}

/// The repository's root.
pub(super) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

pub(super) fn embedded() -> PreparedModel {
    let path = root().join("server/text_generation_server/embedded/prepared.json");
    PreparedModel::read(&path).expect("the embedded model is prepared")
}

/// The embedded model with another chat template.
pub(super) fn with_template(template: &str) -> PromptBuilder {
    let mut model = embedded();
    model.chat_template = Some(template.to_owned());
    PromptBuilder::new(&model, Some(family())).expect("the template compiles")
}

pub(super) fn builder() -> PromptBuilder {
    PromptBuilder::new(&embedded(), Some(family())).expect("the embedded model is valid")
}

pub(super) fn golden(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens").join(name);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).expect("goldens are JSON")
}

/// An image of this many tokens; `name` is its identity.
pub(super) fn image(name: u8, tokens: u32) -> LoadedImage {
    image_of(name, vec![Piece::Tokens(tokens)])
}

/// An image that these pieces stand for.
pub(super) fn image_of(name: u8, pieces: Vec<Piece>) -> LoadedImage {
    LoadedImage {
        key: ImageKey([name; 32]),
        size: ImageSize { width: 8, height: 8 },
        layout: Arc::new(ImageLayout { views: Vec::new(), pieces }),
        views: Arc::new(Vec::new()),
        timings: ImageTimings::default(),
        ready: std::time::Instant::now(),
        from_cache: false,
    }
}

/// As many images of one token as the conversation has places for.
pub(super) fn images_for(conversation: &Conversation) -> Vec<LoadedImage> {
    let parts = conversation.messages.iter().filter_map(|message| match &message.content {
        Content::Parts(parts) => Some(parts),
        _ => None,
    });
    parts.flatten().filter(|part| **part == Part::Image).map(|_| image(1, 1)).collect()
}

pub(super) fn message(role: Role, content: Content) -> Message {
    Message { role, name: None, content, tool_calls: None, tool_call_id: None }
}

pub(super) fn user(text: &str) -> Message {
    message(Role::User, Content::Text(text.to_owned()))
}

pub(super) fn assistant(text: &str) -> Message {
    message(Role::Assistant, Content::Text(text.to_owned()))
}

pub(super) fn parts(parts: &[Part]) -> Message {
    message(Role::User, Content::Parts(parts.to_vec()))
}

pub(super) fn text(text: &str) -> Part {
    Part::Text(text.to_owned())
}

pub(super) fn chat_of(messages: Vec<Message>) -> Conversation {
    Conversation { messages, ..Conversation::default() }
}

impl PromptBuilder {
    /// A chat without a runtime.
    pub(super) fn chat_now(&self, conversation: &Conversation) -> Result<Prompt, PromptError> {
        self.inner.chat(conversation, images_for(conversation), false).map(|built| built.prompt)
    }

    pub(super) fn raw_now(&self, inputs: &[Segment], images: Vec<LoadedImage>) -> Result<Prompt, PromptError> {
        self.inner.raw(inputs.to_vec(), images, None)
    }
}
