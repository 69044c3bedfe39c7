//! Pixels, encoder budget and embedding cache.

use crate::support::requests::{answer, image, roomy, rows, text, with_image};
use text_generation_scheduler::{
    Config, Event, NewSequence, Placeholder, Scheduler, SequenceId, Span, StepPlan, StepResult,
};

fn with(config: &Config, requests: impl IntoIterator<Item = NewSequence>) -> Scheduler {
    let mut scheduler = Scheduler::new(Config { prefix_caching: false, ..config.clone() }).unwrap();
    for request in requests {
        scheduler.add(request).unwrap();
    }
    scheduler
}

fn upload(scheduler: &mut Scheduler) {
    for (key, _) in scheduler.take_uploads() {
        scheduler.image_ready(key);
    }
}

fn step(scheduler: &mut Scheduler) -> StepPlan {
    let plan = scheduler.schedule().unwrap();
    scheduler.commit(&answer(&plan, 5));
    plan
}

/// `(encoded images, rows)` of a plan.
fn work(plan: &StepPlan) -> (Vec<u8>, Vec<(u64, u32, u32)>) {
    (plan.encode_images.iter().map(|(key, _)| key.0[0]).collect(), rows(plan))
}

#[test]
fn ranks_take_turns() {
    let mut scheduler = with(&roomy(), (1..4).map(|id| with_image(text(id, 8, 1), id as u8, 0, 4)));
    assert_eq!(scheduler.take_uploads(), [(image(1), 0), (image(2), 1), (image(3), 0)]);
    assert_eq!(scheduler.take_uploads(), []);
}

#[test]
fn pixels_on_their_way_are_limited() {
    let config = Config { max_pending_upload_tokens: 10, ..roomy() };
    let mut scheduler = with(&config, (1..4).map(|id| with_image(text(id, 8, 1), id as u8, 0, 5)));
    assert_eq!(scheduler.take_uploads().len(), 2);
    scheduler.image_ready(image(1));
    assert_eq!(scheduler.take_uploads(), []);
    step(&mut scheduler);
    assert_eq!(scheduler.take_uploads().len(), 1);
}

#[test]
fn who_waits_for_pixels_blocks_nobody() {
    let mut scheduler = with(&roomy(), [with_image(text(1, 8, 1), 1, 2, 4), text(2, 3, 2)]);
    assert_eq!(rows(&step(&mut scheduler)), [(2, 0, 3)]);
    assert_eq!(scheduler.stats().waiting_for_images, 1);
    upload(&mut scheduler);
    assert_eq!(work(&step(&mut scheduler)), (vec![1], vec![(2, 3, 1), (1, 0, 8)]));
}

#[test]
fn a_started_prompt_stops_before_missing_pixels() {
    let request = with_image(with_image(text(1, 20, 1), 1, 2, 4), 2, 10, 4);
    let mut scheduler = with(&roomy(), [request, text(2, 3, 9)]);
    scheduler.take_uploads();
    scheduler.image_ready(image(1));
    assert_eq!(work(&step(&mut scheduler)), (vec![1], vec![(1, 0, 10), (2, 0, 3)]));
    assert_eq!(rows(&step(&mut scheduler)), [(2, 3, 1)]);
    assert_eq!((scheduler.stats().waiting_for_images, scheduler.stats().running), (1, 2));
    scheduler.image_ready(image(2));
    assert_eq!(work(&step(&mut scheduler)), (vec![2], vec![(2, 4, 1), (1, 10, 10)]));
}

/// `stalled` has computed 8 of 12 tokens and waits for image 2.
fn stalled_behind(older: Option<NewSequence>, num_blocks: u32) -> Scheduler {
    let stalled = with_image(with_image(text(2, 12, 1), 1, 0, 4), 2, 8, 4);
    let mut scheduler = with(&Config { num_blocks, ..roomy() }, older.into_iter().chain([stalled]));
    scheduler.take_uploads();
    scheduler.image_ready(image(1));
    step(&mut scheduler);
    assert_eq!(scheduler.schedule().map_or(0, |plan| plan.rows.len()), scheduler.stats().running - 1);
    scheduler
}

