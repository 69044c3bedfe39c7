//! Hermes and Qwen: `<tool_call>{"name": …, "arguments": {…}}</tool_call>`, one pair of tags a call.

use super::event::{CallParser, Events};
use super::format::Format;
use super::grammar::CallGrammar;
use super::json_call::{JsonCall, Progress};
use super::prose::Prose;

pub(super) const OPEN: &str = "<tool_call>";
pub(super) const CLOSE: &str = "</tool_call>";

/// Finds tagged calls.
pub(super) struct Hermes {
    prose: Prose,
    /// The call that is being read, and its text.
    call: Option<(JsonCall, String)>,
    /// Whether a closing tag is still to come.
    open: bool,
}

impl Hermes {
    pub(super) fn new() -> Self {
        Self { prose: Prose::new(&[OPEN, CLOSE]), call: None, open: false }
    }

    fn outside(&mut self, letter: char, events: &mut Events) {
        match self.prose.read(letter, events) {
            Some(OPEN) => self.call = Some((JsonCall::tagged(), OPEN.to_owned())),
            // Blanks before it are the format's.
            Some(_) if std::mem::take(&mut self.open) => self.prose.call(),
            Some(close) => self.prose.show(close, events),
            None => {}
        }
    }
}

impl CallParser for Hermes {
    fn read(&mut self, letter: char, events: &mut Events) {
        let Some((mut call, mut raw)) = self.call.take() else { return self.outside(letter, events) };
        let progress = call.read(letter, events);
        if call.begun() {
            self.prose.call();
            self.open = true;
        }
        match progress {
            Progress::More => {
                if !call.begun() {
                    raw.push(letter);
                }
                self.call = Some((call, raw));
            }
            Progress::Done => {}
            Progress::Broken => self.outside(letter, events),
            Progress::NotACall => {
                self.prose.show(&raw, events);
                self.outside(letter, events);
            }
        }
    }

    fn finish(&mut self, events: &mut Events) {
        if let Some((_, raw)) = self.call.take().filter(|(call, _)| !call.begun()) {
            self.prose.show(&raw, events);
        }
        self.prose.finish(events);
    }
}

/// Fits every model: what is written in it is read by any that has seen tools at all.
pub(super) const FORMAT: Format =
    Format { name: "hermes", writes: |_| true, markers: &[OPEN, CLOSE], parser: |_| Box::new(Hermes::new()), grammar };

fn grammar(calls: &CallGrammar<'_>) -> String {
    let (open, close) = (calls.marker(OPEN), calls.marker(CLOSE));
    let call = format!("call: {open} \"\\n\" object \"\\n\" {close}\n");
    calls.start("\n") + &call + &calls.object("arguments")
}

/// A call as the format writes it.
pub(super) fn written(name: &str, arguments: &str) -> String {
    format!("{OPEN}\n{{\"name\": {}, \"arguments\": {arguments}}}\n{CLOSE}", serde_json::Value::from(name))
}
