//! The router of text-generation-vlm: HTTP in, token streams out, plans to the shards in between.
//!
//! `run` is the whole program; the launcher calls it in its own process, the `text-generation-router` binary is a thin
//! main over it. The way of a request is `api → images → prompt → engine → (scheduler) → shard`; nothing imports `api`
//! but this file and `config`, which wire the parts together.

pub mod api;
pub mod args;
pub mod config;
pub mod detokenize;
pub mod engine;
pub mod families;
pub mod grammar;
pub mod images;
pub mod prepared;
pub mod prompt;
mod run;
pub mod sampling;
pub mod server;
pub mod shard;
pub mod telemetry;
pub mod timeline;

pub use config::RouterConfig;
pub use run::{Control, Ready, run};
