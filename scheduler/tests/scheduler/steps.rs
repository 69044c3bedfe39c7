//! What a step holds: order, budgets, one step ahead, endings, preemption.

use crate::support::requests::{END, answer, roomy, rows, text, with_image};
use text_generation_scheduler::{
    AddError, Config, ConfigError, Event, FinishReason, NewSequence, Positions, RowPositions, RowTokens, Scheduler,
    SequenceId, StepPlan, StepResult,
};

fn with(config: Config, requests: impl IntoIterator<Item = NewSequence>) -> Scheduler {
    let mut scheduler = Scheduler::new(config).unwrap();
    for request in requests {
        scheduler.add(request).unwrap();
    }
    scheduler
}

/// Plans and commits one step.
fn step(scheduler: &mut Scheduler) -> (StepPlan, Vec<Event>) {
    let plan = scheduler.schedule().unwrap();
    let events = scheduler.commit(&answer(&plan, 5));
    (plan, events)
}

#[track_caller]
fn check_rows(scheduler: &mut Scheduler, expected: &[&[(u64, u32, u32)]]) {
    for expected in expected {
        assert_eq!(rows(&step(scheduler).0), *expected);
    }
}

fn token(id: u64, finish: Option<FinishReason>) -> Event {
    Event::Token { sequence: SequenceId(id), sampled_index: 0, finish }
}

#[test]
fn a_prompt_is_cut_into_chunks() {
    let mut scheduler = with(Config { max_step_tokens: 4, ..roomy() }, [text(1, 9, 2)]);
    check_rows(&mut scheduler, &[&[(1, 0, 4)], &[(1, 4, 4)], &[(1, 8, 1)], &[(1, 9, 1)]]);
}

#[test]
fn decode_rows_come_first_then_started_prompts_then_others() {
    let mut scheduler = with(Config { max_step_tokens: 8, ..roomy() }, [text(1, 4, 9), text(2, 9, 9), text(3, 2, 9)]);
    check_rows(&mut scheduler, &[&[(1, 0, 4), (2, 0, 4)], &[(1, 4, 1), (2, 4, 5), (3, 0, 2)]]);
}

#[test]
fn rows_are_limited() {
    let mut scheduler = with(Config { max_rows: 2, ..roomy() }, (1..4).map(|id| text(id, 2, 2)));
    check_rows(&mut scheduler, &[&[(1, 0, 2), (2, 0, 2)], &[(1, 2, 1), (2, 2, 1)], &[(3, 0, 2)]]);
}

#[test]
fn the_first_row_says_so() {
    let mut scheduler = with(roomy(), [text(1, 5, 3)]);
    let (plan, _) = step(&mut scheduler);
    assert_eq!(plan.new_sequences, [SequenceId(1)]);
    let row = &plan.rows[0];
    assert!(row.reset_blocks && row.sample && row.new_blocks.len() == 2);
    assert_eq!(row.token_ids, RowTokens::Ids(text(1, 5, 3).prompt));
    let (plan, _) = step(&mut scheduler);
    assert!(plan.new_sequences.is_empty() && !plan.rows[0].reset_blocks && plan.rows[0].new_blocks.is_empty());
}

#[test]
fn two_plans_are_in_flight_at_most() {
    let mut scheduler = with(roomy(), [text(1, 3, 9)]);
    let first = scheduler.schedule().unwrap();
    let second = scheduler.schedule().unwrap();
    assert_eq!(second.rows[0].token_ids, RowTokens::Sampled);
    assert_eq!(scheduler.schedule(), None);
    assert!(scheduler.commit(&answer(&second, 5)).is_empty(), "results come in order");
    assert_eq!(scheduler.commit(&answer(&first, 5)), [token(1, None)]);
    assert_eq!(rows(&scheduler.schedule().unwrap()), [(1, 4, 1)]);
}

/// The answer to a plan of one row, with tokens behind its sample that can only follow.
fn forcing(plan: &StepPlan, tokens: &[u32]) -> StepResult {
    let sampled = tokens.iter().map(|token| (plan.rows[0].sequence, *token)).collect();
    StepResult { step: plan.step, sampled, failures: Vec::new() }
}

