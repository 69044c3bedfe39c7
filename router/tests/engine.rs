//! The engine against a shard over a real socket: admission, streams, aborts, failures, loss and return.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

mod support;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use support::{Script, ScriptedShard};
use tempfile::TempDir;
use text_generation_router::engine::{
    self, AdmissionError, Arrival, Engine, EngineConfig, GenerateRequest, GenerationError, RestartRequest, Sampling,
    StreamEvent, TokenStream,
};
use text_generation_router::families::{AskProcessor, ImageLayout, ImageRejected, ImageSize, Piece};
use text_generation_router::images::{ImageTimings, LoadedImage, RgbView};
use text_generation_router::prompt::Prompt;
use text_generation_router::shard::ShardProcessor;
use text_generation_router::timeline::Timeline;
use text_generation_scheduler::{FinishReason, ImageKey, Placeholder, Positions};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

const SOON: Duration = Duration::from_secs(5);
/// The end token of the scripted model: `100 + 40`, so a sequence of 40 tokens ends with it.
const END: u32 = 140;

struct Setup {
    engine: Engine,
    shard: Option<ScriptedShard>,
    restarts: mpsc::Receiver<RestartRequest>,
    socket: PathBuf,
    _folder: TempDir,
}

async fn setup(script: Script, change: impl FnOnce(&mut EngineConfig)) -> Setup {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("shard");
    let shard = ScriptedShard::start(&socket, script);
    let mut config = EngineConfig {
        shards: vec![format!("unix:{}", socket.display())],
        load_timeout: SOON,
        step_timeout: Duration::from_secs(30),
        max_concurrent_requests: 4,
        max_input_tokens: None,
        max_total_tokens: Some(128),
        max_step_tokens: 16,
        max_kv_tokens: None,
        max_rows: 8,
        max_step_image_tokens: 16,
        embedding_cache_tokens: 64,
        block_size: None,
        prefix_caching: true,
        end_tokens: vec![END],
        largest_image: None,
        timeline: Timeline::default(),
    };
    change(&mut config);
    let (sender, restarts) = mpsc::channel(1);
    let (engine, ..) = engine::start(config, sender).await.unwrap();
    Setup { engine, shard: Some(shard), restarts, socket, _folder: folder }
}

fn request(prompt: Vec<u32>, max_new_tokens: u32) -> GenerateRequest {
    let prompt = Prompt { token_ids: prompt, positions: Positions::Sequential, ..Prompt::default() };
    let sampling = Sampling::default();
    GenerateRequest {
        prompt,
        sampling,
        max_new_tokens: Some(max_new_tokens),
        ignore_eos: false,
        grammar: None,
        score_prompt: None,
        arrival: Arrival::now(),
    }
}

fn submit(engine: &Engine, prompt: Vec<u32>, max_new_tokens: u32) -> TokenStream {
    engine.submit(engine.admit().unwrap(), request(prompt, max_new_tokens)).unwrap()
}

/// The ids of a stream and what ended it.
async fn collect(stream: &mut TokenStream) -> (Vec<u32>, Result<FinishReason, GenerationError>) {
    let mut ids = Vec::new();
    loop {
        match timeout(SOON, stream.next()).await.unwrap().expect("a stream ends with a finish or a failure") {
            StreamEvent::Token(token) => {
                ids.push(token.id);
                if let Some(finish) = token.finish {
                    assert_eq!(stream.next().await, None);
                    return (ids, Ok(finish));
                }
            }
            StreamEvent::Failed(error) => return (ids, Err(error)),
            StreamEvent::Prompt(tokens) => assert_eq!(tokens, [], "nobody asked for scores"),
        }
    }
}

