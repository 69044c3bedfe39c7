//! Pythonic calls: an answer that is a list of calls with named arguments, `[f(a=1, b="x"), g()]`.
//!
//! Only its shape says that it is one, so it must be the first thing in the answer and name functions that were
//! offered. Arguments come out as JSON, one when it is complete.

use std::sync::Arc;

use serde_json::Value;

use super::event::{CallParser, Events};
use super::format::Format;
use super::grammar::{CallGrammar, Function, text};
use super::prose::Prose;
use super::python_value::to_json;
use crate::prompt::PROBE_FUNCTION;

/// What Llama 4 writes around its calls.
pub(super) const START: &str = "<|python_start|>";
pub(super) const END: &str = "<|python_end|>";

/// Finds lists of calls. Texts are what was read without anything being let out.
pub(super) struct Pythonic {
    names: Arc<[String]>,
    prose: Prose,
    state: State,
}

enum State {
    Prose,
    /// Where a list may begin.
    Ready(String),
    /// In front of a function's name, or within it.
    Name(String, String),
    Call(Call),
}

/// A call whose parenthesis is open.
struct Call {
    raw: String,
    name: String,
    begun: bool,
    argument: Argument,
}

/// `key=value`, as far as it has come.
#[derive(Default)]
struct Argument {
    key: String,
    /// `None` in front of the equals sign.
    value: Option<Literal>,
}

/// A value, and what it needs to be over.
#[derive(Default)]
struct Literal {
    source: String,
    depth: usize,
    quote: Option<char>,
    escaped: bool,
}

impl Pythonic {
    pub(super) fn new(names: Arc<[String]>) -> Self {
        Self { names, prose: Prose::new(&[START, END]), state: State::Ready(String::new()) }
    }

    fn prose(&mut self, letter: char, events: &mut Events) {
        if self.prose.read(letter, events) == Some(START) {
            self.state = State::Ready(START.to_owned());
        }
    }

    fn ready(&mut self, mut raw: String, letter: char, events: &mut Events) {
        if letter.is_whitespace() {
            raw.push(letter);
            self.state = State::Ready(raw);
        } else if letter == '[' {
            raw.push(letter);
            self.state = State::Name(raw, String::new());
        } else {
            self.give_back(&raw, letter, events);
        }
    }

    fn name(&mut self, mut raw: String, mut name: String, letter: char, events: &mut Events) {
        let between = name.is_empty() && (letter.is_whitespace() || letter == ',');
        let longer = name.clone() + letter.encode_utf8(&mut [0; 4]);
        if letter == ']' && name.is_empty() && self.prose.has_called() {
            self.state = State::Prose;
        } else if letter == '(' && self.names.contains(&name) {
            raw.push(letter);
            self.state = State::Call(Call { raw, name, begun: false, argument: Argument::default() });
        } else if between || self.names.iter().any(|known| known.starts_with(&longer)) {
            raw.push(letter);
            name.extend((!between).then_some(letter));
            self.state = State::Name(raw, name);
        } else {
            self.give_back(&raw, letter, events);
        }
    }

    fn call(&mut self, mut call: Call, letter: char, events: &mut Events) {
        match call.read(letter, events) {
            Some(true) => {
                self.prose.call();
                self.state = State::Name(String::new(), String::new());
            }
            Some(false) => self.state = State::Call(call),
            None => {
                if call.begun {
                    self.prose.call();
                }
                self.give_back(&call.raw, letter, events);
            }
        }
    }

    fn give_back(&mut self, raw: &str, letter: char, events: &mut Events) {
        self.prose.show(raw, events);
        self.prose(letter, events);
    }
}

impl CallParser for Pythonic {
    fn read(&mut self, letter: char, events: &mut Events) {
        match std::mem::replace(&mut self.state, State::Prose) {
            State::Prose => self.prose(letter, events),
            State::Ready(raw) => self.ready(raw, letter, events),
            State::Name(raw, name) => self.name(raw, name, letter, events),
            State::Call(call) => self.call(call, letter, events),
        }
    }

    fn finish(&mut self, events: &mut Events) {
        match std::mem::replace(&mut self.state, State::Prose) {
            State::Prose => {}
            State::Ready(raw) | State::Name(raw, _) => self.prose.show(&raw, events),
            State::Call(call) => {
                if call.begun {
                    self.prose.call();
                }
                self.prose.show(&call.raw, events);
            }
        }
        self.prose.finish(events);
    }
}

impl Call {
    /// Whether the call is complete; `None` if it is none, or breaks here.
    fn read(&mut self, letter: char, events: &mut Events) -> Option<bool> {
        match &mut self.argument.value {
            Some(value) if !value.is_over(letter) => value.add(letter),
            Some(value) => {
                let json = to_json(&value.source)?;
                let key = std::mem::take(&mut self.argument).key;
                self.let_out(&key, &json, events);
            }
            None => return self.key(letter, events),
        }
        if self.argument.value.is_none() && letter == ')' {
            return Some(self.close(events));
        }
        self.hold(letter);
        Some(false)
    }

