//! Pixels on their way to the shards, and which request's pictures may still be asked for.

use std::collections::HashMap;

use text_generation_scheduler::ImageKey;
use tokio::task::{Id, JoinSet};

use crate::images::LoadedImage;
use crate::shard::{ShardError, ShardGroup, put_image};

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
#[derive(Debug, Default)]
pub(super) struct Uploads {
    tasks: JoinSet<Result<(), ShardError>>,
    keys: HashMap<Id, ImageKey>,
}

impl Uploads {
    /// Starts sending a picture; `false` when no live sequence has it any more.
    pub(super) fn start(&mut self, shards: &ShardGroup, pictures: &Pictures, key: ImageKey, rank: u32) -> bool {
        let Some(picture) = pictures.0.get(&key) else { return false };
        let (shards, image, num_tokens) = (shards.clone(), picture.image.clone(), picture.num_tokens);
        let task = self.tasks.spawn(async move { put_image(&shards, rank as usize, &image, num_tokens).await });
        self.keys.insert(task.id(), key);
        true
    }

    /// The next finished upload and its error, if any; pends while none is under way. Cancel safe.
    pub(super) async fn next(&mut self) -> (ImageKey, Option<String>) {
        let (task, failure) = match self.tasks.join_next_with_id().await {
            None => std::future::pending().await,
            Some(Ok((task, outcome))) => (task, outcome.err().map(|error| error.to_string())),
            Some(Err(panic)) => (panic.id(), Some(panic.to_string())),
        };
        match self.keys.remove(&task) {
            Some(key) => (key, failure),
            None => std::future::pending().await,
        }
    }
}
