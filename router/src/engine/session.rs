//! One life of the shards: connected, warmed up, with an open step stream.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::shard::{ModelFacts, ShardError, ShardGroup, StepStream, WarmupSpec};

/// Pause between two attempts to get the shards back.
const RECONNECT_PAUSE: Duration = Duration::from_millis(200);

#[derive(Debug)]
pub(super) struct Session {
    pub(super) shards: ShardGroup,
    pub(super) stream: StepStream,
}

/// Where the shards are and how long to wait for them.
#[derive(Clone, Debug)]
pub(super) struct Reconnect {
    pub(super) addresses: Vec<String>,
    pub(super) timeout: Duration,
    pub(super) warmup: WarmupSpec,
    pub(super) facts: ModelFacts,
    pub(super) num_blocks: u32,
}

impl Reconnect {
    /// Waits for the shards to come back under a new epoch. They must be what they were.
    pub(super) async fn session(&self, epoch: u64) -> Result<Session, ShardError> {
        let deadline = Instant::now() + self.timeout;
        loop {
            match self.attempt(epoch).await {
                Err(error) if Instant::now() >= deadline => return Err(error),
                Err(error) => tracing::debug!(%error, "the shards are not back yet"),
                Ok(session) => return Ok(session),
            }
            sleep(RECONNECT_PAUSE).await;
        }
    }

    async fn attempt(&self, epoch: u64) -> Result<Session, ShardError> {
        let shards = ShardGroup::connect(&self.addresses, self.timeout).await?;
        if shards.facts().await? != self.facts {
            return Err(ShardError::Disagree("the restarted shards hold another model".into()));
        }
        let warmup = WarmupSpec { max_blocks: Some(self.num_blocks), ..self.warmup.clone() };
        let num_blocks = shards.warm_up(&warmup).await?;
        if num_blocks < self.num_blocks {
            return Err(ShardError::Disagree(format!("{num_blocks} KV blocks instead of {}", self.num_blocks)));
        }
        let stream = shards.open(epoch).await?;
        Ok(Session { shards, stream })
    }
}
