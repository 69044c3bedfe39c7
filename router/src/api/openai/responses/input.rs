//! From the items of a request to a conversation: calls become messages of the assistant, what they brought becomes
//! messages of tools.

use serde_json::{Value, json};

use super::types::{Input, ItemBody, ItemContent, ItemPart};
use crate::api::error::ApiError;
use crate::api::limits::RequestLimits;
use crate::api::openai::conversation::{Parsed, Reader};
use crate::api::openai::types::{ImageUrl, TextOr};
use crate::api::ranges;
use crate::prompt::{Content, Message, Part, Role};

const ROLES: &[Role] = &[Role::User, Role::Assistant, Role::System, Role::Developer];

pub(super) fn parse(instructions: Option<String>, input: Input, limits: &RequestLimits) -> Result<Parsed, ApiError> {
    let mut items = Items::default();
    if let Some(text) = instructions.filter(|text| !text.is_empty()) {
        let content = Content::Text(items.reader.text(text));
        items.messages.push(message(Role::System, content));
    }
    match input {
        TextOr::Text(text) => {
            let content = Content::Text(items.reader.text(text));
            items.messages.push(message(Role::User, content));
        }
        TextOr::Parts(list) => items.read_all(list, limits)?,
    }
    Ok(items.reader.parsed(items.messages, false))
}

#[derive(Default)]
struct Items {
    reader: Reader,
    messages: Vec<Message>,
}

impl Items {
    fn read_all(&mut self, list: Vec<ItemBody>, limits: &RequestLimits) -> Result<(), ApiError> {
        if list.is_empty() {
            return Err(ApiError::field("input", "must not be empty"));
        }
        ranges::at_most("input", list.len() as u64, limits.max_messages as u64)?;
        let contents = list.iter().flat_map(|item| item.content.iter().chain(&item.output));
        ranges::at_most("input[].content", contents.map(ItemContent::num_parts).sum(), limits.max_parts as u64)?;
        for (index, item) in list.into_iter().enumerate() {
            self.read(&format!("input[{index}]"), item)?;
        }
        Ok(())
    }

    fn read(&mut self, path: &str, item: ItemBody) -> Result<(), ApiError> {
        match item.r#type.as_deref() {
            None | Some("message") => self.message(path, item),
            Some("function_call") => self.call(path, item),
            Some("function_call_output") => self.output(path, item),
            // What a model thought before is not told to it again.
            Some("reasoning") => Ok(()),
            Some("item_reference") => {
                Err(ApiError::field(&format!("{path}.type"), "must not be `item_reference`: no items are stored"))
            }
            Some(_) => {
                let known = "must be `message`, `function_call`, `function_call_output` or `reasoning`";
                Err(ApiError::field(&format!("{path}.type"), known))
            }
        }
    }

    fn message(&mut self, path: &str, item: ItemBody) -> Result<(), ApiError> {
        let name = needed(path, "role", item.role)?;
        let role = ROLES.iter().copied().find(|role| role.name() == name);
        let role = role.ok_or_else(|| {
            ApiError::field(&format!("{path}.role"), "must be `user`, `assistant`, `system` or `developer`")
        })?;
        let content = self.content(path, "content", item.content)?;
        self.messages.push(message(role, content));
        Ok(())
    }

    /// Calls of one turn, and the words before them, are one message to chat templates.
    fn call(&mut self, path: &str, item: ItemBody) -> Result<(), ApiError> {
        let id = needed(path, "call_id", item.call_id)?;
        let name = self.reader.text(needed(path, "name", item.name)?);
        let arguments = self.reader.text(needed(path, "arguments", item.arguments)?);
        let call = json!({"id": id, "type": "function", "function": {"name": name, "arguments": arguments}});
        if !self.messages.last().is_some_and(|message| message.role == Role::Assistant) {
            self.messages.push(message(Role::Assistant, Content::None));
        }
        let Some(turn) = self.messages.last_mut() else { return Ok(()) };
        match &mut turn.tool_calls {
            Some(Value::Array(calls)) => calls.push(call),
            calls => *calls = Some(json!([call])),
        }
        Ok(())
    }

    fn output(&mut self, path: &str, item: ItemBody) -> Result<(), ApiError> {
        let id = needed(path, "call_id", item.call_id)?;
        let content = self.content(path, "output", item.output)?;
        self.messages.push(Message { tool_call_id: Some(id), ..message(Role::Tool, content) });
        Ok(())
    }

    fn content(&mut self, path: &str, field: &str, content: Option<ItemContent>) -> Result<Content, ApiError> {
        let path = format!("{path}.{field}");
        let parts = match content {
            None => return Err(ApiError::field(&path, "is missing")),
            Some(TextOr::Text(text)) => return Ok(Content::Text(self.reader.text(text))),
            Some(TextOr::Parts(parts)) => parts.into_iter().enumerate(),
        };
        let read = parts.map(|(index, part)| self.part(&format!("{path}[{index}]"), part));
        read.collect::<Result<_, _>>().map(Content::Parts)
    }

    fn part(&mut self, path: &str, part: ItemPart) -> Result<Part, ApiError> {
        match part.r#type.as_str() {
            "input_text" | "output_text" | "text" => {
                needed(path, "text", part.text).map(|text| Part::Text(self.reader.text(text)))
            }
            "refusal" => needed(path, "refusal", part.refusal).map(|text| Part::Text(self.reader.text(text))),
            "input_image" if part.image_url.is_none() && part.file_id.is_some() => {
                Err(ApiError::field(&format!("{path}.file_id"), "is not served: no files are stored. Use `image_url`"))
            }
            "input_image" => {
                let image = needed(path, "image_url", part.image_url)?;
                let detail = image.detail.or(part.detail);
                self.reader.image(path, ImageUrl { detail, ..image })
            }
            _ => {
                let known = "must be `input_text`, `input_image`, `output_text` or `refusal`";
                Err(ApiError::field(&format!("{path}.type"), known))
            }
        }
    }
}

fn needed<T>(path: &str, field: &str, value: Option<T>) -> Result<T, ApiError> {
    value.ok_or_else(|| ApiError::field(&format!("{path}.{field}"), "is missing"))
}

fn message(role: Role, content: Content) -> Message {
    Message { role, name: None, content, tool_calls: None, tool_call_id: None }
}
