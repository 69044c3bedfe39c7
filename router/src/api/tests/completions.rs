//! `/v1/completions`.

use serde_json::{Value, json};

use super::fake::{END, Script};
use super::fixture::{IMAGE, Setup, picture};
use crate::sampling::{LogprobSource, PenaltyScope};

const PATH: &str = "/v1/completions";

async fn answer(scripts: Vec<Script>, body: Value) -> Value {
    let (status, answer) = Setup::playing(scripts).post(PATH, body).await;
    assert_eq!(status, 200, "{answer}");
    answer
}

async fn refused(body: Value, error_type: &str, text: &str) {
    let setup = Setup::playing(vec![Script::ended("x"); 4]);
    let (status, answer) = setup.post(PATH, body).await;
    assert_eq!(status, 422, "{answer}");
    assert_eq!(answer["error_type"], error_type, "{answer}");
    assert!(answer["error"].as_str().unwrap().contains(text), "{answer}");
    assert_eq!(setup.fake.num_requests(), 0);
}

/// The chunks of a stream, which ends as it should.
async fn chunks(scripts: Vec<Script>, mut body: Value) -> Vec<Value> {
    body["stream"] = true.into();
    let mut events = Setup::playing(scripts).events(PATH, body).await;
    assert_eq!(events.pop().as_deref(), Some("[DONE]"));
    events.iter().map(|event| serde_json::from_str(event).unwrap()).collect()
}

fn joined(chunks: &[Value], text: impl Fn(&Value) -> &Value) -> String {
    chunks.iter().map(|chunk| text(chunk).as_str().unwrap()).collect()
}

fn texts(answer: &Value) -> Vec<(u64, &str)> {
    let choices = answer["choices"].as_array().unwrap().iter();
    choices.map(|choice| (choice["index"].as_u64().unwrap(), choice["text"].as_str().unwrap())).collect()
}

