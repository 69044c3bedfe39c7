use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::future::{join, join_all};
use text_generation_scheduler::ImageKey;

use super::*;
use crate::families::{ImageLayout, ImageSize};
use crate::images::prepare::ImageTimings;
use crate::images::view::RgbView;

/// An image whose views hold `bytes` bytes.
fn image(bytes: usize) -> PreparedImage {
    let size = ImageSize::new(1, 1);
    let view = RgbView { size, pixels: Bytes::from(vec![0; bytes]) };
    PreparedImage {
        key: ImageKey([bytes as u8; 32]),
        size,
        layout: Arc::new(ImageLayout { views: vec![], pieces: vec![] }),
        views: Arc::new(vec![view]),
        timings: ImageTimings::default(),
    }
}

fn key(number: u8) -> SourceKey {
    [number; 32]
}

#[test]
fn the_budget_holds_and_the_least_recently_used_goes_first() {
    let cache = ImageCache::new(3 * (1000 + ENTRY_BYTES));
    (1..=3).for_each(|number| cache.insert(key(number), image(1000)));
    assert!(cache.get(&key(1)).is_some(), "now 2 is the oldest");
    cache.insert(key(4), image(1000));
    let kept: Vec<bool> = (1..=4).map(|number| cache.get(&key(number)).is_some()).collect();
    assert_eq!(kept, [true, false, true, true]);
    assert!(lock(&cache.kept).bytes <= cache.budget);
}

#[test]
fn replacing_an_entry_does_not_count_it_twice() {
    let cache = ImageCache::new(2 * (1000 + ENTRY_BYTES));
    (0..10).for_each(|_| cache.insert(key(1), image(1000)));
    cache.insert(key(2), image(1000));
    assert!(cache.get(&key(1)).is_some() && cache.get(&key(2)).is_some());
}

#[test]
fn what_exceeds_the_budget_alone_is_not_kept() {
    let cache = ImageCache::new(1000);
    cache.insert(key(1), image(1000));
    assert!(cache.get(&key(1)).is_none());
    let off = ImageCache::new(0);
    off.insert(key(1), image(0));
    assert!(off.get(&key(1)).is_none());
}

#[tokio::test]
async fn simultaneous_images_are_prepared_once() {
    let (flights, prepared) = (Flights::default(), AtomicUsize::new(0));
    let share = || async {
        let flight = flights.join(key(1));
        flight
            .outcome(async {
                prepared.fetch_add(1, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(20)).await;
                Ok(image(3))
            })
            .await
    };
    assert!(join_all((0..8).map(|_| share())).await.iter().all(Result::is_ok));
    assert_eq!(prepared.load(Ordering::SeqCst), 1);
    assert!(lock(&flights.0).is_empty(), "the last share forgets the flight");
}

#[tokio::test]
async fn a_preparation_that_is_given_up_is_taken_over() {
    let flights = Flights::default();
    let given_up = async {
        let flight = flights.join(key(1));
        let hangs = flight.outcome(std::future::pending());
        assert!(tokio::time::timeout(Duration::from_millis(20), hangs).await.is_err());
    };
    let waiting = async {
        tokio::time::sleep(Duration::from_millis(5)).await;
        flights.join(key(1)).outcome(async { Ok(image(3)) }).await
    };
    let ((), outcome) = join(given_up, waiting).await;
    assert!(outcome.is_ok());
    assert!(lock(&flights.0).is_empty());
}
