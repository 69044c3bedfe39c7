//! Nobody starves: one request that is hard to fit, against an endless stream of younger ones that are easy.

use crate::support::requests::{answer, roomy, text, with_image};
use text_generation_scheduler::{Config, Event, NewSequence, Scheduler, SequenceId};

const HARD: SequenceId = SequenceId(1_000_000);

struct Crowd {
    scheduler: Scheduler,
    make: fn(u64) -> NewSequence,
    next_id: u64,
    steps: u32,
    hard_is_over: bool,
    easy_over: u32,
}

impl Crowd {
    fn new(config: Config, make: fn(u64) -> NewSequence) -> Self {
        let scheduler = Scheduler::new(config).unwrap();
        Self { scheduler, make, next_id: 1, steps: 0, hard_is_over: false, easy_over: 0 }
    }

    /// One step, with a few easy requests always waiting.
    fn step(&mut self) {
        while self.scheduler.stats().waiting < 4 {
            self.scheduler.add((self.make)(self.next_id)).unwrap();
            self.next_id += 1;
        }
        for (key, _) in self.scheduler.take_uploads() {
            self.scheduler.image_ready(key);
        }
        self.steps += 1;
        let plan = self.scheduler.schedule().unwrap();
        for event in self.scheduler.commit(&answer(&plan, 5)) {
            if let Event::Token { sequence, finish: Some(_), .. } = event {
                self.hard_is_over |= sequence == HARD;
                self.easy_over += u32::from(sequence != HARD);
            }
        }
    }

    /// Steps until the hard request is over, when it comes to a shard that is busy already.
    fn run(mut self, hard: NewSequence) -> (u32, u32) {
        for _ in 0..50 {
            self.step();
        }
        self.scheduler.add(NewSequence { id: HARD, ..hard }).unwrap();
        (self.steps, self.easy_over) = (0, 0);
        while !self.hard_is_over {
            assert!(self.steps < 2_000, "the hard request starves");
            self.step();
        }
        (self.steps, self.easy_over)
    }
}

fn images(id: u64, request: NewSequence, num_tokens: u32) -> NewSequence {
    let mut request = with_image(request, 0, 0, num_tokens);
    let key = text_generation_scheduler::ImageKey(std::array::from_fn(|byte| (id >> (byte % 4 * 8)) as u8));
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
    let hard = NewSequence { whole_images: true, ..images(1, text(1, 14, 2), 12) };
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
