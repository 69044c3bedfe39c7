//! Conversations for chat templates that know nothing of tools: what is offered, what was called and what came back
//! become text of the turns that every template has. And ids, as the template wants them.

use serde_json::Value;

use super::format::Dialect;
use super::hermes;
use super::ids::IdStyle;
use super::offer::Offer;
use crate::prompt::{Content, Conversation, Message, Part, Role};

impl Dialect {
    /// The conversation with the tools in it, as this model's template takes them.
    pub(in crate::api) fn put(&self, offer: Option<&Offer>, conversation: &mut Conversation) {
        if let Some(prompt) = offer.and_then(|offer| offer.prompt.as_ref()) {
            add_to_last(prompt, conversation);
        }
        if self.template.is_native() {
            conversation.tools = offer.map(|offer| Value::Array(offer.tools.clone()));
            conversation.messages.iter_mut().for_each(|message| fit_ids(message, self.ids()));
            return;
        }
        conversation.messages = answers_as_turns(std::mem::take(&mut conversation.messages));
        if let Some(offer) = offer {
            self.add_instructions(&instructions(&offer.tools), conversation);
        }
    }

    pub(super) fn ids(&self) -> IdStyle {
        if self.template.nine_letter_ids { IdStyle::Nine } else { IdStyle::Call }
    }

    /// Behind the system's text. A template without such a turn gets them before the first question.
    fn add_instructions(&self, instructions: &str, conversation: &mut Conversation) {
        let messages = &mut conversation.messages;
        let is_system = |message: &Message| matches!(message.role, Role::System | Role::Developer);
        if let Some(system) = messages.iter_mut().find(|message| is_system(message)) {
            append(&mut system.content, &format!("\n\n{instructions}"));
            return;
        }
        let first = messages.iter_mut().find(|message| message.role == Role::User);
        match first.filter(|_| !self.template.system) {
            Some(question) => prepend(&mut question.content, &format!("{instructions}\n\n")),
            None => messages.insert(0, text_message(Role::System, instructions.to_owned())),
        }
    }
}

/// TGI puts its text for tools behind the last message.
fn add_to_last(prompt: &str, conversation: &mut Conversation) {
    if let Some(last) = conversation.messages.last_mut().filter(|last| !matches!(last.content, Content::None)) {
        append(&mut last.content, &format!("\n---\n{prompt}"));
    }
}

fn instructions(tools: &[Value]) -> String {
    let tools: Vec<String> = tools.iter().map(Value::to_string).collect();
    format!(
        "You can call functions to help with the user's request. These are the functions, as JSON, one on a line:\n\
         <tools>\n{}\n</tools>\n\n\
         To call a function, answer with a JSON object of its name and its arguments between two tags:\n\
         <tool_call>\n{{\"name\": <function name>, \"arguments\": <object of arguments>}}\n</tool_call>\n\n\
         Write one such pair of tags for every call. If no function is needed, answer as usual.",
        tools.join("\n")
    )
}

/// Calls become text of the assistant, answers of tools a turn of the user: several in a row are one turn.
fn answers_as_turns(messages: Vec<Message>) -> Vec<Message> {
    let mut turns: Vec<Message> = Vec::with_capacity(messages.len());
    let mut answering = false;
    for mut message in messages {
        let answer = message.role == Role::Tool;
        if let Some(calls) = message.tool_calls.take() {
            append_calls(&mut message.content, &calls);
        }
        if answer {
            message = as_turn(message);
        }
        match turns.last_mut() {
            Some(last) if answer && answering => join(&mut last.content, message.content),
            _ => turns.push(message),
        }
        answering = answer;
    }
    turns
}

fn append_calls(content: &mut Content, calls: &Value) {
    for call in calls.as_array().into_iter().flatten() {
        let function = &call["function"];
        let arguments = function["arguments"].as_str().map_or_else(|| function["arguments"].to_string(), str::to_owned);
        let written = hermes::written(function["name"].as_str().unwrap_or_default(), &arguments);
        let between = if is_empty(content) { "" } else { "\n" };
        append(content, &format!("{between}{written}"));
    }
}

fn as_turn(answer: Message) -> Message {
    let mut content = answer.content;
    prepend(&mut content, "<tool_response>\n");
    append(&mut content, "\n</tool_response>");
    Message { content, ..text_message(Role::User, String::new()) }
}

fn text_message(role: Role, text: String) -> Message {
    Message { role, name: None, content: Content::Text(text), tool_calls: None, tool_call_id: None }
}

fn append(content: &mut Content, more: &str) {
    match content {
        Content::None => *content = Content::Text(more.to_owned()),
        Content::Text(text) => text.push_str(more),
        Content::Parts(parts) => parts.push(Part::Text(more.to_owned())),
    }
}

fn prepend(content: &mut Content, before: &str) {
    match content {
        Content::None => *content = Content::Text(before.to_owned()),
        Content::Text(text) => text.insert_str(0, before),
        Content::Parts(parts) => parts.insert(0, Part::Text(before.to_owned())),
    }
}

fn join(content: &mut Content, more: Content) {
    append(content, "\n");
    match more {
        Content::None => {}
        Content::Text(text) => append(content, &text),
        Content::Parts(more) => {
            let before = std::mem::take(content);
            let mut parts = match before {
                Content::Parts(parts) => parts,
                Content::Text(text) => vec![Part::Text(text)],
                Content::None => Vec::new(),
            };
            parts.extend(more);
            *content = Content::Parts(parts);
        }
    }
}

fn fit_ids(message: &mut Message, ids: IdStyle) {
    if let Some(id) = &mut message.tool_call_id {
        *id = ids.fitted(id);
    }
    for call in message.tool_calls.iter_mut().filter_map(Value::as_array_mut).flatten() {
        if let Some(id) = call.get("id").and_then(Value::as_str).map(|id| ids.fitted(id)) {
            call["id"] = Value::String(id);
        }
    }
}

fn is_empty(content: &Content) -> bool {
    matches!(content, Content::None) || matches!(content, Content::Text(text) if text.is_empty())
}
