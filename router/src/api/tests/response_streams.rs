//! `/v1/responses`, streamed: names, order and numbers of the events, and that they add up to the whole.

use serde_json::{Value, json};

use super::fake::Script;
use super::fixture::{Setup, post, text};
use super::responses::{CALL, PATH, ask, tool};
use crate::engine::GenerationError;

/// The events of an answer. Each has its name twice, and the next number.
async fn events(script: Script, fields: Value) -> Vec<Value> {
    let mut body = ask(fields);
    body["stream"] = json!(true);
    let response = Setup::playing([script]).send(post(PATH, &body)).await;
    assert_eq!((response.status().as_u16(), &response.headers()["content-type"] == "text/event-stream"), (200, true));
    assert!(response.headers().contains_key("server-timing"));
    read(&text(response).await)
}

fn read(text: &str) -> Vec<Value> {
    let events = text.split_terminator("\n\n").enumerate().map(|(number, event)| {
        let (name, data) = event.strip_prefix("event: ").unwrap().split_once("\ndata: ").unwrap();
        let data: Value = serde_json::from_str(data).unwrap();
        assert_eq!((&data["type"], &data["sequence_number"]), (&json!(name), &json!(number)));
        data
    });
    events.collect()
}

/// Types in order, neighbours that are the same once.
fn kinds(events: &[Value]) -> Vec<String> {
    let mut kinds: Vec<String> =
        events.iter().map(|event| event["type"].as_str().unwrap().trim_start_matches("response.").to_owned()).collect();
    kinds.dedup();
    kinds
}

fn of_kind<'a>(events: &'a [Value], kind: &str) -> Vec<&'a Value> {
    events.iter().filter(|event| event["type"] == kind).collect()
}

/// Everything that is made up anew for each answer, taken out.
fn plain(mut response: Value) -> Value {
    for name in ["id", "created_at", "completed_at"] {
        response[name].take();
    }
    for item in response["output"].as_array_mut().unwrap() {
        item["id"].take();
        if item["type"] == "function_call" {
            item["call_id"].take();
        }
    }
    response
}

const TEXT: [&str; 4] = ["output_item.added", "content_part.added", "output_text.delta", "output_text.done"];
const TEXT_DONE: [&str; 2] = ["content_part.done", "output_item.done"];
const CALLED: [&str; 4] =
    ["output_item.added", "function_call_arguments.delta", "function_call_arguments.done", "output_item.done"];

#[tokio::test]
async fn text_comes_in_named_events() {
    let events = events(Script::ended("hi there"), json!({})).await;
    let expected = [&["created", "in_progress"][..], &TEXT, &TEXT_DONE, &["completed"]].concat();
    assert_eq!(kinds(&events), expected);
    let item = &events[2]["item"];
    assert_eq!((&item["status"], &item["content"]), (&json!("in_progress"), &json!([])));
    let deltas = of_kind(&events, "response.output_text.delta");
    assert_eq!(deltas.iter().map(|event| event["delta"].as_str().unwrap()).collect::<String>(), "hi there");
    for delta in &deltas {
        let place = (&delta["item_id"], &delta["output_index"], &delta["content_index"], &delta["logprobs"]);
        assert_eq!(place, (&item["id"], &json!(0), &json!(0), &json!([])));
    }
    assert_eq!(of_kind(&events, "response.output_text.done")[0]["text"], "hi there");
    assert_eq!(of_kind(&events, "response.content_part.done")[0]["part"]["text"], "hi there");
    let (first, last) = (&events[0]["response"], &events.last().unwrap()["response"]);
    assert_eq!(
        (&first["status"], &first["usage"], &first["output"]),
        (&json!("in_progress"), &Value::Null, &json!([]))
    );
    assert_eq!((&last["id"], &last["status"]), (&first["id"], &json!("completed")));
    assert_eq!(last["output"][0], of_kind(&events, "response.output_item.done")[0]["item"]);
    assert_eq!(last["usage"]["output_tokens"], 9);
}

