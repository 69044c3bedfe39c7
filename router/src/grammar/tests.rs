//! Grammars good and bad over a vocabulary of bytes, with a few longer tokens and two special ones.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use super::{GrammarCompiler, GrammarError, GrammarLimits, GrammarSource, Vocabulary};
use crate::detokenize::TokenTable;

const END: u32 = 256;

/// Rules of which each names the next; the last of them is missing.
fn chain(name: &str, length: usize) -> String {
    let rules: Vec<_> = (0..length).map(|index| format!("{name}{index}: {name}{}\n", index + 1)).collect();
    rules.concat()
}

fn vocabulary(end_tokens: Vec<u32>) -> Vocabulary {
    let mut texts: Map<String, Value> = Map::new();
    for byte in 0..=255u8 {
        texts.insert(format!("<0x{byte:02X}>"), byte.into());
    }
    for (index, text) in ["\"location\"", "aaaa", "{\"", "true"].into_iter().enumerate() {
        texts.insert(text.to_owned(), (258 + index).into());
    }
    let special = |id: u32, content: &str| json!({"id": id, "content": content, "special": true});
    let tokenizer = json!({
        "model": {"vocab": texts}, "decoder": {"type": "ByteFallback"},
        "added_tokens": [special(END, "</s>"), special(257, "<image>")],
    });
    let tokenize = Box::new(|text: &str| text.bytes().map(u32::from).collect());
    Vocabulary { table: Arc::new(TokenTable::new(&tokenizer).unwrap()), tokenize, end_tokens }
}

fn compiler(limits: GrammarLimits) -> GrammarCompiler {
    GrammarCompiler::new(vocabulary(vec![END]), limits)
}

async fn verdict(source: GrammarSource) -> Result<(), GrammarError> {
    compiler(GrammarLimits::default()).compile(source).await.map(drop)
}

async fn schema(schema: Value) -> Result<(), GrammarError> {
    verdict(GrammarSource::JsonSchema(schema)).await
}

async fn regex(text: impl Into<String>) -> Result<(), GrammarError> {
    verdict(GrammarSource::Regex(text.into())).await
}

async fn lark(text: impl Into<String>) -> Result<(), GrammarError> {
    verdict(GrammarSource::Lark(text.into())).await
}

fn object_of(properties: usize, required: usize) -> Value {
    let names: Vec<_> = (0..properties).map(|index| format!("p{index}")).collect();
    let types: Map<_, _> = names.iter().map(|name| (name.clone(), json!({"type": "integer"}))).collect();
    json!({"type": "object", "properties": types, "required": names[..required]})
}

#[tokio::test]
async fn an_object_leaves_only_so_many_properties_open() {
    let open = |properties| Err(GrammarError::TooOpen { properties, limit: 500 });
    assert_eq!(schema(object_of(500, 0)).await, Ok(()));
    assert_eq!(schema(object_of(600, 100)).await, Ok(()));
    assert_eq!(schema(object_of(501, 0)).await, open(501));
    assert_eq!(schema(json!({"type": "array", "items": object_of(700, 150)})).await, open(550));
}

fn animals() -> Value {
    json!({
        "title": "Animals", "type": "object", "required": ["activity", "animals", "animals_seen", "location"],
        "properties": {
            "activity": {"type": "string"}, "animals": {"type": "array", "items": {"type": "string"}},
            "animals_seen": {"type": "integer", "minimum": 1, "maximum": 5}, "location": {"type": "string"},
        },
    })
}

fn written(source: GrammarSource) -> Value {
    serde_json::from_str(&source.write(&GrammarLimits::default()).unwrap().text).unwrap()
}

#[tokio::test]
async fn good_grammars_are_taken() {
    schema(animals()).await.unwrap();
    schema(json!({"$ref": "#/$defs/tree", "$defs": {"tree": {"type": "object", "properties": {
        "children": {"type": "array", "items": {"$ref": "#/$defs/tree"}}}}}}))
    .await
    .unwrap();
    schema(json!({"oneOf": [{"type": "string"}, {"type": "object", "properties": {"a": {"const": 1}}}]}))
        .await
        .unwrap();
    verdict(GrammarSource::any_object()).await.unwrap();
    regex(r"^\d{4}-\d\d$").await.unwrap();
    regex("[a-z]+@[a-z]+\\.(com|org)").await.unwrap();
    lark("start: \"yes\" | \"no\" /[a-z]+/").await.unwrap();
}

