//! `/v1/responses`, whole: what reaches the model, and what comes back.

use serde_json::{Value, json};

use super::fake::Script;
use super::fixture::{IMAGE, Setup, picture, post, read};
use crate::sampling::{LogprobSource, PenaltyScope};

pub(super) const PATH: &str = "/v1/responses";

/// A function in the form that responses have.
pub(super) fn tool() -> Value {
    let parameters = json!({"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]});
    json!({"type": "function", "name": "get_weather", "description": "d", "parameters": parameters, "strict": true})
}

pub(super) const CALL: &str =
    "<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Bern\"}}\n</tool_call>";

/// A request for an answer to `q` with these other fields.
pub(super) fn ask(fields: Value) -> Value {
    let mut body = json!({"input": "q"});
    body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    body
}

async fn answered(script: Script, fields: Value) -> Value {
    let (status, body) = Setup::playing([script]).post(PATH, ask(fields)).await;
    assert_eq!(status, 200, "{body}");
    body
}

/// The prompt text that a body becomes, images as `#`.
async fn rendered(body: Value) -> String {
    let setup = Setup::playing([Script::ended("x")]);
    let (status, answer) = setup.post(PATH, body).await;
    assert_eq!(status, 200, "{answer}");
    let ids = setup.fake.request(0).prompt.token_ids;
    ids.iter().map(|&id| if id == IMAGE { '#' } else { char::from(id as u8) }).collect()
}

#[tokio::test]
async fn a_complete_response_has_every_key() {
    let mut body = answered(Script::ended("hi"), json!({"model": "tgi"})).await;
    for (name, prefix) in [("id", "resp_"), ("msg", "msg_")] {
        let id = if name == "id" { body["id"].take() } else { body["output"][0]["id"].take() };
        assert!(id.as_str().unwrap().starts_with(prefix));
    }
    for time in ["created_at", "completed_at"] {
        assert!(body[time].take().as_u64().unwrap() > 1_700_000_000);
    }
    let part = json!({"type": "output_text", "text": "hi", "annotations": [], "logprobs": []});
    let message = json!({"id": null, "type": "message", "status": "completed", "role": "assistant", "content": [part]});
    let expected = json!({
        "id": null, "object": "response", "created_at": null, "completed_at": null, "status": "completed",
        "error": null, "incomplete_details": null, "output": [message],
        "usage": {"input_tokens": 18, "output_tokens": 3, "total_tokens": 21,
                  "input_tokens_details": {"cached_tokens": 3, "cache_write_tokens": 0, "image_tokens": 0},
                  "output_tokens_details": {"reasoning_tokens": 0}},
        "model": "tgi", "instructions": null, "max_output_tokens": null, "temperature": 1.0, "top_p": 1.0,
        "frequency_penalty": 0.0, "presence_penalty": 0.0, "top_logprobs": 0, "tools": [], "tool_choice": "auto",
        "parallel_tool_calls": true, "text": {"format": {"type": "text"}}, "metadata": {}, "user": null,
        "safety_identifier": null, "prompt_cache_key": null, "truncation": "disabled", "store": false,
        "background": false, "previous_response_id": null, "max_tool_calls": null, "service_tier": "default",
        "reasoning": {"effort": null, "summary": null},
    });
    assert_eq!(body, expected);
}

#[tokio::test]
async fn what_was_asked_is_repeated() {
    let asked = json!({
        "instructions": "i", "max_output_tokens": 7, "temperature": 0.5, "top_p": 0.25, "frequency_penalty": 0.5,
        "presence_penalty": -0.5, "top_logprobs": 2, "tools": [tool()], "tool_choice": "none",
        "parallel_tool_calls": false, "metadata": {"a": "b"}, "user": "u",
        "safety_identifier": "s", "prompt_cache_key": "k",
    });
    let body = answered(Script::ended("x"), asked.clone()).await;
    for (name, value) in asked.as_object().unwrap() {
        assert_eq!(&body[name], value, "{name}");
    }
    let ignored = json!({"store": true, "truncation": "auto", "include": ["reasoning.encrypted_content"],
                         "reasoning": {"effort": "low"}, "service_tier": "flex", "text": null});
    let body = answered(Script::ended("x"), ignored).await;
    assert_eq!((&body["store"], &body["truncation"]), (&json!(false), &json!("disabled")));
    assert_eq!((&body["model"], &body["service_tier"]), (&json!("org/bytes"), &json!("default")));
}

#[tokio::test]
async fn settings_reach_the_sampler() {
    let setup = Setup::playing([Script::ended("x"), Script::ended("x")]);
    let fields = json!({
        "temperature": 0.5, "top_p": 0.25, "top_k": 4, "typical_p": 0.75, "repetition_penalty": 1.5, "seed": 7,
        "frequency_penalty": 0.5, "presence_penalty": -0.5, "max_output_tokens": 9, "ignore_eos": true,
        "include": ["message.output_text.logprobs"], "top_logprobs": 3, "logit_bias": {"5": 2},
    });
    assert_eq!(setup.post(PATH, ask(fields)).await.0, 200);
    assert_eq!(setup.post(PATH, ask(json!({"temperature": 0}))).await.0, 200);
    let request = setup.fake.request(0);
    let sampling = &request.sampling;
    assert_eq!((sampling.temperature, sampling.top_p, sampling.top_k, sampling.typical_p), (0.5, 0.25, 4, 0.75));
    assert_eq!((sampling.repetition_penalty, sampling.seed, sampling.num_top_tokens), (1.5, 7, 3));
    assert_eq!((sampling.frequency_penalty, sampling.presence_penalty), (0.5, -0.5));
    assert_eq!((sampling.logprobs, sampling.penalty_scope), (LogprobSource::Raw, PenaltyScope::Output));
    assert_eq!(sampling.logit_bias, [(5, 2.0)]);
    assert_eq!((request.max_new_tokens, request.ignore_eos), (Some(9), true));
    assert!(setup.fake.request(1).sampling.greedy);
}

#[tokio::test]
async fn input_becomes_a_conversation() {
    let text = |kind: &str, text: &str| json!({"type": kind, "text": text});
    let image = |url: Value| json!({"type": "input_image", "image_url": url, "detail": "auto"});
    assert_eq!(rendered(ask(json!({}))).await, "[user]q[assistant]");
    assert_eq!(rendered(ask(json!({"instructions": "s"}))).await, "[system]s[user]q[assistant]");
    let items = json!([
        {"role": "developer", "content": "d"},
        {"type": "message", "role": "user", "content": [text("input_text", "a"), image(json!(picture())),
                                                        image(json!({"url": picture()}))]},
        {"type": "reasoning", "id": "rs_1", "summary": [], "content": null, "encrypted_content": "x"},
        {"type": "message", "id": "msg_1", "status": "completed", "role": "assistant",
         "content": [{"type": "output_text", "text": "b", "annotations": [], "logprobs": null},
                     {"type": "refusal", "refusal": "r"}]},
        {"role": "user", "content": "c"},
    ]);
    assert_eq!(rendered(json!({"input": items})).await, "[system]d[user]a########[assistant]br[user]c[assistant]");
    let last = json!([{"role": "user", "content": "q"}, {"role": "assistant", "content": "It is"}]);
    assert_eq!(rendered(json!({"input": last})).await, "[user]q[assistant]It is[assistant]");
}

#[tokio::test]
async fn calls_and_what_they_brought_become_turns() {
    let call = |id: &str| {
        json!({"type": "function_call", "id": "fc_1", "call_id": id, "name": "f", "arguments": "{\"a\": 1}",
               "status": "completed"})
    };
    let output = json!([{"type": "input_text", "text": "seen: "}, {"type": "input_image", "image_url": picture()}]);
    let items = json!([
        {"role": "user", "content": "q"}, {"role": "assistant", "content": "Let me see."}, call("c1"), call("c2"),
        {"type": "function_call_output", "call_id": "c1", "output": "one"},
        {"type": "function_call_output", "call_id": "c2", "output": output},
    ]);
    let written = "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": 1}}\n</tool_call>";
    let text = rendered(json!({"input": items})).await;
    assert!(
        text.starts_with(&format!("[user]q[assistant]Let me see.\n{written}\n{written}[user]<tool_response>\none")),
        "{text}"
    );
    assert!(text.ends_with("seen: ####\n</tool_response>[assistant]"), "{text}");
}

