//! Formats of calls: every split gives the same answer, arguments survive byte for byte, and what is no call is text.

mod grammars;
mod offers;
mod parsers;

use std::sync::Arc;

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::event::{Event, Events};
use super::format::Format;
use super::{hermes, llama, mistral, pythonic};

/// A function and its arguments.
type Called<'a> = (&'a str, Map<String, Value>);

pub(super) const FORMATS: [&Format; 4] = [&hermes::FORMAT, &llama::FORMAT, &mistral::FORMAT, &pythonic::FORMAT];

pub(super) fn names() -> Arc<[String]> {
    ["get_weather", "f", "g"].map(str::to_owned).into()
}

/// What a format finds in these pieces: text, and calls with their arguments and whether they ended.
pub(super) fn read(format: &Format, pieces: &[&str]) -> (String, Vec<(String, String, bool)>) {
    let mut parser = (format.parser)(names());
    let mut events = Events::default();
    pieces.iter().flat_map(|piece| piece.chars()).for_each(|letter| parser.read(letter, &mut events));
    parser.finish(&mut events);
    gathered(events)
}

fn gathered(events: Events) -> (String, Vec<(String, String, bool)>) {
    let (mut text, mut calls) = (String::new(), Vec::new());
    for event in events.0 {
        match event {
            Event::Text(more) => text.push_str(&more),
            Event::Begin(name) => calls.push((name, String::new(), false)),
            Event::Arguments(more) => calls.last_mut().expect("a call has begun").1.push_str(&more),
            Event::End => calls.last_mut().expect("a call has begun").2 = true,
        }
    }
    (text, calls)
}

/// Any JSON value.
pub(super) fn json_value() -> impl Strategy<Value = Value> {
    let word = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-1e9..1e9f64).prop_map(Value::from),
        text().prop_map(Value::from),
    ];
    word.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((text(), inner), 0..4).prop_map(|entries| entries.into_iter().collect()),
        ]
    })
}

/// Text with everything that formats are made of.
fn text() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        "[a-zA-Zé日🦀 \"'\\\\\n\t{}\\[\\],:=()]{0,6}",
        Just("</tool_call>".to_owned()),
        Just("<tool_call>".to_owned()),
        Just("[TOOL_CALLS]".to_owned()),
        Just("<|python_tag|>".to_owned()),
        Just("}; {".to_owned()),
    ];
    prop::collection::vec(piece, 0..3).prop_map(|pieces| pieces.concat())
}

/// Arguments whose keys are words.
pub(super) fn arguments() -> impl Strategy<Value = Map<String, Value>> {
    prop::collection::vec(("[a-z_]{1,6}", json_value()), 0..4).prop_map(|entries| entries.into_iter().collect())
}

/// A value as Python writes it.
pub(super) fn python(value: &Value) -> String {
    match value {
        Value::Null => "None".to_owned(),
        Value::Bool(true) => "True".to_owned(),
        Value::Bool(false) => "False".to_owned(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => {
            let text = text.replace('\\', "\\\\").replace('\'', "\\'").replace('\n', "\\n").replace('\t', "\\t");
            format!("'{text}'")
        }
        Value::Array(items) => format!("[{}]", items.iter().map(python).collect::<Vec<_>>().join(", ")),
        Value::Object(map) => {
            let entry = |(key, value): (&String, &Value)| format!("{}: {}", python(&json!(key)), python(value));
            format!("{{{}}}", map.iter().map(entry).collect::<Vec<_>>().join(", "))
        }
    }
}

/// These calls as a model of the format writes them.
pub(super) fn written(format: &Format, calls: &[Called<'_>]) -> String {
    let object = |key: &str, (name, arguments): &Called<'_>| {
        format!("{{\"name\": \"{name}\", \"{key}\": {}}}", Value::Object(arguments.clone()))
    };
    let each = |write: &dyn Fn(&Called<'_>) -> String, between: &str| {
        calls.iter().map(write).collect::<Vec<_>>().join(between)
    };
    match format.name {
        "hermes" => each(&|call| format!("<tool_call>\n{}\n</tool_call>", object("arguments", call)), "\n"),
        "llama" => each(&|call| object("parameters", call), "; "),
        "mistral" => format!("[TOOL_CALLS][{}]", each(&|call| object("arguments", call), ", ")),
        _ => {
            let argument = |(key, value): (&String, &Value)| format!("{key}={}", python(value));
            let call = |(name, arguments): &Called<'_>| {
                format!("{name}({})", arguments.iter().map(argument).collect::<Vec<_>>().join(", "))
            };
            format!("[{}]", each(&call, ", "))
        }
    }
}