#[test]
fn forced_tokens_are_computed_in_one_row() {
    let mut scheduler = with(roomy(), [text(1, 3, 9)]);
    let plan = scheduler.schedule().unwrap();
    let events = scheduler.commit(&forcing(&plan, &[5, 6, 7]));
    let expected = (0..3).map(|index| Event::Token { sequence: SequenceId(1), sampled_index: index, finish: None });
    assert!(events.into_iter().eq(expected));
    let (plan, _) = step(&mut scheduler);
    assert_eq!(rows(&plan), [(1, 3, 3)]);
    assert!(plan.rows[0].sample && plan.rows[0].token_ids == RowTokens::Ids(vec![5, 6, 7]));
    assert_eq!(rows(&step(&mut scheduler).0), [(1, 6, 1)]);
}

#[test]
fn a_sample_in_flight_of_a_forced_token_is_surplus() {
    let mut scheduler = with(roomy(), [text(1, 3, 9)]);
    let (first, second) = (scheduler.schedule().unwrap(), scheduler.schedule().unwrap());
    assert_eq!(scheduler.commit(&forcing(&first, &[5, 6, 7])).len(), 3);
    let third = scheduler.schedule().unwrap();
    assert_eq!(rows(&third), [(1, 4, 2)]);
    assert_eq!(third.rows[0].token_ids, RowTokens::Ids(vec![6, 7]));
    assert_eq!(scheduler.commit(&forcing(&second, &[6])), []);
    assert_eq!(scheduler.commit(&forcing(&third, &[8])).len(), 1);
}

#[test]
fn forced_tokens_end_a_sequence_like_others() {
    for (most, finish, delivered) in [(9, FinishReason::EndOfSequence, 3), (2, FinishReason::Length, 2)] {
        let mut scheduler = with(roomy(), [text(1, 3, most)]);
        let plan = scheduler.schedule().unwrap();
        let events = scheduler.commit(&forcing(&plan, &[5, 6, END, 7]));
        assert_eq!(events.len(), delivered);
        assert!(matches!(events[delivered - 1], Event::Token { finish: Some(reason), .. } if reason == finish));
        assert_eq!(scheduler.schedule().unwrap().forget_sequences, [SequenceId(1)]);
    }
}

#[test]
fn samples_in_flight_count() {
    let mut scheduler = with(roomy(), [text(1, 3, 1)]);
    let plan = scheduler.schedule().unwrap();
    assert_eq!(scheduler.schedule(), None);
    assert_eq!(scheduler.commit(&answer(&plan, 5)), [token(1, Some(FinishReason::Length))]);
}

#[track_caller]
fn check_finish(max_new_tokens: u32, end_tokens: &[u32], finish: Option<FinishReason>) {
    let request = NewSequence { end_tokens: end_tokens.into(), ..text(1, 3, max_new_tokens) };
    let mut scheduler = with(roomy(), [request]);
    let plan = scheduler.schedule().unwrap();
    assert_eq!(scheduler.commit(&answer(&plan, END)), [token(1, finish)]);
}

#[test]
fn an_end_token_ends() {
    check_finish(2, &[END], Some(FinishReason::EndOfSequence));
}

#[test]
fn length_is_checked_before_end_tokens() {
    check_finish(1, &[END], Some(FinishReason::Length));
}

#[test]
fn without_end_tokens_only_the_length_ends() {
    check_finish(2, &[], None);
}

#[test]
fn blocks_of_an_ended_sequence_outlive_its_surplus_row() {
    let mut scheduler = with(Config { prefix_caching: false, ..roomy() }, [text(1, 3, 9)]);
    let (first, second) = (scheduler.schedule().unwrap(), scheduler.schedule().unwrap());
    scheduler.commit(&answer(&first, END));
    assert_eq!((scheduler.stats().blocks_free, scheduler.stats().running), (99, 0));
    assert_eq!(scheduler.schedule(), None, "nothing is forgotten before the surplus row is back");
    assert!(scheduler.commit(&answer(&second, 5)).is_empty());
    assert_eq!(scheduler.stats().blocks_free, 100);
    assert_eq!(scheduler.schedule().unwrap().forget_sequences, [SequenceId(1)]);
}