#[test]
fn who_waits_for_pixels_gives_its_blocks_up() {
    let mut scheduler = stalled_behind(Some(text(1, 1, 9)), 6);
    scheduler.add(text(3, 14, 1)).unwrap();
    assert_eq!(rows(&scheduler.schedule().unwrap()), [(1, 2, 1), (3, 0, 14)]);
    assert_eq!(scheduler.stats().preemptions, 1);
}

#[test]
fn those_who_wait_for_pixels_may_share_what_they_give_up() {
    // Both have a block of image 1, another one each, and wait for the image that is named like them.
    let stalled = |id: u8| {
        let request = with_image(with_image(text(9, 12, 1), 1, 0, 4), 10 + id, 4, 2);
        NewSequence { id: SequenceId(id.into()), ..with_image(request, id, 8, 4) }
    };
    let mut scheduler = Scheduler::new(Config { num_blocks: 8, ..roomy() }).unwrap();
    scheduler.add(text(1, 1, 9)).unwrap();
    for id in [2, 3] {
        scheduler.add(stalled(id)).unwrap();
        scheduler.take_uploads();
        for number in [1, 10 + id] {
            scheduler.image_ready(image(number));
        }
        assert_eq!(rows(&step(&mut scheduler)).len(), 2);
        assert_eq!(rows(&step(&mut scheduler)).len(), 1);
    }
    scheduler.add(text(4, 20, 1)).unwrap();
    assert_eq!(rows(&step(&mut scheduler)), [(1, 4, 1), (4, 0, 20)]);
}

#[test]
fn the_oldest_keeps_its_blocks_while_it_waits_for_pixels() {
    let mut scheduler = stalled_behind(None, 4);
    scheduler.add(text(3, 3, 9)).unwrap();
    scheduler.add(text(4, 14, 1)).unwrap();
    for start in [0, 3, 4, 5, 6, 7] {
        assert_eq!(rows(&step(&mut scheduler))[0].1, start);
    }
    // Now the running one needs a third block, and the waiting one four.
    assert_eq!(scheduler.schedule(), None);
    scheduler.image_ready(image(2));
    assert_eq!(scheduler.stats().preemptions, 0);
    assert_eq!(rows(&step(&mut scheduler)), [(2, 8, 4)]);
    assert_eq!(scheduler.stats().preemptions, 1, "its third block is the younger one's");
}

#[test]
fn a_chunk_may_end_inside_an_image() {
    let config = Config { max_step_tokens: 6, ..roomy() };
    let mut scheduler = with(&config, [with_image(text(1, 12, 1), 1, 4, 6)]);
    upload(&mut scheduler);
    let (first, second) = (step(&mut scheduler), step(&mut scheduler));
    assert_eq!((work(&first), work(&second)), ((vec![1], vec![(1, 0, 6)]), (vec![], vec![(1, 6, 6)])));
    let span = |offset, length, image_offset| Span { row: 0, offset, length, image: image(1), image_offset };
    assert_eq!((first.spans, second.spans), (vec![span(4, 2, 0)], vec![span(0, 4, 2)]));
}

#[test]
fn tokens_that_see_each_other_are_not_cut_apart() {
    let config = Config { max_step_tokens: 6, ..roomy() };
    let request = NewSequence { both_ways: vec![4..10], ..with_image(text(1, 12, 1), 1, 4, 6) };
    let mut scheduler = with(&config, [request]);
    upload(&mut scheduler);
    assert_eq!(work(&step(&mut scheduler)), (vec![], vec![(1, 0, 4)]));
    assert_eq!(work(&step(&mut scheduler)), (vec![1], vec![(1, 4, 6)]));
}

