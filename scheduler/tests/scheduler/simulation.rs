//! Random workloads on random shards: whatever is batched, cached, preempted or lost, every request gets exactly
//! the tokens it would get alone, and everything comes home.

use crate::support::shard::Odds;
use crate::support::world::{Chaos, Tally, World};

const ALL_CHAOS: Chaos =
    Chaos { shard: Odds { row: 60, encoding: 20, forced: 5 }, abort: 25, upload_failure: 15, shard_loss: 150 };

/// Runs the seeds and adds up what happened. A failure names its seed in the panic message before it.
#[track_caller]
fn simulate(seeds: std::ops::Range<u64>, chaos: Chaos) -> Tally {
    let mut total = Tally::default();
    for seed in seeds {
        let mut world = World::random(seed, chaos);
        let _seed_if_it_fails = SeedReport(seed);
        for _ in 0..200 {
            world.act();
        }
        world.drain();
        add(&mut total, &world.tally);
    }
    total
}

struct SeedReport(u64);

impl Drop for SeedReport {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the simulation failed with seed {}", self.0);
        }
    }
}

fn add(total: &mut Tally, tally: &Tally) {
    total.finished += tally.finished;
    total.failed += tally.failed;
    total.lost += tally.lost;
    total.image_failed += tally.image_failed;
    total.aborted += tally.aborted;
    total.rejected += tally.rejected;
    total.preemptions += tally.preemptions;
    total.prefix_hit_tokens += tally.prefix_hit_tokens;
    total.image_hits += tally.image_hits;
    total.image_misses += tally.image_misses;
    total.forced_tokens += tally.forced_tokens;
    total.scored_rows += tally.scored_rows;
    total.ranges += tally.ranges;
    total.ranges_of_many += tally.ranges_of_many;
    total.requested_tokens += tally.requested_tokens;
    total.computed_tokens += tally.computed_tokens;
}

#[test]
fn nothing_goes_wrong() {
    let tally = simulate(0..1_000, Chaos::default());
    // What is computed twice, after preemptions and beyond the end, stays less than what the cache saves.
    assert!(tally.computed_tokens < tally.requested_tokens, "{tally:?}");
    assert_eq!(tally.failed + tally.lost + tally.image_failed + tally.aborted, 0);
    let met = [tally.finished, tally.rejected, tally.preemptions, tally.prefix_hit_tokens];
    let others = [tally.image_hits, tally.image_misses, tally.ranges, tally.ranges_of_many, tally.scored_rows];
    assert!(met.iter().chain(&others).all(|count| *count > 500), "{tally:?}");
}

#[test]
fn clients_hang_up() {
    let tally = simulate(1_000..2_000, Chaos { abort: 5, ..Chaos::default() });
    assert!(tally.finished > 500 && tally.aborted > 500, "{tally:?}");
}

#[test]
fn tokens_are_forced() {
    let shard = Odds { forced: 2, ..Odds::default() };
    let tally = simulate(4_500..5_500, Chaos { shard, abort: 20, ..Chaos::default() });
    let met = [tally.finished, tally.aborted, tally.preemptions, tally.forced_tokens];
    assert!(met.iter().all(|count| *count > 500), "{tally:?}");
}

#[test]
fn everything_goes_wrong() {
    let tally = simulate(2_000..4_500, ALL_CHAOS);
    let met = [tally.finished, tally.failed, tally.lost, tally.image_failed, tally.aborted, tally.preemptions];
    assert!(met.iter().all(|count| *count > 500), "{tally:?}");
}
