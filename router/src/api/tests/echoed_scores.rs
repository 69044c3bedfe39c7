//! `echo` with `logprobs` on `/v1/completions`, as evaluation tools ask for it.

use serde_json::{Value, json};

use super::fake::{END, Script};
use super::fixture::{IMAGE, Setup, picture};

const PATH: &str = "/v1/completions";

async fn logprobs(script: Script, body: Value) -> Value {
    let setup = Setup::playing([script]);
    let (status, mut answer) = setup.post(PATH, body).await;
    assert_eq!(status, 200, "{answer}");
    answer["choices"][0]["logprobs"].take()
}

#[tokio::test]
async fn prompt_and_output_are_listed() {
    let body = json!({"prompt": [97, 98, 99], "echo": true, "logprobs": 1, "max_tokens": 1, "temperature": 0});
    let setup = Setup::playing([Script::cut("d").with_top(&[(100, -0.5)]).scoring(&[97, 98, 99])]);
    let (_, answer) = setup.post(PATH, body).await;
    let expected = json!({
        "tokens": ["a", "b", "c", "d"],
        "token_logprobs": [null, -0.25, -0.5, -0.5],
        "top_logprobs": [null, {"z": -0.125, "b": -0.25}, {"z": -0.125, "c": -0.5}, {"d": -0.5}],
        "text_offset": [0, 1, 2, 3],
    });
    assert_eq!(answer["choices"][0]["logprobs"], expected);
    assert_eq!(answer["choices"][0]["text"], "abcd");
    assert_eq!((setup.fake.request(0).score_prompt, setup.fake.request(0).max_new_tokens), (Some(1), Some(1)));
}

#[tokio::test]
async fn an_end_token_is_one_of_the_output() {
    // Tools drop the last token, whatever it is, because they asked for one.
    let script = Script::ended("").scoring(&[97, 98]);
    let listed = logprobs(script, json!({"prompt": "ab", "echo": true, "logprobs": 1, "max_tokens": 1})).await;
    assert_eq!(listed["tokens"], json!(["a", "b", "</s>"]));
    assert_eq!(listed["text_offset"], json!([0, 1, 2]));
}

#[tokio::test]
async fn nothing_but_the_prompt() {
    let body = json!({"prompt": "ab", "echo": true, "logprobs": 0, "max_tokens": 0});
    let listed = logprobs(Script::cut("x").scoring(&[97, 98]), body).await;
    assert_eq!(listed["tokens"], json!(["a", "b"]));
    assert_eq!(listed["top_logprobs"], json!([null, {"b": -0.25}]));
}

#[tokio::test]
async fn every_prompt_and_every_continuation_is_scored() {
    let scripts = [[97, 98], [97, 98], [99, 100], [99, 100]].map(|prompt| Script::cut("x").scoring(&prompt));
    let setup = Setup::playing(scripts);
    let body = json!({"prompt": [[97, 98], [99, 100]], "n": 2, "echo": true, "logprobs": 0, "max_tokens": 1});
    let (_, answer) = setup.post(PATH, body).await;
    let tokens = answer["choices"].as_array().unwrap().iter().map(|choice| choice["logprobs"]["tokens"].clone());
    let (first, second) = (json!(["a", "b", "x"]), json!(["c", "d", "x"]));
    assert_eq!(tokens.collect::<Vec<_>>(), [first.clone(), first, second.clone(), second]);
}

#[tokio::test]
async fn tokens_are_placed_where_they_were_written() {
    for (body, prompt, offsets) in [
        // A token for the beginning that nobody wrote.
        (json!({"prompt": "ab"}), vec![END, 97, 98], json!([0, 0, 1, 2])),
        // A turn of a chat around it.
        (json!({"prompt": "ab"}), vec![END, 97, 98, END], json!([0, 0, 1, 2, 2])),
        // A prompt whose start was cut off.
        (json!({"prompt": "abcd", "truncate": 2}), vec![99, 100], json!([2, 3, 4])),
    ] {
        let mut body = body;
        body.as_object_mut().unwrap().extend(json!({"echo": true, "logprobs": 0}).as_object().unwrap().clone());
        assert_eq!(logprobs(Script::cut("x").scoring(&prompt), body).await["text_offset"], offsets);
    }
    let prompt = format!("![]({})ab", picture());
    let start = prompt.chars().count() - 2;
    let script = Script::cut("x").scoring(&[IMAGE, IMAGE, IMAGE, IMAGE, 97, 98]);
    let offsets = logprobs(script, json!({"prompt": prompt, "echo": true, "logprobs": 0})).await["text_offset"].take();
    assert_eq!(offsets.as_array().unwrap()[4..], [json!(start), json!(start + 1), json!(start + 2)]);
}

#[tokio::test]
async fn a_stream_brings_the_prompt_first() {
    let body = json!({"prompt": "ab", "echo": true, "logprobs": 0, "stream": true});
    let setup = Setup::playing([Script::cut("xy").scoring(&[97, 98])]);
    let events = setup.events(PATH, body).await;
    let chunk = |index: usize| serde_json::from_str::<Value>(&events[index]).unwrap();
    assert_eq!(chunk(0)["choices"][0]["text"], "abx");
    assert_eq!(chunk(0)["choices"][0]["logprobs"]["tokens"], json!(["a", "b", "x"]));
    assert_eq!(chunk(0)["token"]["text"], "x");
    assert_eq!(chunk(1)["choices"][0]["logprobs"]["tokens"], json!(["y"]));
    assert_eq!(events[2], "[DONE]");
}

#[tokio::test]
async fn the_details_list_the_prompt_too() {
    let mut setup = Setup::playing([Script::cut("x").scoring(&[97, 98])]);
    setup.limits.prefill_logprobs = true;
    let (_, answer) = setup.post(PATH, json!({"prompt": "ab", "decoder_input_details": true, "logprobs": 2})).await;
    let choice = &answer["choices"][0];
    assert_eq!(choice["details"]["prefill"][1], json!({"id": 98, "text": "b", "logprob": -0.25}));
    // Without `echo` the text and its log-probabilities begin behind the prompt.
    assert_eq!((&choice["text"], &choice["logprobs"]["tokens"]), (&json!("x"), &json!(["x"])));
    assert_eq!(setup.fake.request(0).score_prompt, Some(0));
}

#[tokio::test]
async fn what_needs_no_scores_asks_for_none() {
    for body in [
        json!({"prompt": "ab", "echo": true}),
        json!({"prompt": "ab", "logprobs": 1}),
        json!({"prompt": "ab", "decoder_input_details": true}),
    ] {
        let setup = Setup::playing([Script::cut("x")]);
        assert_eq!(setup.post(PATH, body).await.0, 200);
        assert_eq!(setup.fake.request(0).score_prompt, None);
    }
}
