//! What the parsers read.

use std::sync::Arc;

use proptest::prelude::*;
use serde_json::{Map, Value};

use super::super::ids::IdStyle;
use super::super::reader::{CallReading, Read};
use super::{FORMATS, arguments, names, read, written};
use crate::api::openai::tools::{hermes, llama, mistral, pythonic};

type Call<'a> = (&'a str, &'a str);

/// The text and the complete calls that `source` holds.
#[track_caller]
fn check(format: &super::Format, source: &str, text: &str, calls: &[Call<'_>]) {
    let (found_text, found) = read(format, &[source]);
    let found: Vec<Call<'_>> =
        found.iter().inspect(|call| assert!(call.2, "{source}")).map(|call| (&call.0[..], &call.1[..])).collect();
    assert_eq!((found_text.as_str(), found.as_slice()), (text, calls), "{source}");
}

#[test]
fn hermes_calls() {
    fn check(source: &str, text: &str, calls: &[Call<'_>]) {
        super::parsers::check(&hermes::FORMAT, source, text, calls);
    }
    let one = "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": \"}\\\"\"}}\n</tool_call>";
    check(one, "", &[("f", r#"{"a": "}\""}"#)]);
    check(&format!("Let me see.\n\n{one}\n{one}\n"), "Let me see.", &[("f", r#"{"a": "}\""}"#); 2]);
    check(&format!("{one} And so on."), " And so on.", &[("f", r#"{"a": "}\""}"#)]);
    check("<tool_call>{\"arguments\": {\"x\": 1}, \"name\": \"other\"}</tool_call>", "", &[("other", r#"{"x": 1}"#)]);
    check("<tool_call>{\"name\":\"f\"}</tool_call>", "", &[("f", "{}")]);
    check("<tool_call>{\"name\":\"f\",\"arguments\":null}</tool_call>", "", &[("f", "{}")]);
    check(r#"<tool_call>{"name":"f","arguments":"{\"a\":1}"}</tool_call>"#, "", &[("f", r#"{"a":1}"#)]);
    check(r#"<tool_call>{"id":7,"name":"f","arguments":{}}<tool_call>{"name":"g"}"#, "", &[("f", "{}"), ("g", "{}")]);
}

#[test]
fn hermes_text_that_only_looks_like_a_call() {
    for source in [
        "a < b",
        "<tool",
        "<tool_call>",
        "<tool_call> is a tag",
        "<tool_call>\n{\"nam",
        "<tool_call>{\"name\": 5}</tool_call>",
        "<tool_call>{\"a\": 1}</tool_call>",
        "<tool_call>[1]</tool_call>",
        "</tool_call> alone",
        "x  \n",
        "",
    ] {
        check(&hermes::FORMAT, source, source, &[]);
    }
    check(&hermes::FORMAT, "<tool_call><tool_call>{\"name\":\"f\"}</tool_call>", "<tool_call>", &[("f", "{}")]);
}

#[test]
fn a_call_that_is_cut_stays_open() {
    let (text, calls) = read(&hermes::FORMAT, &["<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": \"b"]);
    assert_eq!((text.as_str(), calls.as_slice()), ("", &[("f".to_owned(), "{\"a\": \"b".to_owned(), false)][..]));
}

#[test]
fn llama_calls() {
    fn check(source: &str, text: &str, calls: &[Call<'_>]) {
        super::parsers::check(&llama::FORMAT, source, text, calls);
    }
    let call = r#"{"name": "get_weather", "parameters": {"city": "Bern"}}"#;
    let found = ("get_weather", r#"{"city": "Bern"}"#);
    check(call, "", &[found]);
    check(&format!(" \n<|python_tag|>{call}"), "", &[found]);
    check(&format!("{call}; {call}\n"), "", &[found; 2]);
    check(&format!("[{call}, {call}]"), "", &[found; 2]);
    check(&format!("Sure.<|python_tag|>{call}"), "Sure.", &[found]);
    check(r#"{"type": "function", "function": "f", "parameters": {}}"#, "", &[("f", "{}")]);
    for text in [
        format!("As JSON: {call}"),
        r#"{"name": "Ada", "parameters": {}}"#.to_owned(),
        r#"{"name": "f", "age": 3}"#.to_owned(),
        r#"{"name": "f"}"#.to_owned(),
        r#"{"answer": 42}"#.to_owned(),
        "<|python_tag|>print(1)".to_owned(),
        "[1] is a source".to_owned(),
        "{".to_owned(),
    ] {
        check(&text, &text, &[]);
    }
}

#[test]
fn mistral_calls() {
    fn check(source: &str, text: &str, calls: &[Call<'_>]) {
        super::parsers::check(&mistral::FORMAT, source, text, calls);
    }
    let two = [("f", r#"{"a": [1, "]"]}"#), ("g", "{}")];
    check(r#"[TOOL_CALLS] [{"name": "f", "arguments": {"a": [1, "]"]}}, {"name": "g", "arguments": {}}]"#, "", &two);
    check(r#"[TOOL_CALLS]f[ARGS]{"a": [1, "]"]}[TOOL_CALLS]g[ARGS]{}"#, "", &two);
    check(r#"[TOOL_CALLS]f{"a": [1, "]"]}[TOOL_CALLS]g{}"#, "", &two);
    check(r#"Well. [TOOL_CALLS]f[CALL_ID]abc123def[ARGS]{"a": [1, "]"]}[TOOL_CALLS]g {}"#, "Well.", &two);
    check(r#"[TOOL_CALLS]{"name": "g", "arguments": {}}"#, "", &two[1..]);
    for text in
        ["[TOOL_CALLS] f is", "[TOOL_CALLS]", "[TOOL_CALLS][1]", "[TOOL_CALLS]f[OTHER]{}", "[TOOL", "[TOOL_CALLS]f"]
    {
        check(text, text, &[]);
    }
}

#[test]
fn pythonic_calls() {
    fn check(source: &str, text: &str, calls: &[Call<'_>]) {
        super::parsers::check(&pythonic::FORMAT, source, text, calls);
    }
    check("[f(a=1, b='x, )'), g()]", "", &[("f", r#"{"a":1,"b":"x, )"}"#), ("g", "{}")]);
    check(
        " [get_weather(city = \"Bern\", days=[1, 2.50], on=True)]\n",
        "",
        &[("get_weather", r#"{"city":"Bern","days":[1,2.50],"on":true}"#)],
    );
    check("<|python_start|>[g()]<|python_end|>", "", &[("g", "{}")]);
    for text in ["[f(1)]", "[f(a=b)]", "[print(a=1)]", "f(a=1)", "[1, 2]", "[f", "[f(a=", "See [f(a=1)]", "[f]"] {
        check(text, text, &[]);
    }
}

fn reading(format: &'static super::Format, one_call: bool) -> CallReading {
    CallReading { format, names: names(), one_call, ids: IdStyle::Call, markers: Arc::default() }
}

#[test]
fn the_only_call_ends_the_answer() {
    let mut reader = reading(&hermes::FORMAT, true).reader();
    let call = "<tool_call>{\"name\": \"f\", \"arguments\": {}}</tool_call>";
    let mut read = reader.push(&format!("{call}{call} more"));
    reader.finish(&mut read);
    assert!(reader.is_over());
    assert_eq!((read.calls.len(), read.text.as_str()), (1, ""));
}

/// Everything a reader says about these pieces, with ids left out.
fn said(format: &'static super::Format, pieces: &[String]) -> (String, Vec<(String, String, bool)>) {
    let mut reader = reading(format, false).reader();
    let (mut text, mut calls) = (String::new(), Vec::<(String, String, bool)>::new());
    let mut take = |read: Read| {
        text.push_str(&read.text);
        for delta in read.calls {
            calls.extend(delta.head.map(|head| (head.name, String::new(), false)));
            let call = &mut calls[delta.index as usize];
            call.1.push_str(&delta.arguments);
            call.2 |= delta.ended;
        }
    };
    for piece in pieces {
        take(reader.push(piece));
    }
    let mut rest = Read::default();
    reader.finish(&mut rest);
    take(rest);
    (text, calls)
}

/// The text cut at these places.
fn cut(text: &str, at: &[usize]) -> Vec<String> {
    let letters: Vec<char> = text.chars().collect();
    let mut at: Vec<usize> = at.iter().map(|at| at % (letters.len() + 1)).chain([0, letters.len()]).collect();
    at.sort_unstable();
    at.windows(2).map(|pair| letters[pair[0]..pair[1]].iter().collect()).collect()
}

fn calls() -> impl Strategy<Value = Vec<(&'static str, Map<String, Value>)>> {
    prop::collection::vec((prop::sample::select(vec!["f", "g", "get_weather"]), arguments()), 1..4)
}

/// Text that formats might take for the beginning of something.
fn noise() -> impl Strategy<Value = String> {
    let pieces = [
        "<tool_call>",
        "</tool_call>",
        "<tool",
        "{\"name\": ",
        "\"f\"",
        "\"arguments\": ",
        "{",
        "}",
        "[",
        "]",
        "(",
        ")",
        "f",
        "g(",
        "=1",
        ", ",
        "\n",
        " ",
        "[TOOL_CALLS]",
        "[ARGS]",
        "[CALL_ID]",
        "a1b2c3d4e",
        "<|python_tag|>",
        "<|python_start|>",
        "; ",
        "text",
        "é",
        "\"",
        "\\",
        "null",
        "'",
    ];
    prop::collection::vec(prop::sample::select(pieces.to_vec()), 0..16).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn arguments_survive_byte_for_byte(calls in calls(), at in prop::collection::vec(0..1000usize, 0..8)) {
        for format in FORMATS {
            let source = written(format, &calls);
            let (text, found) = said(format, &cut(&source, &at));
            let expected: Vec<_> = calls
                .iter()
                .map(|(name, arguments)| ((*name).to_owned(), Value::Object(arguments.clone()).to_string(), true))
                .collect();
            prop_assert_eq!((text, found), (String::new(), expected), "{}: {}", format.name, source);
        }
    }

    #[test]
    fn any_split_reads_the_same(source in noise(), at in prop::collection::vec(0..1000usize, 0..8)) {
        for format in FORMATS {
            prop_assert_eq!(said(format, &cut(&source, &at)), said(format, std::slice::from_ref(&source)), "{}", format.name);
        }
    }

    #[test]
    fn text_without_calls_is_all_there(source in noise()) {
        for format in FORMATS {
            let (text, calls) = said(format, std::slice::from_ref(&source));
            if calls.is_empty() {
                prop_assert_eq!(&text, &source, "{}", format.name);
            }
        }
    }
}
