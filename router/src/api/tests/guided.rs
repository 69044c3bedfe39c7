//! Every way in which clients ask for an answer of a certain form, and what becomes of forms that cannot be kept.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::fake::Script;
use super::fixture::Setup;
use crate::grammar::{Grammar, GrammarKind};

const CHAT: &str = "/v1/chat/completions";

fn schema() -> Value {
    json!({"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]})
}

fn chat(fields: Value) -> Value {
    let mut body = json!({"messages": [{"role": "user", "content": "q"}]});
    body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    body
}

fn generate(grammar: Value) -> Value {
    json!({"inputs": "q", "parameters": {"grammar": grammar}})
}

/// What the engine is given for a request that is answered.
async fn followed(path: &str, body: Value) -> Option<Grammar> {
    let setup = Setup::playing([Script::ended("x")]);
    let (status, answer) = setup.post(path, body).await;
    assert_eq!(status, 200, "{answer}");
    setup.fake.request(0).grammar.map(|grammar| Grammar::clone(&grammar))
}

fn as_schema(grammar: Option<Grammar>) -> Value {
    let grammar = grammar.expect("a grammar");
    assert_eq!(grammar.kind, GrammarKind::JsonSchema);
    serde_json::from_str(&grammar.text).unwrap()
}

#[tokio::test]
async fn every_shape_of_response_format_is_taken_on_both_routes() {
    let text = schema().to_string();
    for format in [
        json!({"type": "json_schema", "json_schema": {"name": "n", "schema": schema(), "strict": true}}),
        json!({"type": "json_schema", "json_schema": {"name": "n", "schema": text}}),
        json!({"type": "json_object", "value": schema()}),
        json!({"type": "json", "value": schema()}),
        json!({"type": "json", "value": text}),
        json!({"type": "json_schema", "value": {"name": "n", "schema": schema(), "more": null}}),
        json!({"type": "json_schema", "schema": schema()}),
        json!({"type": "json_object", "schema": schema(), "value": null}),
    ] {
        let asked = as_schema(followed(CHAT, chat(json!({"response_format": format}))).await);
        assert_eq!(asked["required"], json!(["a"]), "{format}");
        assert_eq!(as_schema(followed("/generate", generate(format)).await), asked);
    }
}

#[tokio::test]
async fn json_mode_is_any_object() {
    let asked = as_schema(followed(CHAT, chat(json!({"response_format": {"type": "json_object"}}))).await);
    assert_eq!(asked["type"], "object");
}

#[tokio::test]
async fn any_text_is_no_grammar() {
    for format in [json!({"type": "text"}), Value::Null] {
        assert_eq!(followed(CHAT, chat(json!({"response_format": format}))).await, None);
        assert_eq!(followed("/generate", generate(format)).await, None);
    }
}

#[tokio::test]
async fn regular_expressions_and_lark() {
    for (kind, name, text) in
        [(GrammarKind::Regex, "regex", "[0-9]{4}"), (GrammarKind::Lark, "lark", "start: \"a\" | \"b\"")]
    {
        let expected = Some(Grammar { kind, text: text.to_owned() });
        assert_eq!(followed("/generate", generate(json!({"type": name, "value": text}))).await, expected);
        assert_eq!(followed(CHAT, chat(json!({"grammar": {"type": name, "value": text}}))).await, expected);
        assert_eq!(followed(CHAT, chat(json!({"response_format": {"type": name, "value": text}}))).await, expected);
    }
}

#[tokio::test]
async fn what_is_wrong_names_its_field() {
    let setup = Setup::playing([]);
    let nested = (0..70).fold(json!({"type": "null"}), |inner, _| json!({"items": inner}));
    let rows = [
        (chat(json!({"response_format": "json"})), "response_format.type"),
        (chat(json!({"response_format": {"type": "xml"}})), "response_format.type"),
        (chat(json!({"response_format": {"type": "json_schema"}})), "response_format.json_schema.schema"),
        (chat(json!({"response_format": {"type": "json_object", "value": 3}})), "response_format.value"),
        (chat(json!({"response_format": {"type": "json_object", "schema": "{"}})), "response_format.schema"),
        (chat(json!({"response_format": {"type": "regex"}})), "response_format.value"),
        (chat(json!({"response_format": {"type": "regex", "value": "("}})), "response_format"),
        (chat(json!({"response_format": {"type": "json", "value": {"$ref": "#"}}})), "response_format"),
        (chat(json!({"response_format": {"type": "json", "value": {"type": "no-type"}}})), "response_format"),
        (chat(json!({"response_format": {"type": "json", "value": nested}})), "response_format"),
        (chat(json!({"grammar": {"type": "lark", "value": "start: b"}})), "grammar"),
        (
            chat(json!({"grammar": {"type": "regex", "value": "a"}, "response_format": {"type": "json_object"}})),
            "grammar",
        ),
        (chat(json!({"response_format": {"type": "json_object"}, "ignore_eos": true})), "ignore_eos"),
        (generate(json!({"type": "regex", "value": "(?=a)"})), "grammar"),
        (generate(json!({"type": "json", "value": []})), "grammar.value"),
    ];
    for (body, field) in rows {
        let path = if body["messages"].is_null() { "/generate" } else { CHAT };
        let (status, answer) = setup.post(path, body.clone()).await;
        assert_eq!((status.as_u16(), &answer["error_type"]), (422, &json!("validation")), "{body} {answer}");
        assert!(answer["error"].as_str().unwrap().contains(&format!("`{field}`")), "{body} {answer}");
    }
    assert_eq!(setup.fake.num_requests(), 0);
    assert_eq!(setup.fake.live(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grammar_that_explodes_is_refused_within_two_seconds() {
    let setup = Setup::playing([]);
    let started = Instant::now();
    let (status, answer) =
        setup.post("/generate", generate(json!({"type": "regex", "value": "(a{4000}){4000}"}))).await;
    assert_eq!(status, 422, "{answer}");
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
}

#[tokio::test]
async fn a_server_without_grammars_refuses_all() {
    let setup = Setup { grammars: false, ..Setup::playing([]) };
    let rows = [
        (CHAT, chat(json!({"response_format": {"type": "json_object"}})), "`response_format`"),
        ("/generate", generate(json!({"type": "regex", "value": "a"})), "`grammar`"),
    ];
    for (path, body, field) in rows {
        let (status, answer) = setup.post(path, body).await;
        assert_eq!(status, 422);
        let error = answer["error"].as_str().unwrap();
        assert!(error.contains(field) && error.contains("--disable-grammar-support"), "{error}");
    }
}