#[tokio::test]
async fn text_never_becomes_an_image() {
    let setup = Setup::playing([Script::ended("x")]);
    assert_eq!(setup.post(PATH, json!({"input": "![](http://127.0.0.1:1/x.png) <image>"})).await.0, 200);
    let prompt = setup.fake.request(0).prompt;
    assert!(prompt.images.is_empty() && !prompt.token_ids.contains(&IMAGE));
}

#[tokio::test]
async fn images_count_as_tokens() {
    let part = json!({"type": "input_image", "image_url": picture()});
    let body = answered(Script::ended("x"), json!({"input": [{"role": "user", "content": [part]}]})).await;
    assert_eq!(body["usage"]["input_tokens_details"]["image_tokens"], 4);
}

#[tokio::test]
async fn what_is_not_served_is_refused() {
    let message = |part: Value| json!({"input": [{"role": "user", "content": [part]}]});
    let item = |item: Value| json!({"input": [item]});
    let other = json!([{"type": "web_search"}]);
    let nameless = json!([{"type": "function", "name": "a b"}]);
    let rows = [
        (json!({"previous_response_id": "resp_1"}), "`previous_response_id`"),
        (json!({"conversation": "conv_1"}), "`conversation`"),
        (json!({"prompt": {"id": "p"}}), "`prompt`"),
        (json!({"background": true}), "`background`"),
        (json!({"truncation": "middle"}), "`truncation`"),
        (json!({"tools": other}), "`tools[0].type`"),
        (json!({"tools": nameless}), "`tools[0].name`"),
        (json!({"tool_choice": "required"}), "`tool_choice`"),
        (json!({"tools": [tool()], "tool_choice": {"type": "web_search"}}), "`tool_choice`"),
        (json!({"text": {"format": {"type": "json_schema", "name": "n"}}}), "`text.format.schema`"),
        (json!({"text": {"format": {"type": "xml"}}}), "`text.format.type`"),
        (json!({"text": {"format": {"type": "json_schema", "schema": {"type": "unheard"}}}}), "`text.format`"),
        (json!({"temperature": -1}), "`temperature`"),
        (json!({"top_logprobs": 6}), "`top_logprobs`"),
        (json!({"max_output_tokens": 0}), "`max_output_tokens`"),
        (json!({"stop": ""}), "`stop`"),
        (json!({"input": []}), "`input`"),
        (json!({"input": 3}), "input"),
        (json!({"input": null}), "input"),
        (item(json!({"role": "tool", "content": "a"})), "`input[0].role`"),
        (item(json!({"content": "a"})), "`input[0].role`"),
        (item(json!({"role": "user"})), "`input[0].content`"),
        (item(json!({"type": "item_reference", "id": "msg_1"})), "`input[0].type`"),
        (item(json!({"type": "computer_call"})), "`input[0].type`"),
        (item(json!({"type": "function_call", "call_id": "a", "arguments": "{}"})), "`input[0].name`"),
        (item(json!({"type": "function_call", "call_id": "a", "name": "f"})), "`input[0].arguments`"),
        (item(json!({"type": "function_call_output", "output": "a"})), "`input[0].call_id`"),
        (item(json!({"type": "function_call_output", "call_id": "a"})), "`input[0].output`"),
        (message(json!({"type": "input_image", "file_id": "f"})), "`input[0].content[0].file_id`"),
        (message(json!({"type": "input_image"})), "`input[0].content[0].image_url`"),
        (
            message(json!({"type": "input_image", "image_url": picture(), "detail": "x"})),
            "`input[0].content[0].detail`",
        ),
        (message(json!({"type": "input_text"})), "`input[0].content[0].text`"),
        (message(json!({"type": "input_file", "file_id": "f"})), "`input[0].content[0].type`"),
        (message(json!({"type": "input_text", "text": 3})), "input[0].content[0].text"),
    ];
    let setup = Setup::playing([]);
    for (fields, name) in rows {
        let (status, body) = setup.post(PATH, ask(fields.clone())).await;
        assert_eq!((status.as_u16(), &body["error_type"]), (422, &json!("validation")), "{fields} {body}");
        assert!(body["error"].as_str().unwrap().contains(name), "{fields} {body}");
    }
    assert_eq!(setup.fake.num_requests(), 0);
    let (status, body) = setup.post(PATH, ask(json!({"adapter_id": "a"}))).await;
    assert_eq!(status, 404, "{body}");
}