#[tokio::test]
async fn a_stream_ends_with_the_whole_answer() {
    let rows = [
        (Script::ended("hi"), json!({})),
        (Script::cut("hi"), json!({"max_output_tokens": 2})),
        (Script::ended("ab"), json!({"top_logprobs": 1})),
        (Script::ended(&format!("See.\n{CALL}\nand {CALL}")), json!({"tools": [tool()]})),
        (Script::ended(&format!("{CALL} so")), json!({"tools": [tool()], "top_logprobs": 1})),
        (Script::cut(&CALL[..60]), json!({"tools": [tool()]})),
        (Script::text("hello STOP more"), json!({"stop": "STOP"})),
    ];
    for (script, fields) in rows {
        let (_, whole) = Setup::playing([script.clone()]).post(PATH, ask(fields.clone())).await;
        let mut events = events(script, fields).await;
        let last = events.pop().unwrap()["response"].take();
        assert_eq!(plain(last.clone()), plain(whole));
        let done = of_kind(&events, "response.output_item.done");
        assert_eq!(json!(done.iter().map(|event| &event["item"]).collect::<Vec<_>>()), last["output"]);
    }
}

#[tokio::test]
async fn logprobs_come_with_their_text() {
    let script = Script::ended("ab").with_top(&[(97, -0.5)]);
    let events = events(script, json!({"include": ["message.output_text.logprobs"], "top_logprobs": 1})).await;
    let pieces: Vec<Value> = of_kind(&events, "response.output_text.delta")
        .iter()
        .flat_map(|event| event["logprobs"].as_array().unwrap().clone())
        .collect();
    assert_eq!(pieces[0]["token"], "a");
    assert_eq!(json!(pieces), of_kind(&events, "response.output_text.done")[0]["logprobs"]);
    assert_eq!(json!(pieces), events.last().unwrap()["response"]["output"][0]["content"][0]["logprobs"]);
}

#[tokio::test]
async fn calls_come_in_pieces() {
    let events = events(Script::ended(&format!("See.\n{CALL}\n{CALL}")), json!({"tools": [tool()]})).await;
    let expected = [&["created", "in_progress"][..], &TEXT, &TEXT_DONE, &CALLED, &CALLED, &["completed"]].concat();
    assert_eq!(kinds(&events), expected);
    for index in 1..3 {
        let own: Vec<Value> = events.iter().filter(|event| event["output_index"] == index).cloned().collect();
        let item = &own[0]["item"];
        assert_eq!((&item["name"], &item["arguments"]), (&json!("get_weather"), &json!("")));
        let deltas = of_kind(&own, "response.function_call_arguments.delta");
        assert!(deltas.len() > 5, "they are not held back");
        assert!(deltas.iter().all(|delta| delta["item_id"] == item["id"]));
        let arguments: String = deltas.iter().map(|delta| delta["delta"].as_str().unwrap()).collect();
        let done = of_kind(&own, "response.function_call_arguments.done")[0];
        assert_eq!((&done["arguments"], &done["name"]), (&json!(arguments), &json!("get_weather")));
        assert_eq!(own.last().unwrap()["item"]["arguments"], "{\"city\": \"Bern\"}");
    }
}

#[tokio::test]
async fn a_cut_stream_is_incomplete() {
    let events = events(Script::cut("hal"), json!({})).await;
    let last = events.last().unwrap();
    assert_eq!((&last["type"], &last["response"]["status"]), (&json!("response.incomplete"), &json!("incomplete")));
    assert_eq!(of_kind(&events, "response.output_item.done")[0]["item"]["status"], "incomplete");
}

#[tokio::test]
async fn a_failure_in_the_middle_is_an_event() {
    let script = Script::text("ha").then_fails(GenerationError::OutOfMemory);
    let events = events(script, json!({})).await;
    let last = events.last().unwrap();
    assert_eq!((&last["type"], &last["response"]["status"]), (&json!("response.failed"), &json!("failed")));
    assert_eq!(last["response"]["error"]["code"], "server_error");
    assert!(last["response"]["error"]["message"].as_str().unwrap().starts_with("Request failed during generation"));
    assert_eq!(last["response"]["output"][0]["content"][0]["text"], "ha");
    assert_eq!(last["response"]["output"][0]["status"], "incomplete");
}

#[tokio::test]
async fn what_fails_before_the_first_token_is_a_status() {
    let setup = Setup::playing([Script::text("").then_fails(GenerationError::OutOfMemory)]);
    let (status, _) = setup.post(PATH, ask(json!({"stream": true}))).await;
    assert_eq!(status, 500);
    let (status, _) = setup.post(PATH, ask(json!({"stream": true, "background": true}))).await;
    assert_eq!(status, 422);
}

#[tokio::test]
async fn a_client_that_leaves_cancels_its_sequence() {
    let setup = Setup::playing([Script::text("ha").then_hangs()]);
    let response = setup.send(post(PATH, &ask(json!({"stream": true})))).await;
    assert_eq!(setup.fake.live(), 1);
    drop(response);
    assert_eq!(setup.fake.live(), 0);
}
