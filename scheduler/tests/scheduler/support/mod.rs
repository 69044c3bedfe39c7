//! A shard that remembers what was written where, a language model that is a hash, and workloads for both.

pub(crate) mod model;
pub(crate) mod requests;
pub(crate) mod rng;
pub(crate) mod shard;
pub(crate) mod workload;
pub(crate) mod world;