#[test]
fn encoding_is_limited_and_a_large_image_goes_alone() {
    let sizes = [(1, 10), (2, 20), (3, 6), (4, 4)];
    let mut scheduler = with(&roomy(), sizes.map(|(id, size)| with_image(text(id, 21, 1), id as u8, 0, size)));
    upload(&mut scheduler);
    assert_eq!(work(&step(&mut scheduler)).0, [1, 3]);
    assert_eq!(work(&step(&mut scheduler)).0, [2]);
    assert_eq!(work(&step(&mut scheduler)).0, [4]);
}

#[test]
fn an_image_is_encoded_once() {
    let mut scheduler = with(&roomy(), [with_image(text(1, 8, 1), 1, 0, 4), with_image(text(2, 8, 1), 1, 2, 4)]);
    upload(&mut scheduler);
    assert_eq!(work(&step(&mut scheduler)), (vec![1], vec![(1, 0, 8), (2, 0, 8)]));
    scheduler.add(with_image(text(3, 8, 1), 1, 2, 4)).unwrap();
    assert_eq!(scheduler.take_uploads(), []);
    assert_eq!(work(&step(&mut scheduler)), (vec![], vec![(3, 0, 8)]));
    let stats = scheduler.stats();
    assert_eq!((stats.image_hits, stats.image_misses, stats.embedding_tokens), (2, 1, 4));
}

#[test]
fn an_image_listed_twice_is_one_image() {
    let mut scheduler = with(&roomy(), [with_image(with_image(text(1, 12, 1), 1, 0, 4), 1, 6, 4)]);
    assert_eq!(scheduler.take_uploads(), [(image(1), 0)]);
    scheduler.image_ready(image(1));
    assert_eq!(work(&step(&mut scheduler)), (vec![1], vec![(1, 0, 12)]));
}

#[test]
fn the_least_recently_used_embedding_goes() {
    let config = Config { embedding_cache_tokens: 10, ..roomy() };
    let mut scheduler = with(&config, []);
    for (id, number) in [(1, 1), (2, 2), (3, 1)] {
        scheduler.add(with_image(text(id, 8, 1), number, 0, 5)).unwrap();
        upload(&mut scheduler);
        assert_eq!(step(&mut scheduler).forget_images, []);
    }
    scheduler.add(with_image(text(4, 8, 1), 3, 0, 5)).unwrap();
    upload(&mut scheduler);
    assert_eq!(step(&mut scheduler).forget_images, [image(2)]);
}

#[test]
fn a_needed_embedding_is_not_evicted_for_a_younger_sequence() {
    let config = Config { embedding_cache_tokens: 8, max_step_tokens: 6, ..roomy() };
    let mut scheduler = with(&config, [with_image(text(1, 20, 1), 1, 4, 8), with_image(text(2, 4, 1), 2, 0, 4)]);
    upload(&mut scheduler);
    assert_eq!(work(&step(&mut scheduler)), (vec![1], vec![(1, 0, 6)]));
    assert_eq!(work(&step(&mut scheduler)), (vec![], vec![(1, 6, 6)]));
    let plan = step(&mut scheduler);
    assert_eq!((rows(&plan), plan.forget_images), (vec![(1, 12, 6)], vec![]));
    let plan = step(&mut scheduler);
    assert_eq!((work(&plan), plan.forget_images), ((vec![2], vec![(1, 18, 2), (2, 0, 4)]), vec![image(1)]));
}

