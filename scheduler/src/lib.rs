//! Which tokens run in the next step.
mod admission;
mod blocks;
mod commit;
mod draft;
mod hash;
mod idle_list;
mod images;
mod plan;
mod reach;
mod scheduler;
mod sequence;
mod sequences;
mod step;
mod types;

pub use plan::{Event, Row, RowPositions, RowTokens, Span, Stats, StepPlan};
pub use scheduler::Scheduler;
pub use types::{
    AddError, Config, ConfigError, FinishReason, ImageKey, ImageSpec, NewSequence, Placeholder, Positions, SequenceId,
    StepResult, TokenId,
};

/// Plans that may be uncommitted at once: the one the shard computes and the one that waits behind it.
pub const MAX_STEPS_IN_FLIGHT: usize = 2;
