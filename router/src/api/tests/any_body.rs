//! Whatever a client sends, the answer is a success or its own fault, and nothing is left behind.

use http_body_util::BodyExt;
use proptest::prelude::*;
use serde_json::{Map, Value, json};
use tokio::runtime::Builder;
use tower::ServiceExt;

use super::fake::Script;
use super::fixture::{Setup, post};

/// Names that mean something, so that values land where they can do harm.
const FIELDS: &[&str] = &[
    "inputs",
    "parameters",
    "stream",
    "best_of",
    "temperature",
    "repetition_penalty",
    "frequency_penalty",
    "top_k",
    "top_p",
    "typical_p",
    "do_sample",
    "max_new_tokens",
    "return_full_text",
    "stop",
    "truncate",
    "watermark",
    "details",
    "decoder_input_details",
    "seed",
    "top_n_tokens",
    "grammar",
    "adapter_id",
    "model",
    "messages",
    "role",
    "content",
    "type",
    "text",
    "image_url",
    "url",
    "name",
    "tool_calls",
    "max_tokens",
    "presence_penalty",
    "n",
    "stream_options",
    "include_usage",
    "logprobs",
    "top_logprobs",
    "logit_bias",
    "tools",
    "tool_choice",
    "response_format",
    "ignore_eos",
    "prompt",
    "echo",
    "suffix",
    "instances",
    "tokens",
    "input",
    "instructions",
    "output",
    "arguments",
    "call_id",
    "format",
    "include",
    "metadata",
];

fn scalar() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-3i64..12).prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        (0.0..2.0f64).prop_map(Value::from),
        prop::sample::select(vec![
            "user",
            "assistant",
            "text",
            "image_url",
            "input_text",
            "input_image",
            "function_call",
            "function_call_output",
            "auto",
            "none",
            "",
            "![](x)",
            "![](data:,)"
        ])
        .prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
    ]
}

fn json_value() -> impl Strategy<Value = Value> {
    scalar().prop_recursive(4, 32, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((prop::sample::select(FIELDS), inner), 0..6).prop_map(object),
        ]
    })
}

fn object(fields: Vec<(&'static str, Value)>) -> Value {
    Value::Object(fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

/// A good body with some fields replaced.
fn nearly_good() -> impl Strategy<Value = Value> {
    let good = prop_oneof![
        Just(json!({"inputs": "q", "prompt": "q", "input": "q", "messages": [{"role": "user", "content": "q"}]})),
        Just(
            json!({"inputs": "q", "prompt": "q", "parameters": {}, "messages": [{"role": "user", "content": [{"type": "text", "text": "a"}]}],
                   "input": [{"role": "user", "content": [{"type": "input_text", "text": "a"}]}]})
        ),
    ];
    let changes = prop::collection::vec((prop::sample::select(FIELDS), json_value()), 0..4);
    let parameters = prop::collection::vec((prop::sample::select(FIELDS), scalar()), 0..4);
    (good, changes, parameters).prop_map(|(mut good, changes, parameters)| {
        let fields = good.as_object_mut().unwrap_or_else(|| unreachable!("written above"));
        if let Some(known) = fields.get_mut("parameters").and_then(Value::as_object_mut) {
            known.extend(parameters.into_iter().map(|(name, value)| (name.to_owned(), value)).collect::<Map<_, _>>());
        }
        fields.extend(changes.into_iter().map(|(name, value)| (name.to_owned(), value)).collect::<Map<_, _>>());
        good
    })
}

const PATHS: [&str; 11] = [
    "/",
    "/generate",
    "/generate_stream",
    "/tokenize",
    "/detokenize",
    "/chat_tokenize",
    "/invocations",
    "/vertex",
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/responses",
];

/// The text that is a prompt elsewhere would stand for a stored one in a response.
fn meant_for(path: &str, body: &Value) -> Value {
    let mut body = body.clone();
    if path == "/v1/responses" && body["prompt"] == "q" {
        body["prompt"].take();
    }
    body
}

/// Sends a body everywhere; the worst status. What is refused says why, in the form that all errors have.
fn worst_status(body: &Value) -> u16 {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut worst = 0;
        let setup = Setup::playing(vec![Script::ended("ab"); 40]);
        let router = setup.router();
        for path in PATHS {
            let response = router.clone().oneshot(post(path, &meant_for(path, body))).await.unwrap();
            let status = response.status().as_u16();
            assert!((200..500).contains(&status), "{path} {status}");
            if status < 400 {
                // An answer that is read no further gives everything back.
                drop(response);
            } else {
                let bytes = response.into_body().collect().await.unwrap().to_bytes();
                let refusal: Value = serde_json::from_slice(&bytes).unwrap();
                assert!(refusal["error"].is_string() && refusal["error_type"].is_string(), "{path} {refusal}");
            }
            assert_eq!(setup.fake.live(), 0, "{path}");
            worst = worst.max(status);
        }
        worst
    })
}

/// Twice this many bodies go to every route: 22,000 requests. `PROPTEST_CASES` asks for more.
const CASES: u32 = 1000;

fn config() -> ProptestConfig {
    let usual = ProptestConfig::default();
    ProptestConfig { cases: usual.cases.max(CASES), ..usual }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn any_json_is_answered(body in json_value()) {
        prop_assert!(worst_status(&body) < 500);
    }

    #[test]
    fn nearly_good_json_is_answered(body in nearly_good()) {
        prop_assert!(worst_status(&body) < 500);
    }
}

#[test]
fn a_good_body_is_good_everywhere() {
    assert_eq!(
        worst_status(&json!({
            "inputs": "q", "prompt": "q", "input": "q", "messages": [{"role": "user", "content": "q"}],
            "instances": [{"inputs": "q"}], "tokens": [97],
        })),
        200
    );
}
