//! From generated text to the calls of an answer, in the pieces in which clients are told about them.

use std::sync::Arc;

use super::event::{CallParser, Event, Events};
use super::format::Format;
use super::ids::IdStyle;

/// How the calls of an answer are to be read.
#[derive(Clone)]
pub(in crate::api) struct CallReading {
    pub(super) format: &'static Format,
    /// The functions that were offered.
    pub(super) names: Arc<[String]>,
    /// Whether the answer ends with its first call.
    pub(super) one_call: bool,
    pub(super) ids: IdStyle,
    /// Special tokens that belong to the format and therefore are text here.
    pub(super) markers: Arc<[text_generation_scheduler::TokenId]>,
}

impl CallReading {
    /// Special tokens that belong to the format.
    pub(in crate::api) fn markers(&self) -> Arc<[text_generation_scheduler::TokenId]> {
        Arc::clone(&self.markers)
    }

    pub(in crate::api) fn reader(&self) -> CallReader {
        let parser = (self.format.parser)(Arc::clone(&self.names));
        CallReader { parser, one_call: self.one_call, ids: self.ids, begun: 0, over: false }
    }
}

impl std::fmt::Debug for CallReading {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "CallReading({}, {:?})", self.format.name, self.names)
    }
}

/// What some text adds to the calls of an answer.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(in crate::api) struct CallDelta {
    /// Which call, from zero.
    pub(in crate::api) index: u32,
    /// Id and name of a call that begins here.
    pub(in crate::api) head: Option<CallHead>,
    /// More of its arguments' JSON text.
    pub(in crate::api) arguments: String,
    /// Whether the call is complete.
    pub(in crate::api) ended: bool,
}

/// What a call is known by.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(in crate::api) struct CallHead {
    pub(in crate::api) id: String,
    pub(in crate::api) name: String,
}

/// What some text adds to an answer.
#[derive(Debug, Default)]
pub(in crate::api) struct Read {
    pub(in crate::api) text: String,
    pub(in crate::api) calls: Vec<CallDelta>,
}

/// Reads one answer.
pub(in crate::api) struct CallReader {
    parser: Box<dyn CallParser>,
    one_call: bool,
    ids: IdStyle,
    begun: u32,
    over: bool,
}

impl CallReader {
    /// Reads more text. Nothing is read behind the only call that is allowed.
    pub(in crate::api) fn push(&mut self, text: &str) -> Read {
        let mut read = Read::default();
        for letter in text.chars() {
            if self.over {
                break;
            }
            let mut events = Events::default();
            self.parser.read(letter, &mut events);
            self.take(events, &mut read);
        }
        read
    }

    /// The answer is over: what was held back as the beginning of a call is text.
    pub(in crate::api) fn finish(&mut self, read: &mut Read) {
        if !self.over {
            let mut events = Events::default();
            self.parser.finish(&mut events);
            self.take(events, read);
        }
    }

    /// Whether the answer has any call.
    pub(in crate::api) fn has_called(&self) -> bool {
        self.begun > 0
    }

    /// Whether nothing behind this point counts.
    pub(in crate::api) fn is_over(&self) -> bool {
        self.over
    }

    fn take(&mut self, events: Events, read: &mut Read) {
        for event in events.0 {
            match event {
                Event::Text(text) => read.text.push_str(&text),
                Event::Begin(name) => {
                    self.begun += 1;
                    let head = CallHead { id: self.ids.new_id(), name };
                    self.call(read).head = Some(head);
                }
                Event::Arguments(more) => self.call(read).arguments.push_str(&more),
                Event::End => {
                    self.call(read).ended = true;
                    self.over = self.one_call;
                }
            }
        }
    }

    /// What is being said about the latest call.
    fn call<'r>(&self, read: &'r mut Read) -> &'r mut CallDelta {
        let index = self.begun.saturating_sub(1);
        let at = read.calls.iter().position(|call| call.index == index).unwrap_or_else(|| {
            read.calls.push(CallDelta { index, head: None, arguments: String::new(), ended: false });
            read.calls.len() - 1
        });
        &mut read.calls[at]
    }
}
