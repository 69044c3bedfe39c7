//! Which prefixes are found again, and which must not be.

use crate::support::requests::{answer, image, roomy, rows, text, with_image};
use text_generation_scheduler::{Config, NewSequence, Placeholder, Positions, Scheduler, SequenceId};

/// Runs one plan, with the pixels it may need.
fn step(scheduler: &mut Scheduler) -> Vec<(u64, u32, u32)> {
    for (key, _) in scheduler.take_uploads() {
        scheduler.image_ready(key);
    }
    let plan = scheduler.schedule().unwrap();
    scheduler.commit(&answer(&plan, 5));
    rows(&plan)
}

/// Tokens of `second` that are found in the cache after `first` was served.
#[track_caller]
fn check(first: NewSequence, second: NewSequence, cached: u32) {
    let mut scheduler = Scheduler::new(roomy()).unwrap();
    scheduler.add(NewSequence { id: SequenceId(1), max_new_tokens: 1, ..first }).unwrap();
    step(&mut scheduler);
    scheduler.add(NewSequence { id: SequenceId(2), max_new_tokens: 9, ..second }).unwrap();
    assert_eq!(step(&mut scheduler)[0].1, cached);
    assert_eq!(scheduler.cached_tokens(SequenceId(2)), Some(cached));
    assert_eq!(scheduler.stats().prefix_hit_tokens, u64::from(cached));
}

#[test]
fn a_full_hit_computes_the_last_block() {
    check(text(1, 8, 1), text(1, 8, 1), 4);
}

#[test]
fn only_full_blocks_are_shared() {
    check(text(1, 7, 1), text(1, 7, 9), 4);
    check(text(1, 9, 1), text(1, 9, 9), 8);
}

#[test]
fn another_salt_shares_nothing() {
    check(text(1, 9, 1), NewSequence { cache_salt: 1, ..text(1, 9, 1) }, 0);
}

#[test]
fn another_token_shares_what_is_before_it() {
    let mut other = text(1, 9, 1);
    other.prompt[4] = 7;
    check(text(1, 9, 1), other, 4);
}

#[test]
fn the_same_image_is_shared() {
    check(with_image(text(1, 12, 1), 1, 2, 6), with_image(text(1, 12, 1), 1, 2, 6), 8);
}

#[test]
fn another_image_is_not() {
    check(with_image(text(1, 12, 1), 1, 5, 3), with_image(text(1, 12, 1), 2, 5, 3), 4);
}

#[test]
fn another_part_of_the_image_is_not() {
    let part = |image_offset| {
        let mut request = with_image(text(1, 12, 1), 1, 0, 8);
        request.placeholders = vec![Placeholder { offset: 4, length: 2, image: image(1), image_offset }];
        request
    };
    check(part(0), part(0), 8);
    check(part(0), part(2), 4);
}

#[test]
fn text_and_image_are_not_the_same() {
    check(with_image(text(1, 12, 1), 1, 4, 4), text(1, 12, 1), 4);
}

#[test]
fn other_positions_are_not_shared() {
    let at = |third| Positions::Explicit { axes: vec![vec![0, 1, 2, 3, 4, third, 6, 7, 8]], next: 9 };
    let request = |third| NewSequence { positions: at(third), ..text(1, 9, 1) };
    check(request(5), request(5), 8);
    check(request(5), request(6), 4);
    check(text(1, 9, 1), request(5), 0);
}

#[test]
fn a_hit_does_not_end_inside_a_range() {
    let both_ways = |request| NewSequence { both_ways: vec![3..6, 6..16], ..request };
    let first = || both_ways(with_image(with_image(text(1, 20, 1), 1, 3, 3), 2, 6, 10));
    check(first(), first(), 16);
    let mut second = first();
    second.placeholders[1].length = 9;
    check(first(), second, 0);
    // The cache has 12 tokens, up to the middle of the image.
    let mut shorter = first();
    shorter.prompt.truncate(16);
    check(first(), shorter, 0);
}

