//! Generated Rust types, client and server of `shard.proto`. The server half exists for tests and benchmarks:
//! a shard that costs nothing.

#[allow(clippy::all, clippy::pedantic, unreachable_pub, missing_docs)]
mod generated {
    tonic::include_proto!("text_generation_vlm.v1");
}

pub use generated::*;

/// Largest gRPC message either side accepts. Pixels travel in pieces of [`IMAGE_CHUNK_BYTES`], so only a plan
/// with a very large prefill comes anywhere near it.
pub const MAX_MESSAGE_BYTES: usize = 64 << 20;

/// Size of one piece of pixels. One large message stalls decoding by hundreds of milliseconds; pieces do not.
pub const IMAGE_CHUNK_BYTES: usize = 1 << 20;