#[test]
fn the_first_prompt_may_take_the_place_of_any_embedding() {
    let older = with_image(with_image(text(1, 20, 1), 1, 0, 2), 2, 4, 8);
    let config = Config { embedding_cache_tokens: 8, max_step_tokens: 6, ..roomy() };
    let mut scheduler = with(&config, [older, with_image(text(2, 20, 1), 3, 0, 8)]);
    scheduler.take_uploads();
    [1, 3].into_iter().map(image).for_each(|key| scheduler.image_ready(key));
    assert_eq!(work(&step(&mut scheduler)), (vec![1], vec![(1, 0, 4)]));
    assert_eq!(work(&step(&mut scheduler)), (vec![3], vec![(2, 0, 6)]));
    scheduler.image_ready(image(2));
    let plan = step(&mut scheduler);
    assert_eq!((work(&plan), plan.forget_images), ((vec![2], vec![(1, 4, 6)]), vec![image(3)]));
    assert_eq!(scheduler.take_uploads().len(), 1);
}

#[test]
fn other_prompts_may_not_take_what_somebody_is_in_the_middle_of() {
    let two_images = |id: u64, second| with_image(with_image(text(id, 12, 1), 9 + id as u8, 0, 1), id as u8, 6, second);
    let config = Config { embedding_cache_tokens: 11, max_step_tokens: 8, ..roomy() };
    let requests = [two_images(1, 1), two_images(2, 4), with_image(text(3, 20, 1), 3, 0, 10)];
    let mut scheduler = with(&config, requests);
    scheduler.take_uploads();
    let arrive = |scheduler: &mut Scheduler, numbers: [u8; 2]| {
        for number in numbers {
            scheduler.image_ready(image(number));
        }
        rows(&step(scheduler))
    };
    assert_eq!(arrive(&mut scheduler, [10, 11]), [(1, 0, 6), (2, 0, 2)]);
    assert_eq!(rows(&step(&mut scheduler)), [(2, 2, 4)]);
    scheduler.image_ready(image(3));
    assert_eq!(rows(&step(&mut scheduler)), [(3, 0, 8)]);
    assert_eq!(arrive(&mut scheduler, [1, 2]), [(1, 6, 6), (3, 8, 2)]);
}

#[test]
fn an_embedding_nobody_is_in_the_middle_of_goes_for_any_prompt() {
    let first = with_image(text(1, 14, 1), 1, 4, 8);
    let others = [with_image(text(2, 4, 1), 2, 0, 4), with_image(text(3, 14, 1), 1, 4, 8)];
    let config = Config { embedding_cache_tokens: 8, max_step_tokens: 6, ..roomy() };
    let mut scheduler = with(&config, [first].into_iter().chain(others));
    upload(&mut scheduler);
    assert_eq!(work(&step(&mut scheduler)), (vec![1], vec![(1, 0, 6)]));
    assert_eq!(work(&step(&mut scheduler)), (vec![], vec![(1, 6, 6)]));
    let plan = step(&mut scheduler);
    assert_eq!((work(&plan), plan.forget_images), ((vec![2], vec![(1, 12, 2), (2, 0, 4)]), vec![image(1)]));
}

#[test]
fn an_image_larger_than_the_cache_is_served_and_forgotten() {
    let mut scheduler = with(&Config { embedding_cache_tokens: 3, ..roomy() }, [with_image(text(1, 8, 2), 1, 0, 5)]);
    upload(&mut scheduler);
    assert_eq!(work(&step(&mut scheduler)), (vec![1], vec![(1, 0, 8)]));
    assert_eq!(step(&mut scheduler).forget_images, [image(1)]);
    assert_eq!(scheduler.stats().embedding_tokens, 0);
}

#[test]
fn pixels_nobody_needs_are_forgotten_before_they_are_sent_again() {
    let mut scheduler = with(&roomy(), [with_image(text(1, 8, 1), 1, 0, 5)]);
    upload(&mut scheduler);
    scheduler.abort(SequenceId(1));
    let plan = scheduler.schedule().unwrap();
    assert_eq!((plan.forget_images.as_slice(), plan.rows.len()), ([image(1)].as_slice(), 0));
    // The shard may not have forgotten yet: what is sent now could be what it forgets.
    scheduler.add(with_image(text(2, 8, 1), 1, 0, 5)).unwrap();
    assert_eq!(scheduler.take_uploads(), []);
    scheduler.commit(&answer(&plan, 5));
    assert_eq!(scheduler.take_uploads().len(), 1);
}