#[test]
fn an_idle_shard_is_told_to_forget() {
    let mut scheduler = with(roomy(), [text(1, 3, 1)]);
    step(&mut scheduler);
    let (plan, events) = step(&mut scheduler);
    assert_eq!((plan.rows.len(), plan.forget_sequences, events), (0, vec![SequenceId(1)], vec![]));
    assert_eq!(scheduler.schedule(), None);
}

#[test]
fn the_youngest_is_preempted_and_resumes_with_all_its_tokens() {
    let config = Config { num_blocks: 5, prefix_caching: false, ..roomy() };
    let mut scheduler = with(config, [text(1, 7, 9), text(2, 3, 9)]);
    check_rows(&mut scheduler, &[&[(1, 0, 7), (2, 0, 3)], &[(1, 7, 1), (2, 3, 1)], &[(1, 8, 1), (2, 4, 1)]]);
    check_rows(&mut scheduler, &[&[(1, 9, 1), (2, 5, 1)], &[(1, 10, 1), (2, 6, 1)], &[(1, 11, 1), (2, 7, 1)]]);
    // Both need a fourth block: the older one gets that of the younger, once.
    check_rows(&mut scheduler, &[&[(1, 12, 1)], &[(1, 13, 1)], &[(1, 14, 1)]]);
    assert_eq!(scheduler.stats().preemptions, 1);
    let (plan, _) = step(&mut scheduler);
    assert_eq!(rows(&plan), [(2, 0, 9)]);
    assert!(plan.rows[0].reset_blocks && plan.new_sequences.is_empty());
}

#[test]
fn an_older_one_is_not_preempted() {
    let config = Config { num_blocks: 5, prefix_caching: false, ..roomy() };
    let mut scheduler = with(config, [text(1, 5, 8), text(2, 4, 9)]);
    check_rows(&mut scheduler, &[&[(1, 0, 5), (2, 0, 4)], &[(1, 5, 1), (2, 4, 1)], &[(1, 6, 1), (2, 5, 1)]]);
    check_rows(&mut scheduler, &[&[(1, 7, 1), (2, 6, 1)], &[(1, 8, 1), (2, 7, 1)]]);
    // The younger one needs a third block and waits with what it has until the older one ends.
    check_rows(&mut scheduler, &[&[(1, 9, 1)], &[(1, 10, 1)], &[(1, 11, 1)], &[(2, 8, 1)]]);
    assert_eq!(scheduler.stats().preemptions, 0);
}

#[test]
fn no_more_are_preempted_than_have_to_be() {
    let config = Config { num_blocks: 6, prefix_caching: false, ..roomy() };
    let mut scheduler = with(config, (1..4).map(|id| text(id, 3, 9)));
    let mut in_flight = scheduler.schedule().unwrap();
    for _ in 0..5 {
        let next = scheduler.schedule().unwrap();
        scheduler.commit(&answer(&in_flight, 5));
        in_flight = next;
    }
    // All need a third block. The youngest one's two blocks will do, but not before its last row is back.
    assert_eq!((scheduler.schedule(), scheduler.schedule()), (None, None));
    assert_eq!(scheduler.stats().preemptions, 1);
    assert_eq!(scheduler.commit(&answer(&in_flight, 5)).len(), 3, "the preempted one's sample counts");
    assert_eq!(rows(&scheduler.schedule().unwrap()), [(1, 8, 1), (2, 8, 1)]);
}

#[test]
fn a_prompt_does_not_start_on_blocks_that_others_will_take() {
    let config = Config { num_blocks: 11, max_step_image_tokens: 10, ..roomy() };
    let first = with_image(with_image(text(1, 28, 9), 1, 8, 10), 2, 18, 10);
    let mut scheduler = with(config, [first, text(2, 20, 9)]);
    for (key, _) in scheduler.take_uploads() {
        scheduler.image_ready(key);
    }
    check_rows(&mut scheduler, &[&[(1, 0, 18)], &[(1, 18, 10)]]);
}

