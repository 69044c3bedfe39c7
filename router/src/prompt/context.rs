//! From a conversation to the variables a chat template sees. User text goes through a [`Marking`]; what we write
//! ourselves (roles, part types, schema words, anchors) does not.

use serde_json::{Map, Value, json};

use super::conversation::{Content, Conversation, Message, Part, Role};
use super::encode::Encoder;
use super::error::PromptError;
use super::marks::Marking;

/// Keys that templates of tool-calling models look up by name. None of them is or holds a control token.
const SCHEMA_WORDS: &[&str] = &[
    "$defs",
    "$ref",
    "additionalProperties",
    "allOf",
    "anyOf",
    "arguments",
    "const",
    "default",
    "definitions",
    "description",
    "enum",
    "examples",
    "exclusiveMaximum",
    "exclusiveMinimum",
    "format",
    "function",
    "id",
    "items",
    "maxItems",
    "maxLength",
    "maximum",
    "minItems",
    "minLength",
    "minimum",
    "name",
    "nullable",
    "oneOf",
    "parameters",
    "pattern",
    "prefixItems",
    "properties",
    "required",
    "return",
    "strict",
    "title",
    "type",
    "uniqueItems",
];

/// Values of `type` that templates compare with.
const TYPE_WORDS: &[&str] =
    &["array", "boolean", "function", "integer", "null", "number", "object", "string", "any", "float", "dict", "list"];

/// What a model's chat template makes of message contents.
#[derive(Clone, Debug, Eq, PartialEq)]
#[allow(clippy::struct_excessive_bools, reason = "answers to questions that have nothing to do with each other")]
pub(super) struct ContentShape {
    /// It renders a list of parts, images included.
    pub(super) parts: bool,
    /// It renders such a list as the answer of a tool.
    pub(super) answer_parts: bool,
    /// It renders a string.
    pub(super) strings: bool,
    /// It knows the role `developer`.
    pub(super) developer: bool,
    /// What stands for an image in a string, if the model takes images.
    pub(super) anchor: Option<String>,
}

/// Builds the variables of one rendering.
pub(super) struct ContextBuilder<'a> {
    pub(super) shape: &'a ContentShape,
    pub(super) marking: Marking<'a>,
    /// Knows the control tokens; `None` where no client has a word.
    pub(super) encoder: Option<&'a Encoder>,
    /// Written after the text of the last message, to find where it ends.
    pub(super) cut: Option<char>,
}

