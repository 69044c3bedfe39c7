//! Llama 3: an answer that is nothing but `{"name": …, "parameters": {…}}`, several of them with `;` between, with or
//! without `<|python_tag|>` in front.
//!
//! Without the tag only the shape says that it is a call, so it must be the first thing in the answer and name a
//! function that was offered.

use std::sync::Arc;

use super::event::{CallParser, Events};
use super::format::Format;

use super::json_call::{JsonCall, Progress};
use super::prose::Prose;
use crate::prompt::PROBE_FUNCTION;

pub(super) const TAG: &str = "<|python_tag|>";

/// Finds bare calls.
pub(super) struct Llama {
    names: Arc<[String]>,
    prose: Prose,
    state: State,
}

enum State {
    Prose,
    /// Where a call may begin; what has been read there.
    Ready(String),
    Call(JsonCall, String),
}

impl Llama {
    pub(super) fn new(names: Arc<[String]>) -> Self {
        Self { names, prose: Prose::new(&[TAG]), state: State::Ready(String::new()) }
    }

    fn prose(&mut self, letter: char, events: &mut Events) {
        if let Some(tag) = self.prose.read(letter, events) {
            self.state = State::Ready(tag.to_owned());
        }
    }

    /// Blanks, separators and the brackets that some models put around several calls.
    fn ready(&mut self, mut raw: String, letter: char, events: &mut Events) {
        if letter == '{' {
            let mut call = JsonCall::of_known(Arc::clone(&self.names));
            call.read(letter, events);
            raw.push(letter);
            self.state = State::Call(call, raw);
        } else if is_between(letter) {
            raw.push(letter);
            self.state = State::Ready(raw);
        } else {
            self.prose.show(&raw, events);
            self.prose(letter, events);
        }
    }

    fn call(&mut self, mut call: JsonCall, mut raw: String, letter: char, events: &mut Events) {
        let progress = call.read(letter, events);
        if call.begun() {
            self.prose.call();
            raw.clear();
        }
        match progress {
            Progress::More => {
                raw.extend((!call.begun()).then_some(letter));
                self.state = State::Call(call, raw);
            }
            Progress::Done => self.state = State::Ready(String::new()),
            Progress::Broken | Progress::NotACall => {
                self.prose.show(&raw, events);
                self.prose(letter, events);
            }
        }
    }
}

impl CallParser for Llama {
    fn read(&mut self, letter: char, events: &mut Events) {
        match std::mem::replace(&mut self.state, State::Prose) {
            State::Prose => self.prose(letter, events),
            State::Ready(raw) => self.ready(raw, letter, events),
            State::Call(call, raw) => self.call(call, raw, letter, events),
        }
    }

    fn finish(&mut self, events: &mut Events) {
        match std::mem::replace(&mut self.state, State::Prose) {
            State::Ready(raw) if self.prose.has_called() && raw.chars().all(is_between) => {}
            State::Ready(raw) => self.prose.show(&raw, events),
            State::Call(call, raw) if !call.begun() => self.prose.show(&raw, events),
            State::Prose | State::Call(..) => {}
        }
        self.prose.finish(events);
    }
}

fn is_between(letter: char) -> bool {
    letter.is_whitespace() || matches!(letter, ';' | ',' | '[' | ']')
}

/// Told by the key that its templates write arguments under.
pub(super) const FORMAT: Format = Format {
    name: "llama",
    writes: |template| {
        let call = format!("{{\"name\": \"{PROBE_FUNCTION}\", \"parameters\":");
        template.call.as_ref().is_some_and(|written| written.contains(&call))
    },
    markers: &[TAG],
    parser: |names| Box::new(Llama::new(names)),
    grammar: |calls| calls.start("; ") + "call: object\n" + &calls.object("parameters"),
};