#[test]
fn the_beginning_of_a_range_depends_on_its_end() {
    let both_ways = |range| NewSequence { both_ways: vec![range], ..text(1, 20, 1) };
    check(both_ways(5..14), both_ways(5..14), 16);
    check(both_ways(5..14), both_ways(5..15), 4);
    check(both_ways(5..14), both_ways(6..14), 4);
    check(both_ways(5..14), text(1, 20, 1), 4);
    check(text(1, 20, 1), both_ways(5..14), 4);
    let mut other = both_ways(5..14);
    other.prompt[13] = 7;
    check(both_ways(5..14), other, 4);
    let mut behind = both_ways(5..14);
    behind.prompt[15] = 7;
    check(both_ways(5..14), behind, 4);
    let at = |last| {
        let axis = (0..20).map(|index| if index == 13 { last } else { index }).collect();
        NewSequence { positions: Positions::Explicit { axes: vec![axis], next: 20 }, ..both_ways(5..14) }
    };
    check(at(13), at(13), 16);
    check(at(13), at(14), 4);
}

#[test]
fn a_prompt_that_is_one_range_is_computed_again() {
    let prompt = || NewSequence { both_ways: vec![0..12], ..text(1, 12, 1) };
    check(prompt(), prompt(), 0);
}

#[test]
fn blocks_are_published_by_commit() {
    let mut scheduler = Scheduler::new(roomy()).unwrap();
    scheduler.add(text(1, 9, 9)).unwrap();
    let plan = scheduler.schedule().unwrap();
    scheduler.add(NewSequence { id: SequenceId(2), ..text(1, 9, 9) }).unwrap();
    let second = scheduler.schedule().unwrap();
    assert_eq!(rows(&second), [(1, 9, 1), (2, 0, 9)]);
    scheduler.commit(&answer(&plan, 5));
    scheduler.add(NewSequence { id: SequenceId(3), ..text(1, 9, 9) }).unwrap();
    assert_eq!(rows(&scheduler.schedule().unwrap()), [(1, 10, 1), (2, 9, 1), (3, 8, 1)]);
}

#[test]
fn generated_tokens_are_shared() {
    let mut scheduler = Scheduler::new(roomy()).unwrap();
    scheduler.add(text(1, 3, 6)).unwrap();
    for _ in 0..6 {
        step(&mut scheduler);
    }
    let mut next_turn = text(1, 3, 1);
    next_turn.prompt.extend([5, 5, 5, 5, 5, 5, 8, 8]);
    scheduler.add(NewSequence { id: SequenceId(2), ..next_turn }).unwrap();
    assert_eq!(step(&mut scheduler), [(2, 8, 3)]);
}

#[test]
fn the_end_of_a_prefix_is_evicted_before_its_beginning() {
    let mut scheduler = Scheduler::new(Config { num_blocks: 4, ..roomy() }).unwrap();
    for id in [1, 2] {
        scheduler.add(text(id, 9, 1)).unwrap();
        step(&mut scheduler);
    }
    scheduler.add(NewSequence { id: SequenceId(3), ..text(1, 9, 1) }).unwrap();
    assert_eq!(step(&mut scheduler), [(3, 4, 5)]);
}

#[test]
fn a_cached_prefix_needs_no_pixels() {
    let mut scheduler = Scheduler::new(Config { embedding_cache_tokens: 0, ..roomy() }).unwrap();
    scheduler.add(with_image(text(1, 12, 1), 1, 2, 6)).unwrap();
    step(&mut scheduler);
    assert_eq!(step(&mut scheduler), []);
    assert_eq!(scheduler.stats().embedding_tokens, 0);
    scheduler.add(NewSequence { id: SequenceId(2), ..with_image(text(1, 12, 1), 1, 2, 6) }).unwrap();
    assert_eq!(scheduler.take_uploads(), []);
    assert_eq!(step(&mut scheduler), [(2, 8, 4)]);
}

#[test]
fn without_prefix_caching_nothing_is_shared() {
    let mut scheduler = Scheduler::new(Config { prefix_caching: false, ..roomy() }).unwrap();
    for id in 1..3 {
        scheduler.add(NewSequence { id: SequenceId(id), ..text(1, 9, 1) }).unwrap();
        assert_eq!(step(&mut scheduler), [(id, 0, 9)]);
    }
    assert_eq!(scheduler.stats().blocks_cached, 0);
}

#[test]
fn a_prompt_that_is_scored_finds_nothing_and_leaves_everything() {
    check(text(1, 9, 1), NewSequence { score_prompt: true, ..text(1, 9, 1) }, 0);
    check(NewSequence { score_prompt: true, ..text(1, 9, 1) }, text(1, 9, 1), 8);
}