async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + SOON;
    while !condition() {
        assert!(Instant::now() < deadline, "{what} did not happen");
        sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn tokens_come_in_order_and_length_ends_them() {
    let setup = setup(Script::default(), |_| {}).await;
    let mut stream = submit(&setup.engine, vec![1, 2, 3], 5);
    assert_eq!(stream.prompt_tokens(), 3);
    assert_eq!(collect(&mut stream).await, (vec![103, 104, 105, 106, 107], Ok(FinishReason::Length)));
}

#[tokio::test]
async fn an_end_token_is_the_last_token() {
    let setup = setup(Script::default(), |_| {}).await;
    let mut stream = submit(&setup.engine, vec![7; 38], 50);
    assert_eq!(collect(&mut stream).await, (vec![138, 139, END], Ok(FinishReason::EndOfSequence)));
}

#[tokio::test]
async fn a_long_prompt_is_computed_in_chunks() {
    let setup = setup(Script::default(), |_| {}).await;
    let mut stream = submit(&setup.engine, (0..50).collect(), 2);
    assert_eq!(collect(&mut stream).await.0, vec![150, 151]);
    let seen = setup.shard.as_ref().unwrap().seen.lock().unwrap().clone();
    assert!(seen.steps >= 5, "50 tokens at 16 a step: {} steps", seen.steps);
}

#[tokio::test]
async fn permits_are_counted_and_come_back() {
    let setup = setup(Script::default(), |config| config.max_concurrent_requests = 1).await;
    let stream = submit(&setup.engine, vec![1], 100);
    assert_eq!(setup.engine.admit().unwrap_err(), AdmissionError::Overloaded);
    drop(stream);
    assert!(setup.engine.admit().is_ok());
}

#[tokio::test]
async fn dropping_a_stream_frees_its_sequence() {
    let setup = setup(Script { step: Duration::from_millis(20), ..Script::default() }, |_| {}).await;
    let mut stream = submit(&setup.engine, vec![1], 100);
    stream.next().await.unwrap();
    drop(stream);
    let seen = &setup.shard.as_ref().unwrap().seen;
    // What is finished is told with the next plan, so somebody else has to come along.
    let mut other = submit(&setup.engine, vec![1, 2], 4);
    collect(&mut other).await.1.unwrap();
    until("forgetting the first sequence", || seen.lock().unwrap().forgotten.contains(&1)).await;
    until("an empty engine", || setup.engine.stats().scheduler.running == 0).await;
}

#[tokio::test]
async fn lengths_are_checked_before_anything_runs() {
    let setup = setup(Script::default(), |config| config.max_input_tokens = Some(20)).await;
    let refusal = |prompt: usize, new: u32| {
        let permit = setup.engine.admit().unwrap();
        setup.engine.submit(permit, request(vec![1; prompt], new)).err()
    };
    assert_eq!(refusal(0, 1), Some(AdmissionError::EmptyPrompt));
    assert_eq!(refusal(21, 1), Some(AdmissionError::PromptTooLong { prompt: 21, limit: 20 }));
    let total = AdmissionError::TotalTooLong { prompt: 20, max_new_tokens: 109, limit: 128 };
    assert_eq!(refusal(20, 109), Some(total));
    assert_eq!(refusal(20, 108), None);
}

#[tokio::test]
async fn a_failing_sequence_fails_alone() {
    let setup = setup(Script { poison: Some(666), ..Script::default() }, |_| {}).await;
    let mut healthy = submit(&setup.engine, vec![1, 2], 20);
    let mut poisoned = submit(&setup.engine, vec![666], 20);
    let (ids, end) = collect(&mut poisoned).await;
    assert_eq!((ids, end), (vec![], Err(GenerationError::Failed("poisoned".into()))));
    assert_eq!(collect(&mut healthy).await.0.len(), 20);
}

#[tokio::test]
async fn a_killed_shard_fails_what_ran_and_serves_again_when_it_is_back() {
    let mut setup = setup(Script { step: Duration::from_millis(20), ..Script::default() }, |_| {}).await;
    let mut running = submit(&setup.engine, vec![1], 100);
    running.next().await.unwrap();
    setup.shard = None;
    assert_eq!(collect(&mut running).await.1, Err(GenerationError::ShardLost));
    until("bad health", || !setup.engine.health().is_healthy()).await;
    // A request that comes meanwhile waits; one whose client leaves does not keep its permit.
    drop(submit(&setup.engine, vec![5], 3));
    let mut waiting = submit(&setup.engine, vec![1, 2], 2);
    setup.shard = Some(ScriptedShard::start(&setup.socket, Script::default()));
    assert_eq!(collect(&mut waiting).await.0, vec![102, 103]);
    assert!(setup.engine.health().is_healthy());
    assert_eq!(setup.engine.stats().shard_restarts, 1);
}

#[tokio::test]
async fn a_hung_shard_is_reported_and_its_sequences_fail() {
    let script = Script { hang: true, ..Script::default() };
    let mut setup = setup(script, |config| config.step_timeout = Duration::from_millis(200)).await;
    let mut stream = submit(&setup.engine, vec![1], 3);
    assert_eq!(collect(&mut stream).await.1, Err(GenerationError::ShardLost));
    assert_eq!(timeout(SOON, setup.restarts.recv()).await.unwrap(), Some(RestartRequest::Hung));
}

#[tokio::test]
async fn a_shard_without_a_sign_of_life_is_reported_though_nothing_runs() {
    let script = Script { ill: true, ..Script::default() };
    let mut setup = setup(script, |config| config.step_timeout = Duration::from_millis(200)).await;
    assert_eq!(timeout(SOON, setup.restarts.recv()).await.unwrap(), Some(RestartRequest::Hung));
}

#[tokio::test]
async fn stopping_ends_every_stream_with_a_reason() {
    let setup = setup(Script { step: Duration::from_millis(20), ..Script::default() }, |_| {}).await;
    let mut stream = submit(&setup.engine, vec![1], 100);
    stream.next().await.unwrap();
    setup.engine.stop();
    assert_eq!(collect(&mut stream).await.1, Err(GenerationError::ShuttingDown));
    assert_eq!(setup.engine.admit().unwrap_err(), AdmissionError::Draining);
}

#[tokio::test]
async fn a_request_after_the_end_of_the_loop_does_not_wait_for_ever() {
    let setup = setup(Script::default(), |_| {}).await;
    let permit = setup.engine.admit().unwrap();
    setup.engine.stop();
    until("the end of the loop", || !setup.engine.health().is_healthy()).await;
    let mut stream = setup.engine.submit(permit, request(vec![1], 3)).unwrap();
    assert_eq!(timeout(SOON, stream.next()).await.unwrap(), None);
}

/// A prompt of one text token, `image` as four tokens, one more text token.
fn picture_request(image: u8) -> GenerateRequest {
    let key = ImageKey([image; 32]);
    let size = ImageSize::new(2, 2);
    let loaded = LoadedImage {
        key,
        size,
        layout: Arc::new(ImageLayout { views: Vec::new(), pieces: vec![Piece::Tokens(4)] }),
        views: Arc::new(vec![RgbView { size, pixels: Bytes::from(vec![image; 12]) }]),
        timings: ImageTimings::default(),
        ready: Instant::now().into_std(),
        from_cache: false,
    };
    let placeholders = vec![Placeholder { offset: 1, length: 4, image: key, image_offset: 0 }];
    let token_ids = vec![u32::from(image), 9, 9, 9, 9, 1];
    let prompt = Prompt { token_ids, placeholders, images: vec![loaded], ..Prompt::default() };
    GenerateRequest { prompt, ..request(vec![1], 3) }
}

#[tokio::test]
async fn an_image_seen_before_is_neither_sent_nor_encoded_again() {
    let setup = setup(Script::default(), |_| {}).await;
    for _ in 0..3 {
        let mut stream = setup.engine.submit(setup.engine.admit().unwrap(), picture_request(7)).unwrap();
        assert_eq!(stream.image_tokens(), 4);
        assert_eq!(collect(&mut stream).await.0, vec![106, 107, 108]);
    }
    let seen = setup.shard.as_ref().unwrap().seen.lock().unwrap().clone();
    assert_eq!((seen.images.len(), seen.encoded.len()), (1, 1));
}

#[tokio::test]
async fn ranges_that_attend_both_ways_reach_the_shard() {
    let setup = setup(Script::default(), |_| {}).await;
    let of = |both_ways| GenerateRequest {
        prompt: Prompt { token_ids: (1..31).collect(), both_ways, ..Prompt::default() },
        ..request(vec![1], 1)
    };
    let permit = || setup.engine.admit().unwrap();
    let mut stream = setup.engine.submit(permit(), of(vec![1..3, 10..26])).unwrap();
    assert_eq!(collect(&mut stream).await.0, vec![130]);
    assert_eq!(setup.shard.as_ref().unwrap().seen.lock().unwrap().both_ways, [(0, 1, 2), (0, 0, 16)]);
    let refused = setup.engine.submit(permit(), of(vec![1..3, 10..27])).unwrap_err();
    assert_eq!(refused.to_string(), "17 tokens that attend to each other do not fit into a step of 16 tokens");
}

#[tokio::test]
async fn pictures_that_push_each_other_out_of_the_cache_are_all_served() {
    let script = Script { step: Duration::from_micros(200), ..Script::default() };
    let setup = setup(script, |config| {
        config.max_concurrent_requests = 64;
        config.embedding_cache_tokens = 4;
        config.max_step_image_tokens = 4;
        config.max_rows = 2;
        config.prefix_caching = false;
    })
    .await;
    let streams = (0..60).map(|number| {
        let permit = setup.engine.admit().unwrap();
        setup.engine.submit(permit, picture_request(number % 3)).unwrap()
    });
    for mut stream in streams.collect::<Vec<_>>() {
        assert_eq!(collect(&mut stream).await.0, vec![106, 107, 108]);
    }
    until("an empty engine", || setup.engine.num_requests() == 0).await;
}

#[tokio::test]
async fn a_shard_says_what_stands_for_an_image() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("shard");
    let processor = ShardProcessor::new(&format!("unix:{}", socket.display())).unwrap();
    let ask = |width, height| {
        let processor = processor.clone();
        tokio::task::spawn_blocking(move || processor.pieces(ImageSize::new(width, height)))
    };
    assert_eq!(ask(5, 4).await.unwrap(), Err(ImageRejected::Unanswered));
    let shard = ScriptedShard::start(&socket, Script::default());
    let pieces = vec![Piece::Text("[".into()), Piece::Tokens(5), Piece::Text("]".into())];
    assert_eq!(ask(5, 4).await.unwrap(), Ok(pieces.clone()));
    assert_eq!(ask(4, 5).await.unwrap(), Err(ImageRejected::Size { width: 4, height: 5 }));
    assert_eq!(shard.seen.lock().unwrap().layouts, [(5, 4), (4, 5)]);
    drop(shard);
    assert_eq!(ask(5, 4).await.unwrap(), Err(ImageRejected::Unanswered));
    let _shard = ScriptedShard::start(&socket, Script::default());
    assert_eq!(ask(5, 4).await.unwrap(), Ok(pieces));
}

