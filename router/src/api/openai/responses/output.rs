//! The items of an answer as they grow. A stream is told of every change, a whole answer is what is there in the end, so
//! that the two cannot differ.

use super::answers::{CallItem, Item, MessageItem, Status, TextPart};
use super::events::{Event, Listener};
use crate::api::head;
use crate::api::openai::answers::{FinishReason, TokenLogprob};
use crate::api::openai::chat::ASSISTANT;
use crate::api::openai::decode::Step;
use crate::api::openai::tools::CallDelta;

/// What a model has said and called.
#[derive(Debug, Default)]
pub(super) struct Output {
    items: Vec<Item>,
    /// Whether the last item grows.
    open: bool,
    /// Log-probabilities whose text is still to come.
    waiting: Vec<TokenLogprob>,
}

impl Output {
    pub(super) fn items(&self) -> &[Item] {
        &self.items
    }

    /// Adds what a token brought.
    pub(super) fn push(&mut self, step: Step, listener: &mut impl Listener) {
        self.waiting.extend(step.logprobs.into_iter().flat_map(|logprobs| logprobs.content));
        // Text stands behind a call that goes on, and in front of one that begins.
        let (begun, going_on): (Vec<_>, Vec<_>) = step.calls.into_iter().partition(|call| call.head.is_some());
        for delta in going_on {
            self.call(delta, listener);
        }
        if !step.text.is_empty() {
            self.say(&step.text, listener);
        }
        for delta in begun {
            self.call(delta, listener);
        }
        if let Some(finish) = step.finish {
            self.finish(finish, listener);
        }
    }

    /// No more comes, and not because the model was done.
    pub(super) fn abandon(&mut self) {
        if self.open {
            self.set_status(Status::Incomplete);
        }
    }

    fn finish(&mut self, finish: FinishReason, listener: &mut impl Listener) {
        if self.items.is_empty() {
            self.open_message(listener);
        }
        let cut = finish == FinishReason::Length;
        self.close(if cut { Status::Incomplete } else { Status::Completed }, listener);
    }

    fn say(&mut self, text: &str, listener: &mut impl Listener) {
        if !(self.open && matches!(self.items.last(), Some(Item::Message(_)))) {
            self.close(Status::Completed, listener);
            self.open_message(listener);
        }
        self.add_text(text, listener);
    }

    fn open_message(&mut self, listener: &mut impl Listener) {
        let id = format!("msg_{}", head::random_id());
        let message = MessageItem { id, status: Status::InProgress, role: ASSISTANT, content: Vec::new() };
        self.begin(Item::Message(message), listener);
        let output_index = Some(self.items.len() - 1);
        let Some(Item::Message(message)) = self.items.last_mut() else { return };
        message.content.push(TextPart::empty());
        listener.tell(Event {
            r#type: "response.content_part.added",
            output_index,
            content_index: Some(0),
            item_id: Some(&message.id),
            part: message.content.first(),
            ..Event::default()
        });
    }

    fn add_text(&mut self, text: &str, listener: &mut impl Listener) {
        let output_index = self.items.len().checked_sub(1);
        let Some(Item::Message(message)) = self.items.last_mut() else { return };
        let Some(part) = message.content.first_mut() else { return };
        part.text.push_str(text);
        let before = part.logprobs.len();
        part.logprobs.append(&mut self.waiting);
        listener.tell(Event {
            r#type: "response.output_text.delta",
            output_index,
            content_index: Some(0),
            item_id: Some(&message.id),
            delta: Some(text),
            logprobs: Some(&part.logprobs[before..]),
            ..Event::default()
        });
    }

    fn call(&mut self, delta: CallDelta, listener: &mut impl Listener) {
        // What a call is made of is not text.
        self.waiting.clear();
        if let Some(head) = delta.head {
            self.close(Status::Completed, listener);
            let (id, status) = (format!("fc_{}", head::random_id()), Status::InProgress);
            let call = CallItem { id, status, call_id: head.id, name: head.name, arguments: String::new() };
            self.begin(Item::FunctionCall(call), listener);
        }
        if !delta.arguments.is_empty() {
            self.add_arguments(&delta.arguments, listener);
        }
        if delta.ended {
            self.close(Status::Completed, listener);
        }
    }

    fn add_arguments(&mut self, more: &str, listener: &mut impl Listener) {
        let output_index = self.items.len().checked_sub(1);
        let Some(Item::FunctionCall(call)) = self.items.last_mut() else { return };
        call.arguments.push_str(more);
        listener.tell(Event {
            r#type: "response.function_call_arguments.delta",
            output_index,
            item_id: Some(&call.id),
            delta: Some(more),
            ..Event::default()
        });
    }

    fn begin(&mut self, item: Item, listener: &mut impl Listener) {
        self.items.push(item);
        self.open = true;
        self.tell_item("response.output_item.added", listener);
    }

    /// Ends the item that grows, if one does.
    fn close(&mut self, status: Status, listener: &mut impl Listener) {
        if !self.open {
            return;
        }
        let is_text = matches!(self.items.last(), Some(Item::Message(_)));
        if is_text && !self.waiting.is_empty() {
            self.add_text("", listener);
        }
        self.waiting.clear();
        self.open = false;
        self.tell_whole(listener);
        self.set_status(status);
        self.tell_item("response.output_item.done", listener);
    }

    fn set_status(&mut self, status: Status) {
        match self.items.last_mut() {
            Some(Item::Message(message)) => message.status = status,
            Some(Item::FunctionCall(call)) => call.status = status,
            None => {}
        }
    }

    fn tell_item(&self, r#type: &'static str, listener: &mut impl Listener) {
        let (output_index, item) = (self.items.len().checked_sub(1), self.items.last());
        listener.tell(Event { r#type, output_index, item, ..Event::default() });
    }

    /// Tells what the last item came to.
    fn tell_whole(&self, listener: &mut impl Listener) {
        let Some(item) = self.items.last() else { return };
        let (output_index, item_id) = (self.items.len().checked_sub(1), Some(item.id()));
        let about = || Event { output_index, item_id, ..Event::default() };
        match item {
            Item::FunctionCall(call) => listener.tell(Event {
                r#type: "response.function_call_arguments.done",
                name: Some(&call.name),
                arguments: Some(&call.arguments),
                ..about()
            }),
            Item::Message(message) => {
                let Some(part) = message.content.first() else { return };
                let (text, logprobs) = (Some(part.text.as_str()), Some(part.logprobs.as_slice()));
                let content_index = Some(0);
                listener.tell(Event { r#type: "response.output_text.done", content_index, text, logprobs, ..about() });
                listener.tell(Event {
                    r#type: "response.content_part.done",
                    content_index,
                    part: Some(part),
                    ..about()
                });
            }
        }
    }
}