#[test]
fn explicit_positions_follow_the_tokens() {
    let positions = Positions::Explicit { axes: vec![vec![0, 1, 1, 7], vec![0, 2, 3, 7]], next: 8 };
    let request = NewSequence { positions, ..text(1, 4, 9) };
    let mut scheduler = with(Config { max_step_tokens: 3, ..roomy() }, [request]);
    let mut next = || step(&mut scheduler).0.rows[0].positions.clone();
    assert_eq!(next(), RowPositions::Explicit(vec![vec![0, 1, 1], vec![0, 2, 3]]));
    assert_eq!(next(), RowPositions::Explicit(vec![vec![7], vec![7]]));
    assert_eq!([next(), next()], [RowPositions::CountFrom(8), RowPositions::CountFrom(9)]);
}

#[test]
fn one_failure_is_one_sequences_failure() {
    let mut scheduler = with(roomy(), [text(1, 3, 9), text(2, 3, 9)]);
    let plan = scheduler.schedule().unwrap();
    let failures = vec![SequenceId(1)];
    let events = scheduler.commit(&StepResult { step: plan.step, sampled: vec![(SequenceId(2), 5)], failures });
    assert_eq!(events, [Event::Failed { sequence: SequenceId(1) }, token(2, None)]);
    let plan = scheduler.schedule().unwrap();
    assert_eq!((rows(&plan), plan.forget_sequences), (vec![(2, 3, 1)], vec![SequenceId(1)]));
}

#[test]
fn a_missing_sample_is_a_failure() {
    let mut scheduler = with(roomy(), [text(1, 3, 9)]);
    let plan = scheduler.schedule().unwrap();
    let nothing = StepResult { step: plan.step, sampled: Vec::new(), failures: Vec::new() };
    assert_eq!(scheduler.commit(&nothing), [Event::Failed { sequence: SequenceId(1) }]);
}

#[test]
fn abort_at_every_stage() {
    let mut scheduler = with(Config { max_step_tokens: 4, ..roomy() }, [text(1, 9, 9), text(2, 3, 9)]);
    scheduler.abort(SequenceId(7));
    scheduler.abort(SequenceId(2));
    assert_eq!(scheduler.stats().waiting, 1);
    let plan = scheduler.schedule().unwrap();
    scheduler.abort(SequenceId(1));
    scheduler.abort(SequenceId(1));
    assert_eq!(scheduler.stats().blocks_free, 99, "a step in flight writes into the block");
    assert_eq!(scheduler.add(text(1, 9, 9)), Err(AddError::Duplicate(SequenceId(1))));
    assert!(scheduler.commit(&answer(&plan, 5)).is_empty());
    assert_eq!(scheduler.stats().blocks_free + scheduler.stats().blocks_cached, 100);
    scheduler.add(text(1, 9, 9)).unwrap();
    let plan = scheduler.schedule().unwrap();
    assert_eq!((plan.forget_sequences, plan.new_sequences), (vec![SequenceId(1)], vec![SequenceId(1)]));
}

#[test]
fn a_lost_shard_takes_only_what_it_had() {
    let config = Config { max_rows: 1, ..roomy() };
    let mut scheduler = with(config, [text(1, 3, 9), text(2, 3, 9)]);
    step(&mut scheduler);
    scheduler.schedule().unwrap();
    assert_eq!(scheduler.lose_shard(), [Event::Lost { sequence: SequenceId(1) }]);
    assert_eq!(scheduler.stats().blocks_free, 100);
    let plan = scheduler.schedule().unwrap();
    assert_eq!((plan.step, rows(&plan), plan.forget_sequences), (0, vec![(2, 0, 3)], vec![]));
}

#[track_caller]
fn check_refused(request: NewSequence, message: &str) {
    let mut scheduler = Scheduler::new(Config { num_blocks: 5, max_step_tokens: 8, ..roomy() }).unwrap();
    assert_eq!(scheduler.add(request).unwrap_err().to_string(), message);
    assert_eq!((scheduler.stats().waiting, scheduler.take_uploads()), (0, vec![]));
}