fn submit_scored(engine: &Engine, prompt: Vec<u32>) -> TokenStream {
    engine.submit(engine.admit().unwrap(), GenerateRequest { score_prompt: Some(1), ..request(prompt, 2) }).unwrap()
}

#[tokio::test]
async fn a_prompt_is_scored_before_its_first_token() {
    let setup = setup(Script::default(), |config| config.max_step_tokens = 4).await;
    // The second finds nothing of the first in the prefix cache: every token has to be computed.
    for _ in 0..2 {
        let mut stream = submit_scored(&setup.engine, (1..=10).collect());
        let Some(StreamEvent::Prompt(tokens)) = stream.next().await else { panic!("the prompt comes first") };
        let logprobs: Vec<f32> = tokens.iter().filter_map(|token| token.logprob).collect();
        assert_eq!(logprobs, (1..10).map(|token| -(token as f32)).collect::<Vec<_>>());
        assert_eq!((tokens[0].id, tokens[0].logprob, tokens[0].top.len()), (1, None, 0));
        assert_eq!((tokens[9].id, &tokens[9].top), (10, &vec![(9, -0.5)]));
        assert_eq!(collect(&mut stream).await, (vec![110, 111], Ok(FinishReason::Length)));
        assert_eq!(stream.cached_tokens(), 0);
    }
}

#[tokio::test]
async fn a_prompt_without_its_scores_fails_alone() {
    let setup = setup(Script { unscored: true, ..Script::default() }, |_| {}).await;
    let mut stream = submit_scored(&setup.engine, vec![1, 2, 3]);
    assert!(matches!(collect(&mut stream).await, (ids, Err(GenerationError::Failed(_))) if ids.is_empty()));
    assert_eq!(collect(&mut submit(&setup.engine, vec![1, 2, 3], 1)).await.1, Ok(FinishReason::Length));
}