#[tokio::test]
async fn what_cannot_be_followed_is_refused_with_a_reason() {
    let unsatisfiable = schema(json!({"type": "integer", "minimum": 5, "maximum": 1})).await;
    assert!(
        matches!(&unsatisfiable, Err(GrammarError::Invalid(why)) if why.contains("Unsatisfiable")),
        "{unsatisfiable:?}"
    );
    let unknown = schema(json!({"type": "string", "format": "no-such"})).await;
    assert!(matches!(&unknown, Err(GrammarError::Invalid(why)) if why.contains("no-such")), "{unknown:?}");
    for refused in [
        schema(json!({"$ref": "#"})).await,
        schema(json!({"$ref": "#/$defs/none"})).await,
        schema(json!({"$ref": "https://example.com/schema.json"})).await,
        schema(json!({"type": "object", "x-guidance": {"no": 1}})).await,
        schema(json!({"not": {"type": "string"}})).await,
        schema(json!(true)).await,
        regex("(").await,
        regex("(?=a)b").await,
        regex(r"(a)\1").await,
        lark("start: unknown").await,
        lark("").await,
        lark("start: start \"a\"").await,
    ] {
        assert!(matches!(refused, Err(GrammarError::Invalid(_))), "{refused:?}");
    }
}

#[tokio::test]
async fn large_deep_and_slow_grammars_are_refused_in_time() {
    let started = Instant::now();
    let large = regex("a".repeat(1 << 20)).await;
    assert!(matches!(large, Err(GrammarError::TooLarge { bytes: 0x10_0000, .. })), "{large:?}");
    let nested = (0..200).fold(json!({"type": "string"}), |inner, _| json!({"type": "array", "items": inner}));
    assert!(matches!(schema(nested).await, Err(GrammarError::TooDeep { .. })));
    assert!(matches!(regex("(".repeat(200) + &")".repeat(200)).await, Err(GrammarError::TooDeep { .. })));
    assert!(regex(r"\(".repeat(200)).await.is_ok());
    let names: Vec<String> = (0..8000).map(|index| format!("name-{index}")).collect();
    let _ = schema(json!({"enum": names})).await;
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grammar_that_explodes_is_given_up_in_time() {
    let compiler = compiler(GrammarLimits { time_limit: Duration::from_millis(5), ..GrammarLimits::default() });
    let both = "start: \"q\" T\nT: /(.*a.{400}){20}/ & /(.*b.{300}){20}/";
    let bomb = || GrammarSource::Lark(both.to_owned());
    for _ in 0..2 {
        let started = Instant::now();
        let verdict = compiler.compile(bomb()).await;
        assert!(matches!(verdict, Err(GrammarError::TooSlow { .. })), "{verdict:?}");
        assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    }
    // Told to stop, the thread is free again at once: there are two, and both had one.
    let started = Instant::now();
    while compiler.compile(GrammarSource::any_object()).await.is_err() && started.elapsed() < Duration::from_secs(2) {}
    assert!(started.elapsed() < Duration::from_secs(1));
}

/// Its size tells, before a clock does.
#[tokio::test(flavor = "multi_thread")]
async fn a_grammar_that_explodes_is_refused_by_its_size() {
    for bomb in ["(a{1000}){1000}", "x(a{1000}){1000}"] {
        let started = Instant::now();
        let verdict = regex(bomb).await;
        assert!(matches!(&verdict, Err(GrammarError::TooRepetitive { .. })), "{verdict:?}");
        assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
    }
}

#[tokio::test]
async fn what_leads_too_far_is_refused() {
    let chain = |length: usize| {
        let rules = chain("r", length);
        format!("start: r0\n{rules}r{length}: \"a\"")
    };
    lark(chain(900)).await.unwrap();
    assert!(matches!(lark(chain(1000)).await, Err(GrammarError::TooEntangled { .. })));
    let definitions = |length: usize| {
        let items = |index: usize| (format!("d{index}"), json!({"items": {"$ref": format!("#/$defs/d{}", index + 1)}}));
        let all: Map<String, Value> = (0..length).map(items).chain([(format!("d{length}"), json!({}))]).collect();
        json!({"$ref": "#/$defs/d0", "$defs": all})
    };
    schema(definitions(240)).await.unwrap();
    assert!(matches!(schema(definitions(260)).await, Err(GrammarError::TooEntangled { .. })));
}

/// The libraries call themselves for what is inside something else; no text may exhaust the stack of a thread.
#[tokio::test]
async fn chains_do_not_exhaust_the_stack() {
    let rules = chain("r", 6000);
    let _ = lark(format!("start: r0\n{rules}r6000: \"a\"")).await;
    let terminals = chain("T", 6000);
    let _ = lark(format!("start: T0\n{terminals}T6000: \"a\"")).await;
    let _ = lark(format!("start: \"a\"{}", "?".repeat(60_000))).await;
    let _ = lark(format!("start: {}/a/", "~".repeat(60_000))).await;
    let _ = lark(format!("start: \"a\"{}", " | \"b\"".repeat(15_000))).await;
    let _ = lark(format!("start: T\nT: {}/b/", "/a/ & ".repeat(15_000))).await;
    let _ = regex("a|".repeat(60_000)).await;
    let _ = regex(format!("a{}", "*".repeat(60_000))).await;
    let _ = regex(format!("a{}", "{1,2}".repeat(10_000))).await;
    let definitions: Map<String, Value> = (0..2500)
        .map(|index| (format!("d{index}"), json!({"$ref": format!("#/$defs/d{}", index + 1)})))
        .chain([("d2500".to_owned(), json!({"type": "null"}))])
        .collect();
    let _ = schema(json!({"$ref": "#/$defs/d0", "$defs": definitions})).await;
    let nested: Map<String, Value> = (0..2000)
        .map(|index| (format!("d{index}"), json!({"items": {"$ref": format!("#/$defs/d{}", index + 1)}})))
        .chain([("d2000".to_owned(), json!({"type": "null"}))])
        .collect();
    let _ = schema(json!({"$ref": "#/$defs/d0", "$defs": nested})).await;
    let all: Vec<Value> = (0..2000).map(|index| json!({"properties": {format!("p{index}"): {}}})).collect();
    let _ = schema(json!({"allOf": all})).await;
}

#[tokio::test]
async fn one_too_many_is_refused_at_once() {
    let compiler = compiler(GrammarLimits { threads: 0, max_waiting: 0, ..GrammarLimits::default() });
    assert_eq!(compiler.compile(GrammarSource::any_object()).await, Err(GrammarError::Busy));
}

#[tokio::test]
async fn verdicts_are_kept() {
    let compiler = compiler(GrammarLimits { max_verdicts: 1, ..GrammarLimits::default() });
    let bad = || GrammarSource::Regex("(".to_owned());
    let first = compiler.compile(bad()).await;
    assert_eq!(compiler.compile(bad()).await, first);
    assert_eq!(compiler.verdicts().len(), 1);
    compiler.compile(GrammarSource::any_object()).await.unwrap();
    assert_eq!(compiler.verdicts().len(), 1);
}

#[tokio::test]
async fn a_model_without_an_end_follows_no_grammar() {
    for end_tokens in [vec![], vec![9999]] {
        let compiler = GrammarCompiler::new(vocabulary(end_tokens), GrammarLimits::default());
        let refused = compiler.compile(GrammarSource::any_object()).await;
        assert!(matches!(refused, Err(GrammarError::Unsupported(_))), "{refused:?}");
    }
}

#[test]
fn the_order_of_keys_is_kept() {
    let keys: Vec<String> =
        written(GrammarSource::JsonSchema(animals()))["properties"].as_object().unwrap().keys().cloned().collect();
    assert_eq!(keys, ["activity", "animals", "animals_seen", "location"]);
}

#[test]
fn settings_of_the_sender_win() {
    let own = json!({"type": "object", "x-guidance": {"whitespace_flexible": false}});
    assert_eq!(written(GrammarSource::JsonSchema(own.clone())), own);
    assert_eq!(written(GrammarSource::any_object())["x-guidance"]["whitespace_pattern"], " ?");
}

#[test]
fn objects_that_list_their_properties_are_closed() {
    let closed = |schema: Value| written(GrammarSource::JsonSchema(schema));
    let nested = closed(json!({
        "type": "object", "properties": {"a": {"items": {"properties": {"b": {}}}}, "c": {"$ref": "#/$defs/d"}},
        "$defs": {"d": {"properties": {"e": {"const": {"properties": {}}}}}},
    }));
    assert_eq!(nested["additionalProperties"], false);
    assert_eq!(nested["properties"]["a"]["items"]["additionalProperties"], false);
    assert_eq!(nested["$defs"]["d"]["additionalProperties"], false);
    assert_eq!(nested["$defs"]["d"]["properties"]["e"], json!({"const": {"properties": {}}}));
    for open in [
        json!({"type": "object"}),
        json!({"properties": {}, "additionalProperties": true}),
        json!({"properties": {}, "patternProperties": {"a": {}}}),
        json!({"allOf": [{"properties": {"a": {}}}, {"properties": {"b": {}}}]}),
        json!({"properties": {"a": {}}, "anyOf": [{"properties": {"b": {}}}]}),
    ] {
        assert!(!closed(open.clone()).to_string().contains("\"additionalProperties\":false"), "{open}");
    }
    let optional = closed(json!({"anyOf": [{"properties": {"b": {}}}, {"type": "null"}]}));
    assert_eq!(optional["anyOf"][0]["additionalProperties"], false);
}

#[test]
fn what_lists_properties_is_an_object() {
    let listed = |schema: Value| written(GrammarSource::JsonSchema(schema));
    let nested = listed(json!({"properties": {"a": {"properties": {"b": {}}}}}));
    assert_eq!((&nested["type"], &nested["properties"]["a"]["type"]), (&json!("object"), &json!("object")));
    let laid_over = listed(json!({"properties": {"a": {"allOf": [{"type": "integer"}, {"minimum": 1}]}}}));
    assert_eq!(laid_over["type"], "object");
    for own in [json!({"properties": {}, "type": ["object", "null"]}), json!({"properties": {}, "enum": ["a"]})] {
        assert_eq!(listed(own.clone())["type"], own["type"]);
    }
}
