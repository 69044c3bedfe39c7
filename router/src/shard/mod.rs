//! The router's side of the wire: connecting to every rank, fanning plans out, putting results together.
//!
//! Protobuf types stay in this module. A rank is dead as soon as its `Run` stream ends without being asked to,
//! whatever status code comes with it.

mod encode;
mod group;
mod layout;
mod scores;
mod steps;
mod upload;

pub use encode::{EncodedSequence, encode_plan};
pub use group::{ModelFacts, ShardGroup, WarmupSpec};
pub use layout::ShardProcessor;
pub use scores::RowScores;
pub use steps::{SequenceFailure, ShardSpan, ShardStep, StepStream};
pub use upload::put_image;

/// What can go wrong between router and shards.
#[derive(Debug, thiserror::Error)]
pub enum ShardError {
    /// No rank answered in time.
    #[error("shard {rank} did not come up: {reason}")]
    Unreachable {
        /// The rank.
        rank: usize,
        /// What the transport said.
        reason: String,
    },
    /// A call was refused.
    #[error("shard {rank} refused {call}: {reason}")]
    Refused {
        /// The rank.
        rank: usize,
        /// The call's name.
        call: &'static str,
        /// The status message.
        reason: String,
    },
    /// The ranks do not agree with each other or with the plan.
    #[error("shards disagree: {0}")]
    Disagree(String),
    /// A `Run` stream ended.
    #[error("shard {rank} was lost: {reason}")]
    Lost {
        /// The rank.
        rank: usize,
        /// What the transport said.
        reason: String,
    },
}
