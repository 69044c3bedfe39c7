//! What a client asks, as the prompt builder takes it: typed turns, parts and segments. No JSON types of any API.

use serde_json::Value;

/// A chat.
#[derive(Clone, Debug, Default)]
pub struct Conversation {
    /// Turns, oldest first.
    pub messages: Vec<Message>,
    /// Tools offered to the model, as the `tools` array of the `OpenAI` API.
    pub tools: Option<Value>,
    /// The last message is the beginning of the model's answer, and the model continues it.
    pub continue_final: bool,
}

/// One turn.
#[derive(Clone, Debug)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// The speaker's name, for templates that show one.
    pub name: Option<String>,
    /// What is said.
    pub content: Content,
    /// Calls the assistant made, as the `tool_calls` array of the `OpenAI` API.
    pub tool_calls: Option<Value>,
    /// The call a tool answers.
    pub tool_call_id: Option<String>,
}

/// Who speaks. A closed set: chat templates build control tokens out of it.
#[derive(Copy, Clone, Debug, Eq, PartialEq, Hash)]
pub enum Role {
    /// Instructions that precede the chat.
    System,
    /// Instructions by the application, for models that know the difference.
    Developer,
    /// The person asking.
    User,
    /// The model.
    Assistant,
    /// The answer of a tool.
    Tool,
}

impl Role {
    /// The name chat templates compare with.
    pub fn name(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::Developer => "developer",
            Self::User => "user",
            Self::Assistant => "assistant",
            Self::Tool => "tool",
        }
    }
}

/// What is said in one turn.
#[derive(Clone, Debug, Default)]
pub enum Content {
    /// Plain text.
    Text(String),
    /// Text and images in order.
    Parts(Vec<Part>),
    /// Nothing, as beside tool calls.
    #[default]
    None,
}

/// A piece of a turn.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Part {
    /// Plain text.
    Text(String),
    /// The next of the images given beside the conversation.
    Image,
}

/// A piece of the `inputs` of a text-generation request.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Segment {
    /// Text as the client wrote it.
    Text(String),
    /// The next of the images given beside the segments.
    Image,
}

impl Conversation {
    /// Calls `visit` with every piece of text a client chose, object keys included.
    pub(super) fn each_text<'a>(&'a self, visit: &mut impl FnMut(&'a str)) {
        for message in &self.messages {
            message.each_text(visit);
        }
        self.tools.iter().for_each(|tools| each_json_text(tools, visit));
    }
}

impl Message {
    fn each_text<'a>(&'a self, visit: &mut impl FnMut(&'a str)) {
        self.name.iter().chain(&self.tool_call_id).for_each(|text| visit(text));
        match &self.content {
            Content::Text(text) => visit(text),
            Content::Parts(parts) => parts.iter().filter_map(Part::text).for_each(&mut *visit),
            Content::None => {}
        }
        self.tool_calls.iter().for_each(|calls| each_json_text(calls, visit));
    }
}

impl Part {
    /// The text of a text part.
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Image => None,
        }
    }
}

fn each_json_text<'a>(value: &'a Value, visit: &mut impl FnMut(&'a str)) {
    match value {
        Value::String(text) => visit(text),
        Value::Array(items) => items.iter().for_each(|item| each_json_text(item, visit)),
        Value::Object(map) => map.iter().for_each(|(key, item)| {
            visit(key);
            each_json_text(item, visit);
        }),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}
