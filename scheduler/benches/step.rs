//! What a step costs with a long queue: `schedule` and `commit` while 1,000 sequences decode and 10,000 wait.
//!
//! One plan is always in flight, as in the server. Prints microseconds; compare numbers of one machine only.

// A benchmark reports by printing, and stops at the first thing that is not as it should be.
#![allow(clippy::print_stdout, clippy::expect_used, clippy::panic)]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use text_generation_scheduler::{
    Config, ImageKey, ImageSpec, NewSequence, Placeholder, Positions, Scheduler, SequenceId, StepPlan, StepResult,
};

const NUM_RUNNING: u32 = 1_000;
const NUM_WAITING: u32 = 10_000;
const PROMPT_TOKENS: u32 = 512;
const NUM_STEPS: usize = 1_000;

fn main() {
    println!("{:44} {:>9} {:>9} {:>9} {:>9}", "microseconds a step", "median", "minimum", "mean", "99 %");
    report("decode 1,000; none waiting", &mut decoding(0, false));
    report("decode 1,000; 10,000 waiting for a row", &mut decoding(NUM_WAITING, false));
    report("decode 1,000; 10,000 waiting for blocks", &mut waiting_for_blocks());
    report("decode 1,000; 10,000 waiting for pixels", &mut decoding(NUM_WAITING, true));
    report("decode 1,000 with three position axes", &mut with_axes());
}

fn report(name: &str, scheduler: &mut Scheduler) {
    let mut in_flight = scheduler.schedule().expect("a plan");
    let mut micros: Vec<f64> = (0..NUM_STEPS).map(|_| step(scheduler, &mut in_flight)).collect();
    micros.sort_by(f64::total_cmp);
    let percentile = |part: usize| micros[micros.len() * part / 100];
    let mean = micros.iter().sum::<f64>() / micros.len() as f64;
    println!("{name:44} {:>9.1} {:>9.1} {mean:>9.1} {:>9.1}", percentile(50), micros[0], percentile(99));
}

/// Plans the next step while one is in flight, then commits that one. Making the shard's answer is not timed.
fn step(scheduler: &mut Scheduler, in_flight: &mut StepPlan) -> f64 {
    let result = answer(in_flight);
    let begin = Instant::now();
    let next = scheduler.schedule().expect("a plan");
    let events = black_box(scheduler.commit(&result));
    let micros = begin.elapsed().as_secs_f64() * 1e6;
    assert_eq!((next.rows.len(), events.len()), (NUM_RUNNING as usize, NUM_RUNNING as usize));
    *in_flight = next;
    micros
}

fn answer(plan: &StepPlan) -> StepResult {
    let sampled = plan.rows.iter().filter(|row| row.sample).map(|row| (row.sequence, 7)).collect();
    StepResult { step: plan.step, sampled, failures: Vec::new() }
}

fn config() -> Config {
    Config {
        block_size: 16,
        num_blocks: 200_000,
        max_step_tokens: 8_192,
        max_step_image_tokens: 2_048,
        max_rows: NUM_RUNNING,
        max_sequence_tokens: 32_768,
        embedding_cache_tokens: 65_536,
        max_pending_upload_tokens: 16_384,
        world_size: 1,
        prefix_caching: true,
    }
}

fn sequence(number: u32) -> NewSequence {
    NewSequence {
        id: SequenceId(u64::from(number)),
        // Of all lengths, so that in every step as many blocks are filled as in any other.
        prompt: (0..PROMPT_TOKENS - number % 16).map(|token| token ^ number).collect(),
        placeholders: Vec::new(),
        images: Vec::new(),
        positions: Positions::Sequential,
        both_ways: Vec::new(),
        max_new_tokens: 8_192,
        end_tokens: Arc::new([2]),
        score_prompt: false,
        cache_salt: 0,
    }
}

fn with_image(number: u32) -> NewSequence {
    let mut key = [0; 32];
    key[..4].copy_from_slice(&number.to_le_bytes());
    let image = ImageKey(key);
    let placeholders = vec![Placeholder { offset: 16, length: 256, image, image_offset: 0 }];
    NewSequence { placeholders, images: vec![ImageSpec { key: image, num_tokens: 256 }], ..sequence(number) }
}

/// All of the first 1,000 decode; behind them others wait.
fn decoding(num_waiting: u32, pixels: bool) -> Scheduler {
    let mut scheduler = started(Config { max_rows: NUM_RUNNING, ..config() }, sequence);
    for number in NUM_RUNNING..NUM_RUNNING + num_waiting {
        scheduler.add(if pixels { with_image(number) } else { sequence(number) }).expect("it fits");
    }
    scheduler
}

/// There are rows for more, but no blocks: each step looks at as many as it may, in vain.
fn waiting_for_blocks() -> Scheduler {
    let num_blocks = NUM_RUNNING * (PROMPT_TOKENS + 2 * NUM_STEPS as u32).div_ceil(16);
    let all_tokens = 16 * num_blocks;
    let config = Config { max_rows: 4_096, num_blocks, max_sequence_tokens: all_tokens, ..config() };
    let mut scheduler = started(config, sequence);
    for number in NUM_RUNNING..NUM_RUNNING + NUM_WAITING {
        // Those that are looked at would need all blocks.
        let num_tokens = if number < NUM_RUNNING + 8 { all_tokens - 8_192 } else { PROMPT_TOKENS };
        let prompt = (0..num_tokens).map(|token| token ^ number).collect();
        scheduler.add(NewSequence { prompt, ..sequence(number) }).expect("it fits");
    }
    scheduler
}

fn with_axes() -> Scheduler {
    started(config(), |number| {
        let new = sequence(number);
        let axes = vec![(0..new.prompt.len() as i32).collect(); 3];
        NewSequence { positions: Positions::Explicit { axes, next: PROMPT_TOKENS as i32 }, ..new }
    })
}

/// 1,000 sequences past their prompts, nothing in flight.
fn started(config: Config, make: impl Fn(u32) -> NewSequence) -> Scheduler {
    let mut scheduler = Scheduler::new(config).expect("the configuration is valid");
    for number in 0..NUM_RUNNING {
        scheduler.add(make(number)).expect("it fits");
    }
    while let Some(plan) = scheduler.schedule() {
        let all_decode = plan.rows.len() == NUM_RUNNING as usize && plan.rows.iter().all(|row| row.num_tokens == 1);
        scheduler.commit(&answer(&plan));
        if all_decode {
            return scheduler;
        }
    }
    panic!("the sequences ended before all decoded");
}