impl ContextBuilder<'_> {
    /// `messages`, `tools`, `documents` and `add_generation_prompt`.
    pub(super) fn build(&self, conversation: &Conversation) -> Result<Map<String, Value>, PromptError> {
        let last = conversation.messages.len().saturating_sub(1);
        let messages: Result<Vec<Value>, PromptError> = conversation
            .messages
            .iter()
            .enumerate()
            .map(|(index, message)| self.message(message, index == last))
            .collect();
        let mut context = Map::new();
        context.insert("messages".to_owned(), Value::Array(messages?));
        context.insert("tools".to_owned(), conversation.tools.as_ref().map_or(Value::Null, |tools| self.json(tools)));
        context.insert("documents".to_owned(), Value::Null);
        context.insert("add_generation_prompt".to_owned(), Value::Bool(self.cut.is_none()));
        Ok(context)
    }

    fn message(&self, message: &Message, last: bool) -> Result<Value, PromptError> {
        let mut object = Map::new();
        object.insert("role".to_owned(), Value::from(self.role(message.role)));
        if let Some(content) = self.content(message, last)? {
            object.insert("content".to_owned(), content);
        }
        object.extend(message.name.as_ref().map(|name| ("name".to_owned(), self.text(name))));
        object.extend(message.tool_call_id.as_ref().map(|id| ("tool_call_id".to_owned(), self.id(id))));
        let calls = message.tool_calls.as_ref().map(|calls| self.json(&with_parsed_arguments(calls)));
        object.extend(calls.map(|calls| ("tool_calls".to_owned(), calls)));
        Ok(Value::Object(object))
    }

    fn role(&self, role: Role) -> &'static str {
        match role {
            Role::Developer if !self.shape.developer => Role::System.name(),
            _ => role.name(),
        }
    }

    /// The content of a message; `None` leaves the key out, as transformers does for a missing content.
    fn content(&self, message: &Message, last: bool) -> Result<Option<Value>, PromptError> {
        let cut = self.cut.filter(|_| last);
        let parts_taken = if message.role == Role::Tool { self.shape.answer_parts } else { self.shape.parts };
        let value = match &message.content {
            Content::None => None,
            Content::Text(text) if self.shape.strings || !parts_taken => Some(Value::String(self.ending(text, cut))),
            Content::Text(text) => Some(json!([{"type": "text", "text": self.ending(text, cut)}])),
            Content::Parts(parts) if parts_taken => Some(Value::Array(self.parts(parts, cut))),
            Content::Parts(parts) => Some(Value::String(self.joined(parts, cut))),
        };
        let continued = cut.is_none_or(|cut| value.as_ref().is_some_and(|value| contains(value, cut)));
        if continued { Ok(value) } else { Err(PromptError::NothingToContinue) }
    }

    fn parts(&self, parts: &[Part], cut: Option<char>) -> Vec<Value> {
        let last_text = parts.iter().rposition(|part| part.text().is_some());
        let part = |(index, part): (usize, &Part)| match part {
            Part::Text(text) => {
                json!({"type": "text", "text": self.ending(text, cut.filter(|_| Some(index) == last_text))})
            }
            Part::Image => json!({"type": "image"}),
        };
        parts.iter().enumerate().map(part).collect()
    }

    /// Parts as one string, for templates that know nothing else. The anchor is ours, so it is not marked.
    fn joined(&self, parts: &[Part], cut: Option<char>) -> String {
        let last_text = parts.iter().rposition(|part| part.text().is_some());
        let mut joined = String::new();
        for (index, part) in parts.iter().enumerate() {
            match part {
                Part::Text(text) => joined.push_str(&self.ending(text, cut.filter(|_| Some(index) == last_text))),
                Part::Image => joined.push_str(self.shape.anchor.as_deref().unwrap_or_default()),
            }
        }
        joined
    }

    /// The text; where it is to be continued, without the blanks at its end and with the character that marks it.
    fn ending(&self, text: &str, cut: Option<char>) -> String {
        match cut {
            Some(cut) => format!("{}{cut}", self.marking.apply(text.trim_end())),
            None => self.marking.apply(text).into_owned(),
        }
    }

    /// The name of a call. Mistral's templates count its letters, so that one that passes must not be marked, unless a
    /// control token could come of it: then such a template refuses it.
    fn id(&self, id: &str) -> Value {
        let harmless = is_short_id(id) && !self.encoder.is_some_and(|encoder| encoder.control().may_hold(id));
        if harmless { Value::from(id) } else { self.text(id) }
    }

    fn text(&self, text: &str) -> Value {
        Value::String(self.marking.apply(text).into_owned())
    }

    /// Tools and tool calls: every string and key but the words templates look for.
    fn json(&self, value: &Value) -> Value {
        match value {
            Value::String(text) => self.text(text),
            Value::Array(items) => items.iter().map(|item| self.json(item)).collect(),
            Value::Object(map) => map.iter().map(|(key, item)| self.entry(key, item)).collect(),
            other => other.clone(),
        }
    }

    fn entry(&self, key: &str, value: &Value) -> (String, Value) {
        if SCHEMA_WORDS.contains(&key) {
            let value = match (key, value) {
                ("type", value) => self.type_names(value),
                ("id", Value::String(id)) => self.id(id),
                (_, value) => self.json(value),
            };
            return (key.to_owned(), value);
        }
        (self.marking.apply(key).into_owned(), self.json(value))
    }

    fn type_names(&self, value: &Value) -> Value {
        match value {
            Value::String(name) if TYPE_WORDS.contains(&name.as_str()) => value.clone(),
            Value::Array(names) => names.iter().map(|name| self.type_names(name)).collect(),
            other => self.json(other),
        }
    }
}

/// What Mistral's templates take.
fn is_short_id(id: &str) -> bool {
    id.len() == 9 && id.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

fn contains(value: &Value, letter: char) -> bool {
    match value {
        Value::String(text) => text.contains(letter),
        Value::Array(items) => items.iter().any(|item| contains(item, letter)),
        Value::Object(map) => map.values().any(|item| contains(item, letter)),
        _ => false,
    }
}

/// Templates expect call arguments as objects; the `OpenAI` API sends them as JSON text.
fn with_parsed_arguments(calls: &Value) -> Value {
    let mut calls = calls.clone();
    for call in calls.as_array_mut().into_iter().flatten() {
        let arguments = call.get_mut("function").and_then(|function| function.get_mut("arguments"));
        if let Some(arguments) = arguments
            && let Some(parsed) = arguments.as_str().and_then(|text| serde_json::from_str::<Value>(text).ok())
            && parsed.is_object()
        {
            *arguments = parsed;
        }
    }
    calls
}