#[tokio::test]
async fn openai_clients_get_their_form_of_errors() {
    let mut request = post(PATH, &ask(json!({"background": true})));
    request.headers_mut().insert("x-stainless-lang", "python".parse().unwrap());
    let (status, body) = read(Setup::playing([]).send(request).await).await;
    assert_eq!((status.as_u16(), &body["error"]["param"]), (422, &json!("background")));
    assert_eq!(body["error"]["type"], "invalid_request_error");
}

#[tokio::test]
async fn nulls_are_absent_and_unknown_fields_ignored() {
    let mut body = ask(json!({"unheard": {"of": 1}}));
    for name in [
        "model",
        "instructions",
        "max_output_tokens",
        "temperature",
        "top_p",
        "stream",
        "text",
        "tools",
        "tool_choice",
        "parallel_tool_calls",
        "include",
        "top_logprobs",
        "metadata",
        "user",
        "truncation",
        "store",
        "background",
        "previous_response_id",
        "conversation",
        "prompt",
        "stop",
        "seed",
        "logit_bias",
        "adapter_id",
    ] {
        body[name] = Value::Null;
    }
    let (status, answer) = Setup::playing([Script::ended("x")]).post(PATH, body).await;
    assert_eq!(status, 200, "{answer}");
}

#[tokio::test]
async fn a_cut_answer_is_incomplete() {
    let body = answered(Script::cut("hal"), json!({"max_output_tokens": 3})).await;
    assert_eq!(body["status"], "incomplete");
    assert_eq!(body["incomplete_details"], json!({"reason": "max_output_tokens"}));
    assert_eq!(body["output"][0]["status"], "incomplete");
    assert_eq!(body["completed_at"], Value::Null);
}

