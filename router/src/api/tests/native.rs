//! TGI's routes, complete answers.

use serde_json::{Value, json};

use super::fake::Script;
use super::fixture::{IMAGE, Setup, picture, post, text};
use crate::sampling::{LogprobSource, PenaltyScope};

#[tokio::test]
async fn a_plain_answer_is_one_object() {
    let setup = Setup::playing([Script::ended("a photo")]);
    let (status, body) = setup.post("/generate", json!({"inputs": "what"})).await;
    assert_eq!(status, 200);
    assert_eq!(body, json!({"generated_text": "a photo"}));
    assert_eq!(setup.fake.live(), 0);
}

#[tokio::test]
async fn the_root_answers_with_a_list() {
    for path in ["/", "/v1"] {
        let setup = Setup::playing([Script::ended("yes")]);
        let (_, body) = setup.post(path, json!({"inputs": "q", "parameters": {}, "options": {}})).await;
        assert_eq!(body, json!([{"generated_text": "yes"}]));
    }
}

#[tokio::test]
async fn details_have_every_key() {
    let setup = Setup::playing([Script::ended("ok")]);
    let (_, body) = setup.post("/generate", json!({"inputs": "q", "parameters": {"details": true}})).await;
    let token =
        |id: u32, text: &str, special: bool| json!({"id": id, "text": text, "logprob": -0.5, "special": special});
    let details = json!({
        "finish_reason": "eos_token", "generated_tokens": 3, "seed": null, "prefill": [],
        "tokens": [token(111, "o", false), token(107, "k", false), token(256, "</s>", true)],
    });
    assert_eq!(body, json!({"generated_text": "ok", "details": details}));
}

/// With the flag that the list needs.
fn listing(scripts: Vec<Script>) -> Setup {
    let mut setup = Setup::playing(scripts);
    setup.limits.prefill_logprobs = true;
    setup
}

#[tokio::test]
async fn prefill_details_list_the_prompt() {
    let setup = listing(vec![Script::cut("ok").scoring(&[113, 114])]);
    let parameters = json!({"decoder_input_details": true});
    let (_, body) = setup.post("/generate", json!({"inputs": "qr", "parameters": parameters})).await;
    let prefill = json!([{"id": 113, "text": "q", "logprob": null}, {"id": 114, "text": "r", "logprob": -0.25}]);
    assert_eq!(body["details"]["prefill"], prefill);
    assert_eq!(body["details"]["generated_tokens"], 2);
    assert_eq!(setup.fake.request(0).score_prompt, Some(0));
}

#[tokio::test]
async fn every_sequence_lists_the_prompt() {
    let scripts = ["ok", "no"].map(|text| Script::cut(text).scoring(&[113]));
    let parameters = json!({"decoder_input_details": true, "best_of": 2, "do_sample": true});
    let body = json!({"inputs": "q", "parameters": parameters});
    let details = listing(scripts.into()).post("/generate", body).await.1["details"].take();
    assert_eq!(details["prefill"][0]["id"], 113);
    assert_eq!(details["best_of_sequences"][0]["prefill"], details["prefill"]);
}

#[tokio::test]
async fn nobody_else_pays_for_scores() {
    let setup = listing(vec![Script::cut("ok"); 2]);
    setup.post("/generate", json!({"inputs": "q", "parameters": {"details": true}})).await;
    let streamed = json!({"inputs": "q", "parameters": {"decoder_input_details": true}});
    let (status, refused) = setup.post("/generate_stream", streamed).await;
    assert_eq!((status.as_u16(), setup.fake.num_requests()), (422, 1), "{refused}");
    assert_eq!(setup.fake.request(0).score_prompt, None);
}

#[tokio::test]
async fn prefill_details_are_accepted_and_empty() {
    let setup = Setup::playing([Script::cut("ok")]);
    let parameters = json!({"decoder_input_details": true});
    let (_, body) = setup.post("/generate", json!({"inputs": "q", "parameters": parameters})).await;
    assert_eq!(body["details"]["prefill"], json!([]));
    assert_eq!(setup.fake.request(0).score_prompt, None);
    assert_eq!(body["details"]["finish_reason"], "length");
}

#[tokio::test]
async fn top_tokens_come_with_details() {
    let setup = Setup::playing([Script::cut("a").with_top(&[(97, -0.5), (256, -1.5)])]);
    let parameters = json!({"details": true, "top_n_tokens": 2});
    let (_, body) = setup.post("/generate", json!({"inputs": "q", "parameters": parameters})).await;
    let top = json!([[{"id": 97, "text": "a", "logprob": -0.5, "special": false},
                      {"id": 256, "text": "</s>", "logprob": -1.5, "special": true}]]);
    assert_eq!(body["details"]["top_tokens"], top);
    assert_eq!(setup.fake.request(0).sampling.num_top_tokens, 2);
}

