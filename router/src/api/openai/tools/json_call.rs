//! A call written as a JSON object with a name and arguments, in any order, read as it is generated. Arguments go on
//! as they were written, byte for byte.

use std::sync::Arc;

use super::event::Events;
use super::value::{Kind, Place, ValueEnd};

/// Keys that models give the name and the arguments under.
const NAME_KEYS: &[&str] = &["name", "function"];
const ARGUMENT_KEYS: &[&str] = &["arguments", "parameters"];
/// Other keys that models write into calls.
const OTHER_KEYS: &[&str] = &["id", "type"];

/// How far a call has come.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(super) enum Progress {
    More,
    /// The character was its last.
    Done,
    /// The character is no part of it, and it has ended without being whole.
    Broken,
    /// It never was one, and nothing of it has been let out.
    NotACall,
}

/// Reads one object.
#[derive(Debug)]
pub(super) struct JsonCall {
    /// Where nothing but its shape says that it is a call: the functions it may name.
    known: Option<Arc<[String]>>,
    state: State,
    name: Option<String>,
    /// Arguments that cannot be let out yet.
    held: String,
    begun: bool,
}

#[derive(Debug)]
enum State {
    Start,
    /// In front of a key, or of the end.
    Key,
    InKey(ValueEnd, String),
    Colon(Role),
    Value(Role),
    InValue(InValue),
    /// Behind a value.
    Comma,
}

/// A value that has begun.
#[derive(Debug)]
struct InValue {
    role: Role,
    end: ValueEnd,
    /// Its text, unless it goes on at once.
    raw: String,
}

/// What a value is to the call.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
enum Role {
    Name,
    Arguments,
    Other,
}

impl JsonCall {
    /// Any object with a name is a call.
    pub(super) fn tagged() -> Self {
        Self::new(None)
    }

    /// Only an object that has nothing but name and arguments, and names one of these functions, is a call.
    pub(super) fn of_known(names: Arc<[String]>) -> Self {
        Self::new(Some(names))
    }

    fn new(known: Option<Arc<[String]>>) -> Self {
        Self { known, state: State::Start, name: None, held: String::new(), begun: false }
    }

    /// Whether anything has been let out.
    pub(super) fn begun(&self) -> bool {
        self.begun
    }

    pub(super) fn read(&mut self, letter: char, events: &mut Events) -> Progress {
        match self.step(letter, events) {
            Progress::NotACall if self.begun => Progress::Broken,
            progress => progress,
        }
    }

    fn step(&mut self, letter: char, events: &mut Events) -> Progress {
        let inside = matches!(self.state, State::InKey(..) | State::InValue(..));
        if letter.is_whitespace() && !inside {
            return Progress::More;
        }
        match (std::mem::replace(&mut self.state, State::Key), letter) {
            (State::Key | State::Comma, '}') => self.close(events),
            (State::Start, '{') | (State::Comma, ',') => Progress::More,
            (State::Key, '"') => self.go(ValueEnd::begin(letter).map(|end| State::InKey(end, "\"".to_owned()))),
            (State::InKey(end, key), _) => self.key(end, key, letter),
            (State::Colon(role), ':') => self.go(Some(State::Value(role))),
            (State::Value(role), _) => self.value(role, letter, events),
            (State::InValue(value), _) => self.inside(value, letter, events),
            _ => Progress::NotACall,
        }
    }

    fn go(&mut self, state: Option<State>) -> Progress {
        let Some(state) = state else { return Progress::NotACall };
        self.state = state;
        Progress::More
    }

    fn key(&mut self, mut end: ValueEnd, mut key: String, letter: char) -> Progress {
        key.push(letter);
        if end.read(letter) != Place::Last {
            return self.go(Some(State::InKey(end, key)));
        }
        let key: String = serde_json::from_str(&key).unwrap_or_default();
        let role = match key.as_str() {
            key if NAME_KEYS.contains(&key) && self.name.is_none() => Role::Name,
            key if ARGUMENT_KEYS.contains(&key) && !self.begun && self.held.is_empty() => Role::Arguments,
            key if OTHER_KEYS.contains(&key) || self.known.is_none() => Role::Other,
            _ => return Progress::NotACall,
        };
        self.go(Some(State::Colon(role)))
    }

    fn value(&mut self, role: Role, letter: char, events: &mut Events) -> Progress {
        let Some(end) = ValueEnd::begin(letter) else { return Progress::NotACall };
        match (role, end.kind()) {
            (Role::Name, kind) if kind != Kind::String => return Progress::NotACall,
            (Role::Arguments, Kind::List) => return Progress::NotACall,
            (Role::Arguments, Kind::Object) => self.begin(events),
            _ => {}
        }
        self.add(role, &end, letter, events);
        self.go(Some(State::InValue(InValue { role, end, raw: letter.to_string() })))
    }

    fn inside(&mut self, mut value: InValue, letter: char, events: &mut Events) -> Progress {
        let place = value.end.read(letter);
        if place != Place::Behind {
            self.add(value.role, &value.end, letter, events);
            if value.role != Role::Other && value.end.kind() != Kind::Object {
                value.raw.push(letter);
            }
        }
        if place == Place::Inside {
            return self.go(Some(State::InValue(value)));
        }
        self.state = State::Comma;
        match self.complete(&value, events) {
            Progress::More if place == Place::Behind => self.step(letter, events),
            progress => progress,
        }
    }

    /// A character of an argument object goes on at once if the name is known.
    fn add(&mut self, role: Role, end: &ValueEnd, letter: char, events: &mut Events) {
        match role {
            Role::Arguments if end.kind() == Kind::Object && self.begun => events.argument(letter),
            Role::Arguments if end.kind() == Kind::Object => self.held.push(letter),
            _ => {}
        }
    }

    fn complete(&mut self, value: &InValue, events: &mut Events) -> Progress {
        let raw = value.raw.as_str();
        match (value.role, value.end.kind()) {
            (Role::Name, _) => self.named(raw, events),
            // Some models write the object as a string that holds it.
            (Role::Arguments, Kind::String) => match serde_json::from_str(raw) {
                Ok(text) => self.given(text, events),
                Err(_) => Progress::NotACall,
            },
            (Role::Arguments, Kind::Word) if raw == "null" => self.given("{}".to_owned(), events),
            (Role::Arguments, Kind::Word) => Progress::NotACall,
            _ => Progress::More,
        }
    }

    fn named(&mut self, raw: &str, events: &mut Events) -> Progress {
        let name: String = serde_json::from_str(raw).unwrap_or_default();
        if name.is_empty() || self.known.as_ref().is_some_and(|known| !known.contains(&name)) {
            return Progress::NotACall;
        }
        self.name = Some(name);
        if !self.held.is_empty() {
            self.begin(events);
        }
        Progress::More
    }

    fn given(&mut self, arguments: String, events: &mut Events) -> Progress {
        self.held = arguments;
        self.begin(events);
        Progress::More
    }

    /// Lets out the name, if it is known, and what was held back.
    fn begin(&mut self, events: &mut Events) {
        let Some(name) = &self.name else { return };
        events.begin(name);
        events.arguments(&std::mem::take(&mut self.held));
        self.begun = true;
    }

    fn close(&mut self, events: &mut Events) -> Progress {
        if !self.begun {
            if self.name.is_none() || self.known.is_some() {
                return Progress::NotACall;
            }
            self.held.push_str("{}");
            self.begin(events);
        }
        events.end();
        Progress::Done
    }
}