#[test]
fn pixels_wanted_again_in_time_are_kept() {
    let mut scheduler = with(&roomy(), [with_image(text(1, 8, 1), 1, 0, 5)]);
    upload(&mut scheduler);
    scheduler.abort(SequenceId(1));
    scheduler.add(with_image(text(2, 8, 1), 1, 0, 5)).unwrap();
    let plan = step(&mut scheduler);
    assert_eq!((work(&plan), plan.forget_images), ((vec![1], vec![(2, 0, 8)]), vec![]));
}

#[test]
fn pixels_that_arrive_for_nobody_are_forgotten() {
    let mut scheduler = with(&roomy(), [with_image(text(1, 8, 1), 1, 0, 5)]);
    scheduler.take_uploads();
    scheduler.abort(SequenceId(1));
    assert_eq!(scheduler.schedule(), None);
    scheduler.image_ready(image(1));
    assert_eq!(step(&mut scheduler).forget_images, [image(1)]);
    assert_eq!(scheduler.stats().pending_upload_tokens, 0);
}

#[test]
fn failed_pixels_end_everyone_who_needs_them() {
    let requests = [1, 2].map(|id| with_image(text(id, 8, 1), 1, 0, 4));
    let mut scheduler = with(&roomy(), requests.into_iter().chain([text(3, 3, 1)]));
    scheduler.take_uploads();
    let failed = |id| Event::ImageFailed { sequence: SequenceId(id) };
    assert_eq!(scheduler.image_failed(image(1)), [failed(1), failed(2)]);
    assert_eq!(scheduler.image_failed(image(1)), []);
    assert_eq!(rows(&step(&mut scheduler)), [(3, 0, 3)]);
}

#[test]
fn a_failed_encoding_is_repeated_for_others() {
    let mut scheduler = with(&roomy(), [with_image(text(1, 8, 1), 1, 0, 4), with_image(text(2, 70, 1), 1, 66, 4)]);
    upload(&mut scheduler);
    let plan = scheduler.schedule().unwrap();
    assert_eq!(work(&plan), (vec![1], vec![(1, 0, 8), (2, 0, 56)]));
    scheduler.commit(&StepResult { step: 0, sampled: Vec::new(), failures: vec![SequenceId(1)] });
    let plan = step(&mut scheduler);
    assert_eq!((work(&plan), plan.forget_images), ((vec![], vec![(2, 56, 10)]), vec![image(1)]));
    upload(&mut scheduler);
    assert_eq!(work(&step(&mut scheduler)), (vec![1], vec![(2, 66, 4)]));
}

#[test]
fn a_lost_shard_needs_the_pixels_again() {
    let mut scheduler = with(&roomy(), [with_image(text(1, 8, 1), 1, 0, 4)]);
    upload(&mut scheduler);
    assert_eq!(scheduler.lose_shard(), []);
    assert_eq!(scheduler.take_uploads().len(), 1);
    scheduler.image_ready(image(1));
    assert_eq!(work(&step(&mut scheduler)).0, [1]);
}

#[test]
fn an_image_in_several_runs_is_needed_until_the_last() {
    let mut request = with_image(text(1, 20, 1), 1, 0, 6);
    let run = |offset, image_offset| Placeholder { offset, length: 3, image: image(1), image_offset };
    request.placeholders = vec![run(2, 0), run(12, 3)];
    let config = Config { max_step_tokens: 6, embedding_cache_tokens: 6, ..roomy() };
    let mut scheduler = with(&config, [request]);
    upload(&mut scheduler);
    let work: Vec<_> = (0..4).map(|_| work(&step(&mut scheduler))).collect();
    assert_eq!(work.iter().map(|(encoded, _)| encoded.len()).sum::<usize>(), 1);
    assert_eq!(scheduler.stats().running, 0);
}