#[tokio::test]
async fn stop_strings_stay_and_end_the_sequence() {
    let setup = Setup::playing([Script::text("a photo of").then_hangs()]);
    let parameters = json!({"stop": ["photo"], "details": true});
    let (_, body) = setup.post("/generate", json!({"inputs": "q", "parameters": parameters})).await;
    assert_eq!(body["generated_text"], "a photo");
    assert_eq!(body["details"]["finish_reason"], "stop_sequence");
    assert_eq!(setup.fake.live(), 0);
}

#[tokio::test]
async fn incomplete_characters_wait_for_their_last_byte() {
    let setup = Setup::playing([Script::ended("né")]);
    let (_, body) = setup.post("/generate", json!({"inputs": "q", "parameters": {"details": true}})).await;
    let texts: Vec<_> = body["details"]["tokens"].as_array().unwrap().iter().map(|token| &token["text"]).collect();
    assert_eq!(texts, ["n", "", "é", "</s>"]);
    assert_eq!(body["generated_text"], "né");
}

#[tokio::test]
async fn full_text_puts_the_prompt_in_front() {
    let setup = Setup::playing([Script::ended(" b")]);
    let body = json!({"inputs": "a", "parameters": {"return_full_text": true}});
    assert_eq!(setup.post("/generate", body).await.1["generated_text"], "a b");
}

#[tokio::test]
async fn only_text_models_repeat_the_prompt_on_the_root() {
    for (takes_images, text) in [(true, "b"), (false, "ab")] {
        let setup = Setup { takes_images, ..Setup::playing([Script::ended("b")]) };
        assert_eq!(setup.post("/", json!({"inputs": "a"})).await.1[0]["generated_text"], text);
    }
}

#[tokio::test]
async fn the_best_of_several_has_the_highest_mean() {
    let scripts = [Script::ended("worse").with_logprob(-2.0), Script::ended("best").with_logprob(-0.5)];
    let setup = Setup::playing(scripts);
    let parameters = json!({"best_of": 2, "do_sample": true, "details": true});
    let (_, body) = setup.post("/generate", json!({"inputs": "q", "parameters": parameters})).await;
    assert_eq!(body["generated_text"], "best");
    let others = body["details"]["best_of_sequences"].as_array().unwrap();
    assert_eq!(others.len(), 1);
    assert_eq!(others[0]["generated_text"], "worse");
    let keys: Vec<_> = others[0].as_object().unwrap().keys().cloned().collect();
    assert_eq!(keys, ["generated_text", "finish_reason", "generated_tokens", "seed", "prefill", "tokens"]);
    assert_ne!(others[0]["seed"], body["details"]["seed"]);
}

/// Whether the sampler draws, and the seed the answer names.
async fn drawn(body: Value) -> (bool, Value) {
    let setup = Setup::playing([Script::ended("x")]);
    let (status, answer) = setup.post("/generate", body).await;
    assert_eq!(status, 200, "{answer}");
    (!setup.fake.request(0).sampling.greedy, answer["details"]["seed"].clone())
}

#[tokio::test]
async fn sampling_is_on_without_parameters_and_off_with_them() {
    assert!(drawn(json!({"inputs": "q"})).await.0);
    assert!(drawn(json!({"inputs": "q", "parameters": null})).await.0);
    for neutral in
        [json!({}), json!({"temperature": 1.0, "top_k": 0, "top_p": 1.0, "typical_p": 1}), json!({"seed": 1})]
    {
        assert!(!drawn(json!({"inputs": "q", "parameters": neutral})).await.0);
    }
    for drawing in [json!({"do_sample": true}), json!({"temperature": 0.5}), json!({"top_k": 3}), json!({"top_p": 0.9})]
    {
        assert!(drawn(json!({"inputs": "q", "parameters": drawing})).await.0);
    }
}

#[tokio::test]
async fn seeds_are_told_when_tokens_are_drawn() {
    let given = json!({"do_sample": true, "seed": 12, "details": true});
    assert_eq!(drawn(json!({"inputs": "q", "parameters": given})).await.1, 12);
    let (_, invented) = drawn(json!({"inputs": "q", "parameters": {"do_sample": true, "details": true}})).await;
    assert!(invented.as_u64().unwrap() < 1 << 53);
    assert_eq!(drawn(json!({"inputs": "q", "parameters": {"seed": 12, "details": true}})).await.1, Value::Null);
}

