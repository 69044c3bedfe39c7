//! Pixels on their way to the shards, and which request's pictures may still be asked for.

use std::collections::HashMap;
use std::time::Instant;

use text_generation_scheduler::ImageKey;
use tokio::task::{Id, JoinSet};

use crate::images::LoadedImage;
use crate::shard::{ShardError, ShardGroup, put_image};
use crate::timeline::{Timeline, Track};

/// Pictures of live sequences by key. A sequence that is preempted may need its pixels sent once more, so they
/// stay until no sequence uses them.
#[derive(Debug, Default)]
pub(super) struct Pictures(HashMap<ImageKey, Picture>);

#[derive(Debug)]
struct Picture {
    image: LoadedImage,
    num_tokens: u32,
    users: usize,
}

impl Pictures {
    pub(super) fn hold(&mut self, image: &LoadedImage, num_tokens: u32) {
        let new = || Picture { image: image.clone(), num_tokens, users: 0 };
        self.0.entry(image.key).or_insert_with(new).users += 1;
    }

    pub(super) fn release(&mut self, key: ImageKey) {
        let Some(picture) = self.0.get_mut(&key) else { return };
        picture.users -= 1;
        if picture.users == 0 {
            self.0.remove(&key);
        }
    }
}

/// Uploads under way. Dropping it, on shard loss say, gives them up.
#[derive(Debug)]
pub(super) struct Uploads {
    tasks: JoinSet<Result<(), ShardError>>,
    under_way: HashMap<Id, UnderWay>,
    timeline: Timeline,
    started: u64,
}

#[derive(Debug)]
struct UnderWay {
    key: ImageKey,
    started: Instant,
    number: u64,
    bytes: u64,
}

impl Uploads {
    pub(super) fn new(timeline: Timeline) -> Self {
        Self { tasks: JoinSet::new(), under_way: HashMap::new(), timeline, started: 0 }
    }

    /// Starts sending a picture; `false` when no live sequence has it any more.
    pub(super) fn start(&mut self, shards: &ShardGroup, pictures: &Pictures, key: ImageKey, rank: u32) -> bool {
        let Some(picture) = pictures.0.get(&key) else { return false };
        let (shards, image, num_tokens) = (shards.clone(), picture.image.clone(), picture.num_tokens);
        let bytes = image.views.iter().map(|view| view.pixels.len() as u64).sum();
        let task = self.tasks.spawn(async move { put_image(&shards, rank as usize, &image, num_tokens).await });
        self.started += 1;
        self.under_way.insert(task.id(), UnderWay { key, started: Instant::now(), number: self.started, bytes });
        true
    }

    /// The next finished upload and its error, if any; pends while none is under way. Cancel safe.
    pub(super) async fn next(&mut self) -> (ImageKey, Option<String>) {
        let (task, failure) = match self.tasks.join_next_with_id().await {
            None => std::future::pending().await,
            Some(Ok((task, outcome))) => (task, outcome.err().map(|error| error.to_string())),
            Some(Err(panic)) => (panic.id(), Some(panic.to_string())),
        };
        match self.under_way.remove(&task) {
            Some(UnderWay { key, started, number, bytes }) => {
                let times = (started, Instant::now());
                self.timeline.add(Track::Upload(number), "upload", times, &[("bytes", bytes)]);
                (key, failure)
            }
            None => std::future::pending().await,
        }
    }
}