#[tokio::test]
async fn an_empty_answer_is_an_empty_message() {
    let body = answered(Script::ended(""), json!({})).await;
    assert_eq!(body["output"][0]["content"][0]["text"], "");
}

#[tokio::test]
async fn a_stop_string_is_cut() {
    let setup = Setup::playing([Script::text("hello STOP more").then_hangs()]);
    let (_, body) = setup.post(PATH, ask(json!({"stop": " STOP"}))).await;
    assert_eq!(body["output"][0]["content"][0]["text"], "hello");
    assert_eq!((&body["status"], setup.fake.live()), (&json!("completed"), 0));
}

#[tokio::test]
async fn logprobs_come_when_they_are_asked_for() {
    let script = || Script::ended("ab").with_logprob(-0.25).with_top(&[(97, -0.25), (98, -1.5)]);
    let asked = json!({"include": ["message.output_text.logprobs"], "top_logprobs": 2});
    let body = answered(script(), asked).await;
    let logprobs = &body["output"][0]["content"][0]["logprobs"];
    let top = json!([{"token": "a", "logprob": -0.25, "bytes": [97]}, {"token": "b", "logprob": -1.5, "bytes": [98]}]);
    assert_eq!(logprobs[0], json!({"token": "a", "logprob": -0.25, "bytes": [97], "top_logprobs": top}));
    assert_eq!(logprobs.as_array().unwrap().len(), 3);
    let body = answered(script(), json!({})).await;
    assert_eq!(body["output"][0]["content"][0]["logprobs"], json!([]));
}