#[tokio::test]
async fn null_is_the_same_as_absent() {
    let setup = Setup::playing([Script::ended("x")]);
    let parameters = json!({
        "best_of": null, "temperature": null, "repetition_penalty": null, "frequency_penalty": null, "top_k": null,
        "top_p": null, "typical_p": null, "do_sample": null, "max_new_tokens": null, "return_full_text": null,
        "stop": null, "truncate": null, "watermark": null, "details": null, "decoder_input_details": null,
        "seed": null, "top_n_tokens": null, "grammar": null, "adapter_id": null, "unknown": [1, {"a": 2}],
    });
    let (status, body) = setup.post("/", json!({"inputs": "q", "parameters": parameters, "stream": null})).await;
    assert_eq!((status.as_u16(), body), (200, json!([{"generated_text": "x"}])));
}

#[tokio::test]
async fn parameters_reach_the_sampler_as_tgi_means_them() {
    let setup = Setup::playing([Script::ended("x")]);
    let parameters = json!({
        "temperature": 0.5, "top_k": 7, "top_p": 0.9, "typical_p": 0.8, "repetition_penalty": 1.2,
        "frequency_penalty": -0.1, "max_new_tokens": 33, "seed": 5, "watermark": true,
    });
    setup.post("/generate", json!({"inputs": "q", "parameters": parameters})).await;
    let request = setup.fake.request(0);
    let sampling = request.sampling;
    assert_eq!((sampling.temperature, sampling.top_k, sampling.top_p), (0.5, 7, 0.9));
    assert_eq!((sampling.typical_p, sampling.repetition_penalty, sampling.frequency_penalty), (0.8, 1.2, -0.1));
    assert_eq!((sampling.seed, request.max_new_tokens, sampling.watermark), (5, Some(33), true));
    assert_eq!((sampling.logprobs, sampling.penalty_scope), (LogprobSource::Warped, PenaltyScope::AllRelative));
}

#[tokio::test]
async fn long_wishes_are_cut_to_the_context() {
    let setup = Setup::playing([Script::ended("x"), Script::ended("x")]);
    setup.post("/generate", json!({"inputs": "four", "parameters": {"max_new_tokens": 100_000}})).await;
    setup.post("/generate", json!({"inputs": "four"})).await;
    assert_eq!(setup.fake.request(0).max_new_tokens, Some(2996));
    assert_eq!(setup.fake.request(1).max_new_tokens, None);
}

#[tokio::test]
async fn images_stand_where_the_prompt_shows_them() {
    let setup = Setup::playing([Script::ended("x")]);
    let inputs = format!("a![alt]({})b![]({})", picture(), picture());
    let (status, body) = setup.post("/generate", json!({"inputs": inputs})).await;
    assert_eq!(status, 200, "{body}");
    let prompt = setup.fake.request(0).prompt;
    let expected = [&[97][..], &[IMAGE; 4], &[98], &[IMAGE; 4]].concat();
    assert_eq!(prompt.token_ids, expected);
    assert_eq!(prompt.images.len(), 2);
}

#[tokio::test]
async fn truncate_keeps_the_end() {
    let setup = Setup::playing([Script::ended("x")]);
    setup.post("/generate", json!({"inputs": "abcdef", "parameters": {"truncate": 2}})).await;
    assert_eq!(setup.fake.request(0).prompt.token_ids, [101, 102]);
}

#[tokio::test]
async fn headers_tell_what_it_took() {
    let setup = Setup::playing([Script::ended("ok")]);
    let response = setup.send(post("/generate", &json!({"inputs": "né"}))).await;
    let headers = response.headers().clone();
    let value = |name: &str| headers[name].to_str().unwrap().to_owned();
    assert_eq!(value("x-compute-type"), "gpu+optimized");
    assert_eq!(value("x-compute-characters"), "2");
    assert_eq!((value("x-prompt-tokens"), value("x-generated-tokens")), ("3".to_owned(), "3".to_owned()));
    for name in ["x-compute-time", "x-total-time", "x-validation-time", "x-queue-time", "x-inference-time"] {
        assert!(value(name).parse::<f64>().is_ok(), "{name}");
    }
    assert!(value("server-timing").contains("inference;dur="));
    assert_eq!(value("x-request-id").len(), 32);
    assert!(!text(response).await.is_empty());
}

#[tokio::test]
async fn tokenize_tells_text_from_images() {
    let setup = Setup::playing([]);
    let (_, body) = setup.post("/tokenize", json!({"inputs": format!("ab![]({})", picture())})).await;
    let tokens = body.as_array().unwrap();
    assert_eq!(tokens.len(), 6);
    assert_eq!(tokens[1], json!({"id": 98, "text": "b", "start": 1, "stop": 2, "type": "text"}));
    assert_eq!((&tokens[2]["id"], &tokens[2]["type"]), (&json!(IMAGE), &json!("image")));
    assert_eq!(setup.fake.num_requests(), 0);
}
