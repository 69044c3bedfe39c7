//! Why a launch fails. Each text is the one line that the user sees, so it says what to do where that is known.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

/// The reasons for exit code 1.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// Somebody else listens there.
    #[error("cannot listen on {address}: {reason}; choose another port with --port")]
    Address {
        /// Where the router was to listen.
        address: SocketAddr,
        /// What the system said.
        reason: io::Error,
    },
    /// The shard program is not where it should be.
    #[error("cannot find {0}: install the Python package, or name the program with --text-generation-server")]
    NoServer(PathBuf),
    /// A program did not start.
    #[error("cannot start {program}: {reason}")]
    Spawn {
        /// Its path.
        program: PathBuf,
        /// What the system said.
        reason: io::Error,
    },
    /// The number of shards does not fit the machine.
    #[error("{0}")]
    WorldSize(String),
    /// Resolving or downloading the model failed; `prepare` says why.
    #[error("{0}")]
    Prepare(String),
    /// A shard ended before the server was ready.
    #[error("shard {rank} {how} while loading{said}")]
    ShardCannotStart {
        /// Which.
        rank: u32,
        /// Its exit code or signal, in words.
        how: String,
        /// The last thing it complained about, after a colon, if it said anything.
        said: String,
    },
    /// Shards kept failing.
    #[error("shard {rank} {how}; giving up after {restarts} restarts in ten minutes{said}")]
    ShardFailed {
        /// Which.
        rank: u32,
        /// Its exit code or signal, in words.
        how: String,
        /// How many were tried.
        restarts: u32,
        /// The last thing it complained about, after a colon, if it said anything.
        said: String,
    },
    /// The router ended by itself.
    #[error("the router ended: {0}")]
    Router(String),
    /// A folder, pipe or thread was not to be had.
    #[error("{what}: {reason}")]
    System {
        /// What was tried.
        what: &'static str,
        /// What the system said.
        reason: io::Error,
    },
}

impl LaunchError {
    /// For `map_err`: names what was tried.
    pub(crate) fn system(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |reason| Self::System { what, reason }
    }
}
