//! Mistral: `[TOOL_CALLS]` before a list of JSON objects (the older models), or before each call as
//! `name[ARGS]{…}`, with `[CALL_ID]…` between in some.

use super::event::{CallParser, Events};
use super::format::Format;
use super::grammar::{CallGrammar, Function, object_schema, text};
use super::json_call::{JsonCall, Progress};
use super::prose::Prose;
use super::value::{Place, ValueEnd};

pub(super) const OPEN: &str = "[TOOL_CALLS]";
pub(super) const ARGUMENTS: &str = "[ARGS]";
pub(super) const CALL_ID: &str = "[CALL_ID]";

/// Finds marked calls. Texts are what was read since the marker, as long as nothing has been let out.
pub(super) struct Mistral {
    prose: Prose,
    state: State,
}

enum State {
    Prose,
    /// Behind the marker or, in a list, behind a call.
    Ready(String),
    Object(JsonCall, String),
    /// A name, and what follows it up to the arguments.
    Name(String, String),
    Arguments(ValueEnd),
}

impl Mistral {
    pub(super) fn new() -> Self {
        Self { prose: Prose::new(&[OPEN]), state: State::Prose }
    }

    fn prose(&mut self, letter: char, events: &mut Events) {
        if let Some(open) = self.prose.read(letter, events) {
            self.state = State::Ready(open.to_owned());
        }
    }

    fn ready(&mut self, mut raw: String, letter: char, events: &mut Events) {
        // Behind a call of a list nothing is held, and no name can begin.
        let in_list = raw.is_empty();
        if letter == '{' {
            let mut call = JsonCall::tagged();
            call.read(letter, events);
            raw.push(letter);
            self.state = State::Object(call, raw);
        } else if letter.is_whitespace() || is_list_mark(letter) {
            raw.extend((!in_list).then_some(letter));
            self.state = State::Ready(raw);
        } else if is_name(letter) && !in_list && !raw.ends_with('[') {
            self.state = State::Name(raw, letter.to_string());
        } else {
            self.give_back(&raw, letter, events);
        }
    }

    fn object(&mut self, mut call: JsonCall, mut raw: String, letter: char, events: &mut Events) {
        let progress = call.read(letter, events);
        if call.begun() {
            self.prose.call();
            raw.clear();
        }
        match progress {
            Progress::More => {
                raw.extend((!call.begun()).then_some(letter));
                self.state = State::Object(call, raw);
            }
            Progress::Done => self.state = State::Ready(String::new()),
            Progress::Broken | Progress::NotACall => self.give_back(&raw, letter, events),
        }
    }

    /// `tail` is the name with what follows it.
    fn name(&mut self, raw: String, mut tail: String, letter: char, events: &mut Events) {
        let name_length = tail.find(|letter| !is_name(letter)).unwrap_or(tail.len());
        let (name, marks) = tail.split_at(name_length);
        if letter == '{' && are_marks(marks.trim()) {
            events.begin(name);
            events.argument(letter);
            self.prose.call();
            // It begins with a brace.
            self.state = ValueEnd::begin(letter).map_or(State::Prose, State::Arguments);
            return;
        }
        let in_name = marks.is_empty() && is_name(letter);
        tail.push(letter);
        if in_name || may_become_marks(&tail[name_length..]) {
            self.state = State::Name(raw, tail);
        } else {
            tail.pop();
            self.give_back(&(raw + &tail), letter, events);
        }
    }

    fn arguments(&mut self, mut end: ValueEnd, letter: char, events: &mut Events) {
        events.argument(letter);
        if end.read(letter) == Place::Last {
            events.end();
        } else {
            self.state = State::Arguments(end);
        }
    }

    fn give_back(&mut self, raw: &str, letter: char, events: &mut Events) {
        self.prose.show(raw, events);
        self.prose(letter, events);
    }
}

impl CallParser for Mistral {
    fn read(&mut self, letter: char, events: &mut Events) {
        match std::mem::replace(&mut self.state, State::Prose) {
            State::Prose => self.prose(letter, events),
            State::Ready(raw) => self.ready(raw, letter, events),
            State::Object(call, raw) => self.object(call, raw, letter, events),
            State::Name(raw, tail) => self.name(raw, tail, letter, events),
            State::Arguments(end) => self.arguments(end, letter, events),
        }
    }

    fn finish(&mut self, events: &mut Events) {
        match std::mem::replace(&mut self.state, State::Prose) {
            State::Ready(raw) => self.prose.show(&raw, events),
            State::Object(call, raw) if !call.begun() => self.prose.show(&raw, events),
            State::Name(raw, tail) => self.prose.show(&(raw + &tail), events),
            State::Prose | State::Object(..) | State::Arguments(_) => {}
        }
        self.prose.finish(events);
    }
}

fn is_list_mark(letter: char) -> bool {
    matches!(letter, '[' | ']' | ',')
}

fn is_name(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || matches!(letter, '_' | '-' | '.')
}

/// Whether arguments may follow a name and these marks.
fn are_marks(marks: &str) -> bool {
    let marks = marks.strip_suffix(ARGUMENTS).unwrap_or(marks);
    marks.is_empty() || marks.strip_prefix(CALL_ID).is_some_and(|id| id.chars().all(is_name))
}

/// Whether what follows a name can still become such marks.
fn may_become_marks(tail: &str) -> bool {
    let tail = tail.trim_start();
    let Some(id) = tail.strip_prefix(CALL_ID) else {
        let arguments = tail.trim_end();
        return [ARGUMENTS, CALL_ID].iter().any(|mark| mark.starts_with(arguments));
    };
    let arguments = id.trim_start_matches(is_name).trim_end();
    ARGUMENTS.starts_with(arguments)
}

/// Told by its marker.
pub(super) const FORMAT: Format = Format {
    name: "mistral",
    writes: |template| template.call.as_ref().is_some_and(|written| written.contains(OPEN)),
    markers: &[OPEN, ARGUMENTS, CALL_ID],
    parser: |_| Box::new(Mistral::new()),
    grammar,
};

/// As the model's template writes calls: a list of objects, or names with arguments.
fn grammar(calls: &CallGrammar<'_>) -> String {
    let written = calls.written.and_then(|written| written.split_once(OPEN)).map_or("", |(_, call)| call);
    let open = calls.marker(OPEN);
    if written.trim_start().starts_with('[') || written.is_empty() {
        let blank = text(&written[..written.len() - written.trim_start().len()]);
        let blank = if blank == "\"\"" { String::new() } else { blank };
        let more = if calls.several { " (\", \" object)*" } else { "" };
        let start = format!("start: {open} {blank} \"[\" object{more} \"]\"\n");
        return start + &calls.object("arguments");
    }
    let id = if written.contains(CALL_ID) { calls.marker(CALL_ID) + " /[a-zA-Z0-9]{9}/" } else { String::new() };
    let arguments = if written.contains(ARGUMENTS) { calls.marker(ARGUMENTS) } else { String::new() };
    let call = |(index, function): (usize, &Function)| {
        let (name, schema) = (text(&function.name), object_schema(&function.parameters));
        format!("call_{index}: {open} {name} {id} {arguments} %json {schema}\n")
    };
    let rules: String = calls.functions.iter().enumerate().map(call).collect();
    let start = if calls.several { "start: call+\n" } else { "start: call\n" };
    format!("{start}call: {}\n{rules}", calls.alternatives("call"))
}