    fn key(&mut self, letter: char, events: &mut Events) -> Option<bool> {
        let key = &mut self.argument.key;
        match letter {
            ')' if key.is_empty() => return Some(self.close(events)),
            '=' if !key.is_empty() => self.argument.value = Some(Literal::default()),
            ',' if key.is_empty() && self.begun => {}
            letter if letter.is_whitespace() => {}
            letter if letter.is_alphanumeric() || matches!(letter, '_' | '-') => key.push(letter),
            _ => return None,
        }
        self.hold(letter);
        Some(false)
    }

    fn hold(&mut self, letter: char) {
        self.raw.push(letter);
    }

    fn begin(&mut self, events: &mut Events) {
        events.begin(&self.name);
        events.arguments("{");
        self.begun = true;
    }

    fn let_out(&mut self, key: &str, json: &str, events: &mut Events) {
        if self.begun {
            events.arguments(",");
        } else {
            self.begin(events);
        }
        events.arguments(&format!("{}:{json}", serde_json::Value::from(key)));
        self.raw.clear();
    }

    fn close(&mut self, events: &mut Events) -> bool {
        if !self.begun {
            self.begin(events);
        }
        events.arguments("}");
        events.end();
        true
    }
}

impl Literal {
    fn is_over(&self, letter: char) -> bool {
        self.quote.is_none() && self.depth == 0 && matches!(letter, ',' | ')')
    }

    fn add(&mut self, letter: char) {
        self.source.push(letter);
        match self.quote {
            Some(_) if self.escaped => self.escaped = false,
            Some(_) if letter == '\\' => self.escaped = true,
            Some(quote) if letter == quote => self.quote = None,
            Some(_) => {}
            None => self.add_bare(letter),
        }
    }

    fn add_bare(&mut self, letter: char) {
        match letter {
            '"' | '\'' => self.quote = Some(letter),
            '(' | '[' | '{' => self.depth += 1,
            ')' | ']' | '}' => self.depth = self.depth.saturating_sub(1),
            _ => {}
        }
    }
}

/// Told by the parenthesis behind the name.
pub(super) const FORMAT: Format = Format {
    name: "pythonic",
    writes: |template| {
        let call = format!("{PROBE_FUNCTION}(");
        template.call.as_ref().is_some_and(|written| written.contains(&call))
    },
    markers: &[START, END],
    parser: |names| Box::new(Pythonic::new(names)),
    grammar,
};

fn grammar(calls: &CallGrammar<'_>) -> String {
    let more = if calls.several { " (\", \" call)*" } else { "" };
    let rules: String =
        calls.functions.iter().enumerate().map(|(index, function)| call_rules(index, function)).collect();
    format!("start: \"[\" call{more} \"]\"\ncall: {}\n{rules}", calls.alternatives("call"))
}

/// The rules of one call: the arguments it needs, then those it may have, in the schema's order. Every argument that
/// may be left out has a rule for itself and all behind it.
fn call_rules(index: usize, function: &Function) -> String {
    let (needed, optional) = arguments(function);
    let open = text(&format!("{}(", function.name));
    let needed = needed.join(" \", \" ");
    let tail = |at: usize| if at < optional.len() { format!("tail_{index}_{at}?") } else { String::new() };
    let first = |at: usize| format!("{} {}", optional[at], tail(at + 1));
    let firsts: Vec<String> = (0..optional.len()).map(first).collect();
    let body = match (needed.is_empty(), firsts.is_empty()) {
        (false, _) => format!("{needed} {}", tail(0)),
        (true, false) => format!("({})?", firsts.join(" | ")),
        (true, true) => String::new(),
    };
    let tails = (0..optional.len()).map(|at| {
        let later = if at + 1 < optional.len() { format!(" | tail_{index}_{}", at + 1) } else { String::new() };
        format!("tail_{index}_{at}: \", \" {}{later}\n", first(at))
    });
    let tails: String = tails.collect();
    format!("call_{index}: {open} {body} \")\"\n{tails}")
}

/// `key=value` of the arguments that are required, and of the others.
fn arguments(function: &Function) -> (Vec<String>, Vec<String>) {
    let schema = &function.parameters;
    let required = |key: &str| schema["required"].as_array().is_some_and(|keys| keys.iter().any(|known| known == key));
    let properties = schema["properties"].as_object().into_iter().flatten();
    let (needed, optional): (Vec<_>, Vec<_>) = properties.partition(|(key, _)| required(key));
    let rule = |(key, value): (&String, &Value)| {
        format!("{} %json {}", text(&format!("{key}=")), with_definitions(value, schema))
    };
    (needed.into_iter().map(rule).collect(), optional.into_iter().map(rule).collect())
}

/// The schema of a property, with the definitions that it may refer to.
fn with_definitions(property: &Value, schema: &Value) -> Value {
    let mut property = property.clone();
    for key in ["$defs", "definitions"] {
        if let (Some(own), Some(definitions)) = (property.as_object_mut(), schema.get(key)) {
            own.entry(key).or_insert_with(|| definitions.clone());
        }
    }
    property
}
