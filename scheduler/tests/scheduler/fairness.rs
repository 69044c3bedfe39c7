//! Nobody starves: one request that is hard to fit, against an endless stream of younger ones that are easy.

use crate::support::requests::{answer, roomy, text, with_image};
use text_generation_scheduler::{Config, Event, ImageKey, NewSequence, Placeholder, Scheduler, SequenceId};

const HARD: SequenceId = SequenceId(1_000_000);

struct Crowd {
    scheduler: Scheduler,
    make: fn(u64) -> NewSequence,
    next_id: u64,
    steps: u32,
    hard_is_over: bool,
    easy_over: u32,
    /// Images on their way and the step in which they arrive.
    uploads: Vec<(ImageKey, u32)>,
    upload_steps: u32,
}

impl Crowd {
    fn new(config: Config, make: fn(u64) -> NewSequence) -> Self {
        let scheduler = Scheduler::new(config).unwrap();
        Self {
            scheduler,
            make,
            next_id: 1,
            steps: 0,
            hard_is_over: false,
            easy_over: 0,
            uploads: Vec::new(),
            upload_steps: 0,
        }
    }

    /// One step, with a few easy requests always waiting.
    fn step(&mut self) {
        while self.scheduler.stats().waiting < 4 {
            self.scheduler.add((self.make)(self.next_id)).unwrap();
            self.next_id += 1;
        }
        self.steps += 1;
        self.upload();
        let Some(plan) = self.scheduler.schedule() else { return };
        for event in self.scheduler.commit(&answer(&plan, 5)) {
            if let Event::Token { sequence, finish: Some(_), .. } = event {
                self.hard_is_over |= sequence == HARD;
                self.easy_over += u32::from(sequence != HARD);
            }
        }
    }

    fn upload(&mut self) {
        let begun = self.scheduler.take_uploads();
        self.uploads.extend(begun.into_iter().map(|(key, _)| (key, self.steps + self.upload_steps)));
        let arrives = |(_, step): &mut (ImageKey, u32)| *step <= self.steps;
        for (key, _) in self.uploads.extract_if(.., arrives) {
            self.scheduler.image_ready(key);
        }
    }

    /// Steps until the hard request is over, when it comes to a shard that is busy already.
    fn run(mut self, hard: NewSequence) -> (u32, u32) {
        for _ in 0..50 {
            self.step();
        }
        self.scheduler.add(NewSequence { id: HARD, ..hard }).unwrap();
        let (steps, easy_over) = (self.steps, self.easy_over);
        while !self.hard_is_over {
            assert!(self.steps < steps + 2_000, "the hard request starves");
            self.step();
        }
        (self.steps - steps, self.easy_over - easy_over)
    }
}

fn images(id: u64, request: NewSequence, num_tokens: u32) -> NewSequence {
    let mut request = with_image(request, 0, 0, num_tokens);
    let key = ImageKey(std::array::from_fn(|byte| (id >> (byte % 4 * 8)) as u8));
    request.placeholders[0].image = key;
    request.images[0].key = key;
    request
}

#[test]
fn a_long_prompt_among_short_ones() {
    let crowd = Crowd::new(Config { num_blocks: 20, ..roomy() }, |id| text(id, 6, 10));
    let (steps, overtook) = crowd.run(text(1, 70, 3));
    assert!(steps < 150, "{steps} steps");
    assert!(overtook > 5, "short requests go on while the long one waits: {overtook}");
}

#[test]
fn a_whole_image_among_decode_rows() {
    let config = Config { max_step_tokens: 12, max_rows: 12, ..roomy() };
    let crowd = Crowd::new(config, |id| text(id, 1, 30));
    let hard = NewSequence { both_ways: vec![0..12], ..images(1, text(1, 14, 2), 12) };
    let (steps, _) = crowd.run(hard);
    // Some start together every thirty steps or so; then the last of them must end.
    assert!(steps < 250, "{steps} steps");
}

#[test]
fn a_large_image_among_small_ones() {
    let config = Config { max_step_tokens: 10, max_step_image_tokens: 4, ..roomy() };
    let crowd = Crowd::new(config, |id| images(1_000 + id, text(id, 12, 2), 3));
    let (steps, _) = crowd.run(images(1, text(1, 24, 2), 20));
    assert!(steps < 150, "{steps} steps");
}

#[test]
fn an_image_larger_than_the_embedding_cache() {
    let config = Config { max_step_tokens: 10, embedding_cache_tokens: 8, max_pending_upload_tokens: 8, ..roomy() };
    let crowd = Crowd::new(config, |id| images(1_000 + id, text(id, 12, 2), 3));
    let (steps, _) = crowd.run(images(1, text(1, 24, 2), 20));
    assert!(steps < 150, "{steps} steps");
}

/// Each image arrives late, and nothing of what came before is kept for it.
#[test]
fn many_images_among_requests_that_take_their_place() {
    let config = Config {
        num_blocks: 12,
        embedding_cache_tokens: 4,
        max_pending_upload_tokens: 1,
        prefix_caching: false,
        ..roomy()
    };
    let mut crowd = Crowd::new(config, |id| match id % 3 {
        0 => images(1_000 + id, text(id, 24, 3), 4),
        _ => text(id, 24, 3),
    });
    crowd.upload_steps = 3;
    let mut hard = text(1, 40, 2);
    for number in 0..4 {
        let other = images(10 + number, text(1, 40, 2), 4);
        hard.placeholders.push(Placeholder { offset: 9 * number as u32, ..other.placeholders[0].clone() });
        hard.images.extend(other.images);
    }
    let (steps, _) = crowd.run(hard);
    assert!(steps < 200, "{steps} steps");
}

/// All of them must be there at once, and others want some of them too, but for themselves alone.
#[test]
fn images_needed_at_once_among_requests_that_take_their_place() {
    let config = Config { embedding_cache_tokens: 4, max_pending_upload_tokens: 1, prefix_caching: false, ..roomy() };
    let mut crowd = Crowd::new(config, |id| match id % 3 {
        0 => images(10 + id % 4, text(id, 24, 3), 4),
        1 => images(1_000 + id, text(id, 24, 3), 4),
        _ => text(id, 24, 3),
    });
    crowd.upload_steps = 3;
    let mut hard = NewSequence { both_ways: vec![5..40], ..text(1, 45, 2) };
    for number in 0..4 {
        let other = images(10 + number, text(1, 45, 2), 4);
        hard.placeholders.push(Placeholder { offset: 9 * number as u32, ..other.placeholders[0].clone() });
        hard.images.extend(other.images);
    }
    let (steps, _) = crowd.run(hard);
    assert!(steps < 200, "{steps} steps");
}