#[test]
fn impossible_requests_are_refused() {
    check_refused(text(1, 0, 1), "the prompt is empty");
    check_refused(text(1, 1, 0), "max_new_tokens must be at least 1");
    check_refused(text(1, 18, 4), "18 prompt tokens and 4 new tokens are more than the limit of 21");
    check_refused(text(1, 1, u32::MAX), "1 prompt tokens and 4294967295 new tokens are more than the limit of 21");
    let both_ways = |ranges: &[(u32, u32)]| {
        let both_ways = ranges.iter().map(|&(start, end)| start..end).collect();
        NewSequence { both_ways, ..text(1, 12, 1) }
    };
    check_refused(both_ways(&[(1, 10)]), "9 tokens that attend to each other do not fit into a step of 8 tokens");
    for (ranges, index) in [(&[(5, 5)][..], 0), (&[(1, 3), (2, 4)], 1), (&[(4, 6), (1, 3)], 1), (&[(0, 8), (8, 13)], 1)]
    {
        let message = format!("range {index} of tokens that attend to each other does not fit the prompt");
        check_refused(both_ways(ranges), &message);
    }
    check_refused(with_image(text(1, 8, 1), 1, 4, 5), "placeholder 0 does not fit the prompt or its image");
    check_refused(
        with_image(text(1, 8, 1), 1, 4, 0),
        "image 01010101 has 0 tokens, which contradicts what is known of it",
    );
    let overlapping = with_image(with_image(text(1, 8, 1), 1, 0, 4), 2, 3, 4);
    check_refused(overlapping, "placeholder 1 does not fit the prompt or its image");
    let unknown = NewSequence { images: Vec::new(), ..with_image(text(1, 8, 1), 1, 4, 4) };
    check_refused(unknown, "placeholder 0 does not fit the prompt or its image");
    let mut twice = with_image(with_image(text(1, 8, 1), 1, 0, 4), 1, 4, 4);
    twice.images[1].num_tokens = 3;
    check_refused(twice, "image 01010101 has 3 tokens, which contradicts what is known of it");
    let positions = Positions::Explicit { axes: vec![vec![0; 3], vec![0; 2]], next: 3 };
    check_refused(NewSequence { positions, ..text(1, 3, 1) }, "explicit positions do not match a prompt of 3 tokens");
}

#[test]
fn the_longest_possible_request_is_served() {
    let mut scheduler = with(Config { num_blocks: 5, max_step_tokens: 8, ..roomy() }, [text(1, 18, 3)]);
    check_rows(&mut scheduler, &[&[(1, 0, 8)], &[(1, 8, 8)], &[(1, 16, 2)], &[(1, 18, 1)], &[(1, 19, 1)]]);
    assert_eq!(scheduler.stats().running, 0);
}

#[test]
fn a_limit_of_zero_is_refused() {
    let error = Scheduler::new(Config { block_size: 0, ..roomy() }).unwrap_err();
    assert_eq!(error, ConfigError::Zero { name: "block_size" });
}

#[test]
fn a_scored_prompt_says_so_until_its_last_token() {
    let scored = NewSequence { score_prompt: true, ..text(1, 9, 3) };
    let mut scheduler = with(Config { max_step_tokens: 4, ..roomy() }, [scored]);
    let told = (0..5).map(|_| step(&mut scheduler).0.rows[0].score);
    // The third chunk is the last token alone, whose next one is no longer of the prompt.
    assert_eq!(told.collect::<Vec<_>>(), [true, true, false, false, false]);
}

#[test]
fn what_was_scored_is_not_scored_again() {
    let scored = NewSequence { score_prompt: true, ..text(2, 3, 9) };
    let mut scheduler = with(Config { num_blocks: 5, ..roomy() }, [text(1, 7, 9), scored]);
    assert!(step(&mut scheduler).0.rows[1].score);
    let mut rows = Vec::new();
    while scheduler.stats().running + scheduler.stats().waiting > 0 {
        rows.extend(step(&mut scheduler).0.rows);
    }
    assert_eq!(scheduler.stats().preemptions, 1);
    assert!(rows.iter().any(|row| row.reset_blocks) && rows.iter().all(|row| !row.score));
}
