//! Messages as the prompt builder takes them, and the addresses of their images. Texts stay texts: nothing in them is
//! looked at, so no text can become an image.

use super::types::{ContentBody, ImageUrl, MessageBody, PartBody};
use crate::api::error::ApiError;
use crate::api::limits::RequestLimits;
use crate::api::media::{self, ImageLink};
use crate::api::ranges;
use crate::prompt::{Content, Conversation, Message, Part, Role};

/// A conversation and its images in order of appearance.
#[derive(Debug)]
pub(super) struct Parsed {
    pub(super) conversation: Conversation,
    pub(super) image_urls: Vec<ImageLink>,
    /// Characters of all texts and addresses.
    pub(super) characters: usize,
}

pub(super) fn parse(messages: Vec<MessageBody>, limits: &RequestLimits) -> Result<Parsed, ApiError> {
    if messages.is_empty() {
        return Err(ApiError::field("messages", "must not be empty"));
    }
    ranges::at_most("messages", messages.len() as u64, limits.max_messages as u64)?;
    let parts = messages.iter().map(|message| message.content.as_ref().map_or(0, ContentBody::num_parts)).sum();
    ranges::at_most("messages[].content", parts, limits.max_parts as u64)?;
    let mut reader = Reader::default();
    let messages: Result<Vec<_>, _> =
        messages.into_iter().enumerate().map(|(index, message)| reader.message(index, message)).collect();
    let messages = messages?;
    // TGI and its users continue an answer that the conversation has begun.
    let begun = |message: &Message| {
        message.role == Role::Assistant && message.tool_calls.is_none() && has_text(&message.content)
    };
    let continue_final = messages.last().is_some_and(begun);
    let conversation = Conversation { messages, tools: None, continue_final };
    Ok(Parsed { conversation, image_urls: reader.image_urls, characters: reader.characters })
}

#[derive(Default)]
struct Reader {
    image_urls: Vec<ImageLink>,
    characters: usize,
}

impl Reader {
    fn message(&mut self, index: usize, body: MessageBody) -> Result<Message, ApiError> {
        let path = format!("messages[{index}]");
        let tool_calls = body.tool_calls.filter(|calls| calls.as_array().is_none_or(|calls| !calls.is_empty()));
        let content = match body.content {
            Some(ContentBody::Text(text)) => Content::Text(self.text(text)),
            Some(ContentBody::Parts(parts)) => Content::Parts(self.parts(&path, parts)?),
            None if tool_calls.is_some() => Content::None,
            None => return Err(ApiError::field(&format!("{path}.content"), "is missing")),
        };
        if tool_calls.as_ref().is_some_and(|calls| !calls.is_array()) {
            return Err(ApiError::field(&format!("{path}.tool_calls"), "must be a list"));
        }
        let role = role(&path, &body.role)?;
        Ok(Message { role, name: body.name, content, tool_calls, tool_call_id: body.tool_call_id })
    }

    fn parts(&mut self, path: &str, parts: Vec<PartBody>) -> Result<Vec<Part>, ApiError> {
        let parts = parts.into_iter().enumerate();
        parts.map(|(index, part)| self.part(&format!("{path}.content[{index}]"), part)).collect()
    }

    fn part(&mut self, path: &str, part: PartBody) -> Result<Part, ApiError> {
        match part.r#type.as_str() {
            "text" => {
                let text = part.text.ok_or_else(|| ApiError::field(&format!("{path}.text"), "is missing"))?;
                Ok(Part::Text(self.text(text)))
            }
            "image_url" => {
                let path = format!("{path}.image_url");
                let image = part.image_url.ok_or_else(|| ApiError::field(&path, "is missing"))?;
                self.image(&path, image)
            }
            _ => Err(ApiError::field(&format!("{path}.type"), "must be `text` or `image_url`")),
        }
    }

    fn image(&mut self, path: &str, image: ImageUrl) -> Result<Part, ApiError> {
        let detail = media::detail(&format!("{path}.detail"), image.detail.as_deref())?;
        let url = self.text(image.url);
        self.image_urls.push(ImageLink { url, detail });
        Ok(Part::Image)
    }

    fn text(&mut self, text: String) -> String {
        self.characters += text.chars().count();
        text
    }
}

fn role(path: &str, name: &str) -> Result<Role, ApiError> {
    let roles = [Role::System, Role::Developer, Role::User, Role::Assistant, Role::Tool];
    let known = "must be `system`, `developer`, `user`, `assistant` or `tool`";
    let found = roles.into_iter().find(|role| role.name() == name);
    found.ok_or_else(|| ApiError::field(&format!("{path}.role"), known))
}

fn has_text(content: &Content) -> bool {
    match content {
        Content::Text(text) => !text.is_empty(),
        Content::Parts(parts) => parts.iter().any(|part| part.text().is_some_and(|text| !text.is_empty())),
        Content::None => false,
    }
}

impl ContentBody {
    fn num_parts(&self) -> u64 {
        match self {
            Self::Text(_) => 1,
            Self::Parts(parts) => parts.len() as u64,
        }
    }
}
