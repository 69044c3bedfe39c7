//! The launcher: prepares the model, starts one shard per rank, runs the router in its own process, restarts failed
//! shards a bounded number of times, drains on SIGTERM. It knows neither HTTP nor tensors.
//!
//! The spine is [`launch::launch`], then [`supervise::supervise`]. The router comes in as a closure, so that supervision is
//! tested with shell scripts for shards and a future that sleeps for a router.

pub mod args;
mod command;
mod devices;
pub mod error;
mod group;
pub mod launch;
pub mod logs;
mod output;
mod preflight;
mod prepare;
pub mod program;
pub mod progress;
pub mod report;
mod restarts;
pub mod serving;
mod sockets;
mod spawner;
pub mod stop;
pub mod supervise;