#[tokio::test]
async fn a_complete_answer_has_every_key() {
    let mut body = answer(vec![Script::ended("hi")], json!({"model": "tgi", "prompt": "abc"})).await;
    assert!(body["id"].take().as_str().unwrap().starts_with("cmpl-"));
    assert!(body["created"].take().as_u64().unwrap() > 1_700_000_000);
    let expected = json!({
        "id": null, "object": "text_completion", "created": null, "model": "tgi",
        "system_fingerprint": concat!(env!("CARGO_PKG_VERSION"), "-native"),
        "choices": [{"index": 0, "text": "hi", "logprobs": null, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 3, "total_tokens": 6,
                  "prompt_tokens_details": {"cached_tokens": 3, "image_tokens": 0}},
    });
    assert_eq!(body, expected);
}

#[tokio::test]
async fn several_prompts_are_answered_in_order_and_add_up() {
    let scripts = vec![Script::ended("1"), Script::cut("22"), Script::ended("3"), Script::cut("44")];
    let body = answer(scripts, json!({"prompt": ["a", "bcd"], "n": 2})).await;
    assert_eq!(texts(&body), [(0, "1"), (1, "22"), (2, "3"), (3, "44")]);
    assert_eq!(body["choices"][1]["finish_reason"], "length");
    assert_eq!(body["usage"]["prompt_tokens"], 4);
    assert_eq!(body["usage"]["completion_tokens"], 8);
}

#[tokio::test]
async fn token_ids_are_the_prompt() {
    let setup = Setup::playing(vec![Script::ended("x"); 3]);
    assert_eq!(setup.post(PATH, json!({"prompt": [1, 2, END]})).await.0, 200);
    assert_eq!(setup.fake.request(0).prompt.token_ids, [1, 2, END]);
    assert_eq!(setup.post(PATH, json!({"prompt": [[7, 8, 9], [3]], "truncate": 2})).await.0, 200);
    assert_eq!(setup.fake.request(1).prompt.token_ids, [8, 9]);
    assert_eq!(setup.fake.request(2).prompt.token_ids, [3]);
}

#[tokio::test]
async fn prompts_hold_pictures_as_on_tgi_routes() {
    let setup = Setup::playing([Script::ended("x")]);
    let (status, body) = setup.post(PATH, json!({"prompt": format!("a![]({})b", picture())})).await;
    assert_eq!(status, 200);
    let prompt = setup.fake.request(0).prompt;
    assert_eq!(prompt.token_ids, [97, IMAGE, IMAGE, IMAGE, IMAGE, 98]);
    assert_eq!(body["usage"]["prompt_tokens_details"]["image_tokens"], 4);
}

#[tokio::test]
async fn what_is_refused() {
    for (prompt, text) in [
        (json!([1, 5000]), "5000 is not a token"),
        (json!([1, IMAGE]), "stands for an image"),
        (json!([]), "must not be empty"),
        (json!([""]), "must not be empty"),
        (json!([[1], []]), "must not be empty"),
        (json!([1, "a"]), "prompt"),
    ] {
        refused(json!({"prompt": prompt}), "validation", text).await;
    }
    refused(json!({"prompt": vec!["a"; 5]}), "batch size exceeded", "--max-client-batch-size").await;
    refused(json!({"prompt": "a", "suffix": "b"}), "suffix not supported", "suffix").await;
    for (field, value) in [
        ("max_tokens", json!(0)),
        ("n", json!(3)),
        ("n", json!(0)),
        ("logprobs", json!(6)),
        ("top_n_tokens", json!(6)),
        ("truncate", json!(0)),
        ("watermark", json!("yes")),
        ("temperature", json!(-1)),
    ] {
        refused(json!({"prompt": "a", field: value}), "validation", field).await;
    }
    refused(json!({"prompt": "a", "n": 2, "best_of": 1}), "validation", "best_of").await;
    refused(json!({"prompt": "a", "best_of": 2, "stream": true}), "validation", "best_of").await;
}

#[tokio::test]
async fn what_langchain_sends_is_plain_sampling() {
    let setup = Setup::playing([Script::ended("x")]);
    let body = json!({"prompt": ["a"], "model": "m", "top_p": 1, "n": 1, "frequency_penalty": 0, "presence_penalty": 0,
                      "temperature": 0.7, "max_tokens": 256, "seed": null, "logprobs": null, "logit_bias": {}});
    assert_eq!(setup.post(PATH, body).await.0, 200);
    let request = setup.fake.request(0);
    assert_eq!(request.max_new_tokens, Some(256));
    assert!(!request.sampling.greedy);
    assert_eq!(request.sampling.logprobs, LogprobSource::Raw);
    assert_eq!(request.sampling.penalty_scope, PenaltyScope::Output);
}

#[tokio::test]
async fn greedy_and_tgi_parameters() {
    for (fields, greedy) in [
        (json!({}), false),
        (json!({"temperature": 0}), true),
        (json!({"do_sample": false}), true),
        (json!({"do_sample": false, "top_k": 3}), false),
    ] {
        let setup = Setup::playing([Script::ended("x")]);
        let mut body = json!({"prompt": "a", "typical_p": 1, "repetition_penalty": 1.5, "ignore_eos": true});
        body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        assert_eq!(setup.post(PATH, body).await.0, 200);
        let request = setup.fake.request(0);
        assert_eq!(request.sampling.greedy, greedy, "{fields}");
        assert!(request.ignore_eos && request.sampling.needs_prompt());
    }
}

#[tokio::test]
async fn stop_strings_never_show() {
    let script = || vec![Script::ended("one END two")];
    let body = answer(script(), json!({"prompt": "a", "stop": "END", "logprobs": 0})).await;
    assert_eq!(body["choices"][0]["text"], "one ");
    assert_eq!(body["choices"][0]["finish_reason"], "stop");
    assert_eq!(body["choices"][0]["logprobs"]["tokens"], json!(["o", "n", "e", " "]));
    let chunks = chunks(script(), json!({"prompt": "a", "stop": ["END"], "details": true})).await;
    assert_eq!(joined(&chunks, |chunk| &chunk["choices"][0]["text"]), "one ");
    assert_eq!(joined(&chunks, |chunk| &chunk["token"]["text"]), "one ");
    assert_eq!(chunks.last().unwrap()["details"]["finish_reason"], "stop_sequence");
}

#[tokio::test]
async fn log_probabilities_in_the_old_shape() {
    let script = Script::cut("hé").with_logprob(-0.25).with_top(&[(104, -0.1), (105, -0.2), (106, -0.3)]);
    let body = answer(vec![script], json!({"prompt": "a", "logprobs": 2})).await;
    let logprobs = &body["choices"][0]["logprobs"];
    // The two bytes of one letter are two tokens, and begin where it does or behind it.
    assert_eq!(logprobs["text_offset"], json!([0, 1, 1]));
    assert_eq!(logprobs["token_logprobs"], json!([-0.25, -0.25, -0.25]));
    assert_eq!(logprobs["tokens"][0], "h");
    assert_eq!(logprobs["top_logprobs"][0].as_object().unwrap().len(), 2, "{logprobs}");
    assert_eq!(logprobs["top_logprobs"][1].as_object().unwrap().len(), 3, "{logprobs}");
}

#[tokio::test]
async fn the_prompt_is_repeated_on_demand() {
    let body = answer(vec![Script::ended("hi")], json!({"prompt": "abc ", "echo": true})).await;
    assert_eq!(body["choices"][0]["text"], "abc hi");
    let body = answer(vec![Script::ended("hi")], json!({"prompt": [97, 98], "return_full_text": true})).await;
    assert_eq!(body["choices"][0]["text"], "abhi");
    let chunks = chunks(vec![Script::ended("hi")], json!({"prompt": "abc ", "echo": true})).await;
    assert_eq!(joined(&chunks, |chunk| &chunk["choices"][0]["text"]), "abc hi");
}

#[tokio::test]
async fn nothing_but_the_prompt() {
    let body = answer(vec![Script::cut("x")], json!({"prompt": "abc", "echo": true, "max_tokens": 0})).await;
    assert_eq!(texts(&body), [(0, "abc")]);
    assert_eq!(body["choices"][0]["finish_reason"], "length");
    assert_eq!(body["usage"]["completion_tokens"], 0);
}

#[tokio::test]
async fn the_best_of_several_is_shown() {
    let scripts = vec![Script::ended("bad").with_logprob(-2.0), Script::ended("good").with_logprob(-1.0)];
    let body = answer(scripts, json!({"prompt": "a", "best_of": 2})).await;
    assert_eq!(texts(&body), [(0, "good")]);
    assert_eq!(body["usage"]["completion_tokens"], 9);
}

#[tokio::test]
async fn streams_carry_what_both_kinds_of_client_read() {
    let body = json!({"prompt": "a", "details": true, "top_n_tokens": 1, "seed": 7, "do_sample": true});
    let chunks = chunks(vec![Script::ended("hi").with_top(&[(104, -0.1)])], body).await;
    assert_eq!(chunks.len(), 3);
    assert_eq!(chunks[0]["object"], "text_completion");
    assert_eq!(chunks[0]["token"], json!({"id": 104, "text": "h", "logprob": -0.5, "special": false}));
    assert_eq!(chunks[0]["top_tokens"][0]["id"], 104);
    assert_eq!(chunks[0]["choices"][0]["finish_reason"], Value::Null);
    assert_eq!(chunks[2]["token"]["text"], "</s>");
    assert_eq!(chunks[2]["choices"][0]["text"], "");
    assert_eq!(chunks[2]["choices"][0]["finish_reason"], "stop");
    let details = json!({"finish_reason": "eos_token", "generated_tokens": 3, "seed": 7, "input_length": 1});
    assert_eq!(chunks[2]["details"], details);
}

#[tokio::test]
async fn streams_of_several_prompts_and_usage() {
    let body = json!({"prompt": ["ab", "c"], "stream_options": {"include_usage": true}});
    let mut chunks = chunks(vec![Script::ended("xx"), Script::cut("y")], body).await;
    let usage = chunks.pop().unwrap();
    assert_eq!(usage["choices"], json!([]));
    assert_eq!((&usage["usage"]["prompt_tokens"], &usage["usage"]["completion_tokens"]), (&json!(3), &json!(4)));
    for (index, text) in [(0, "xx"), (1, "y")] {
        let of_one = chunks.iter().filter(|chunk| chunk["choices"][0]["index"] == index);
        let of_one: Vec<_> = of_one.cloned().collect();
        assert_eq!(joined(&of_one, |chunk| &chunk["choices"][0]["text"]), text);
        assert!(of_one.last().unwrap()["choices"][0]["finish_reason"].is_string());
    }
}

#[tokio::test]
async fn headers_of_several_prompts_add_up() {
    let setup = Setup::playing(vec![Script::ended("hi"); 2]);
    let response = setup.send(super::fixture::post(PATH, &json!({"prompt": ["abc", "d"]}))).await;
    let header = |name: &str| response.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
    assert_eq!(header("x-prompt-tokens").as_deref(), Some("4"));
    assert_eq!(header("x-generated-tokens").as_deref(), Some("6"));
    assert_eq!(header("x-compute-characters").as_deref(), Some("4"));
    assert!(header("x-total-time").is_some() && header("x-compute-time").is_none());
}

#[tokio::test]
async fn one_refused_prompt_ends_them_all() {
    let setup = Setup::playing(vec![Script::text("x").then_hangs(); 2]);
    let (status, _) = setup.post(PATH, json!({"prompt": ["a", "b".repeat(2001)]})).await;
    assert_eq!(status, 422);
    assert_eq!(setup.fake.live(), 0);
}

#[tokio::test]
async fn biases_are_an_object_from_token_ids_to_numbers() {
    for (path, prompt) in [(PATH, "prompt"), ("/v1/chat/completions", "messages")] {
        let ask = |bias: Value| {
            let value = if prompt == "prompt" { json!("a") } else { json!([{"role": "user", "content": "q"}]) };
            json!({prompt: value, "logit_bias": bias})
        };
        let setup = Setup::playing(vec![Script::ended("x"); 3]);
        assert_eq!(setup.post(path, ask(json!({"97": -100, "5": 1.5}))).await.0, 200);
        assert_eq!(setup.fake.request(0).sampling.logit_bias, [(5, 1.5), (97, -100.0)]);
        for nothing in [json!({}), json!([])] {
            assert_eq!(setup.post(path, ask(nothing)).await.0, 200);
        }
        for bad in [json!({"97": 101}), json!({"97": "1"}), json!({"5000": 1}), json!({"a": 1}), json!([1.0]), json!(3)]
        {
            let (status, answer) = setup.post(path, ask(bad)).await;
            assert_eq!(status, 422, "{answer}");
            assert!(answer["error"].as_str().unwrap().contains("logit_bias"), "{answer}");
        }
    }
}