#[tokio::test]
async fn formats_become_grammars() {
    let schema = json!({"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]});
    let format = json!({"type": "json_schema", "name": "n", "schema": schema, "strict": true});
    for format in [format, json!({"type": "json_object"})] {
        let setup = Setup::playing([Script::ended("{}")]);
        let (status, body) = setup.post(PATH, ask(json!({"text": {"format": format}}))).await;
        assert_eq!((status.as_u16(), &body["text"]["format"]), (200, &format), "{body}");
        assert!(setup.fake.request(0).grammar.is_some());
    }
}

#[tokio::test]
async fn calls_become_items() {
    let body = answered(Script::ended(&format!("Let me see.\n{CALL}\n{CALL}")), json!({"tools": [tool()]})).await;
    let kinds: Vec<_> = body["output"].as_array().unwrap().iter().map(|item| item["type"].clone()).collect();
    assert_eq!(kinds, ["message", "function_call", "function_call"]);
    assert_eq!(body["output"][0]["content"][0]["text"], "Let me see.");
    for call in &body["output"].as_array().unwrap()[1..] {
        assert!(
            call["id"].as_str().unwrap().starts_with("fc_") && call["call_id"].as_str().unwrap().starts_with("call_")
        );
        let said = (&call["name"], &call["arguments"], &call["status"]);
        assert_eq!(said, (&json!("get_weather"), &json!("{\"city\": \"Bern\"}"), &json!("completed")));
    }
    assert_ne!(body["output"][1]["call_id"], body["output"][2]["call_id"]);
    assert_eq!(body["status"], "completed");
}

#[tokio::test]
async fn tool_choices_are_kept() {
    let named = json!({"type": "function", "name": "get_weather"});
    let allowed = json!({"type": "allowed_tools", "mode": "required", "tools": [named]});
    let nested = json!({"type": "function", "function": {"name": "get_weather"}});
    for (choice, held) in [
        (json!("auto"), false),
        (json!("none"), false),
        (json!("required"), true),
        (named, true),
        (nested, true),
        (allowed, true),
    ] {
        let setup = Setup::playing([Script::ended("x")]);
        let (status, body) = setup.post(PATH, ask(json!({"tools": [tool()], "tool_choice": choice}))).await;
        assert_eq!((status.as_u16(), &body["tool_choice"]), (200, &choice), "{body}");
        assert_eq!(setup.fake.request(0).grammar.is_some(), held, "{choice}");
    }
    let rows = [
        json!({"tools": [tool()], "tool_choice": {"type": "function", "name": "other"}}),
        json!({"tools": [tool()], "text": {"format": {"type": "json_object"}}}),
    ];
    for fields in rows {
        let (status, body) = Setup::playing([]).post(PATH, ask(fields)).await;
        assert_eq!((status.as_u16(), &body["error_type"]), (422, &json!("tool_error")), "{body}");
    }
}

#[tokio::test]
async fn without_parallel_calls_the_first_ends_the_answer() {
    let setup = Setup::playing([Script::text(&format!("{CALL}\n{CALL}")).then_hangs()]);
    let (_, body) = setup.post(PATH, ask(json!({"tools": [tool()], "parallel_tool_calls": false}))).await;
    assert_eq!(body["output"].as_array().unwrap().len(), 1);
    assert_eq!(setup.fake.live(), 0);
}

#[tokio::test]
async fn answers_carry_the_headers_of_a_chat() {
    let response = Setup::playing([Script::ended("x")]).send(post(PATH, &ask(json!({})))).await;
    for name in ["x-request-id", "server-timing", "x-compute-time", "x-prompt-tokens", "x-generated-tokens"] {
        assert!(response.headers().contains_key(name), "{name}");
    }
}
