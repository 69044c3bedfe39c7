//! Tokens that attend to each other: never cut apart, and their images are used at once.

use crate::support::requests::{answer, image, roomy, rows, text, with_image};
use text_generation_scheduler::{Config, NewSequence, Scheduler, SequenceId, StepPlan};

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

/// Images 1 to 3, of 5 tokens each, are used at once.
fn used_at_once() -> NewSequence {
    let request = with_image(with_image(with_image(text(1, 30, 1), 1, 6, 5), 2, 14, 5), 3, 19, 5);
    NewSequence { both_ways: vec![4..26], ..request }
}

#[test]
fn images_that_are_used_at_once_are_encoded_at_once() {
    let config = Config { max_step_image_tokens: 8, embedding_cache_tokens: 12, ..roomy() };
    let mut scheduler = with(&config, [used_at_once()]);
    upload(&mut scheduler);
    assert_eq!(work(&step(&mut scheduler)), (vec![1, 2, 3], vec![(1, 0, 30)]));
    let mut scheduler = with(&config, [with_image(text(2, 6, 1), 4, 0, 5), used_at_once()]);
    upload(&mut scheduler);
    assert_eq!(work(&step(&mut scheduler)), (vec![4], vec![(2, 0, 6), (1, 0, 4)]));
    assert_eq!(work(&step(&mut scheduler)), (vec![1, 2, 3], vec![(1, 4, 26)]));
}

#[test]
fn nothing_is_encoded_before_all_pixels_are_there() {
    let mut scheduler = with(&roomy(), [NewSequence { both_ways: vec![12..26], ..used_at_once() }]);
    scheduler.take_uploads();
    scheduler.image_ready(image(1));
    assert_eq!(work(&step(&mut scheduler)), (vec![1], vec![(1, 0, 12)]));
    assert_eq!(scheduler.schedule(), None);
    scheduler.image_ready(image(2));
    assert_eq!((scheduler.schedule(), scheduler.stats().waiting_for_images), (None, 1));
    scheduler.image_ready(image(3));
    let plan = step(&mut scheduler);
    assert_eq!(work(&plan), (vec![2, 3], vec![(1, 12, 18)]));
    assert_eq!(plan.rows[0].both_ways, [0..14]);
}

#[test]
fn a_range_waits_for_a_step_with_room() {
    let mut scheduler = with(&Config { max_step_tokens: 24, ..roomy() }, [text(2, 3, 9), used_at_once()]);
    upload(&mut scheduler);
    assert_eq!(work(&step(&mut scheduler)), (vec![], vec![(2, 0, 3), (1, 0, 4)]));
    let plan = step(&mut scheduler);
    assert_eq!(work(&plan), (vec![1, 2, 3], vec![(2, 3, 1), (1, 4, 23)]));
    assert_eq!((plan.rows[0].both_ways.as_slice(), plan.rows[1].both_ways.as_slice()), (&[][..], &[0..22][..]));
}

/// The range of `used_at_once` begins behind 4 tokens that need image 5.
fn started_and_waiting(config: &Config) -> Scheduler {
    let request = with_image(used_at_once(), 5, 0, 4);
    let mut placeholders = request.placeholders;
    placeholders.rotate_right(1);
    let mut scheduler = with(config, [NewSequence { placeholders, ..request }]);
    scheduler.take_uploads();
    scheduler.image_ready(image(5));
    assert_eq!(work(&step(&mut scheduler)), (vec![5], vec![(1, 0, 4)]));
    scheduler
}

#[test]
fn pixels_of_a_range_do_not_make_way_for_each_other() {
    let mut scheduler = started_and_waiting(&Config { max_pending_upload_tokens: 1, ..roomy() });
    scheduler.add(with_image(text(2, 8, 1), 9, 0, 5)).unwrap();
    for number in [1, 2, 3] {
        assert_eq!(scheduler.schedule(), None);
        assert_eq!(scheduler.take_uploads()[0].0, image(number));
        scheduler.image_ready(image(number));
    }
    assert_eq!(work(&step(&mut scheduler)), (vec![1, 2, 3], vec![(1, 4, 26)]));
}

#[test]
fn an_embedding_stays_until_the_rest_of_its_range_is_there() {
    let mut scheduler = started_and_waiting(&Config { embedding_cache_tokens: 9, ..roomy() });
    scheduler.add(with_image(text(2, 8, 1), 1, 0, 5)).unwrap();
    scheduler.add(with_image(text(3, 8, 1), 9, 0, 5)).unwrap();
    scheduler.take_uploads();
    scheduler.image_ready(image(1));
    // A younger one has it encoded, and the youngest would like to have its place.
    assert_eq!(work(&step(&mut scheduler)), (vec![1], vec![(2, 0, 8)]));
    scheduler.image_ready(image(9));
    assert_eq!(rows(&step(&mut scheduler)), [], "it only forgets");
    scheduler.image_ready(image(2));
    assert_eq!(scheduler.schedule(), None);
    scheduler.image_ready(image(3));
    assert_eq!(work(&step(&mut scheduler)), (vec![2, 3], vec![(1, 4, 26)]));
    assert_eq!(work(&step(&mut scheduler)), (vec![9], vec![(3, 0, 8)]));
}

#[test]
fn blocks_of_ranges_that_end_differently_are_not_mixed_up() {
    let mut scheduler = Scheduler::new(roomy()).unwrap();
    let ends_with = |id, last| {
        let mut request = text(1, 12, 1);
        request.prompt[6] = last;
        NewSequence { id: SequenceId(id), both_ways: vec![1..7], ..request }
    };
    let mut tables = Vec::new();
    for (id, last) in [(1, 7), (2, 8), (3, 8)] {
        scheduler.add(ends_with(id, last)).unwrap();
        tables.push(step(&mut scheduler).rows[0].new_blocks.clone());
    }
    assert_eq!(tables[2][..2], tables[1][..2]);
}
