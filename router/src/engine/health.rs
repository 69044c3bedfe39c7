//! Whether the engine is alive, answered from what was last seen and never by asking: a probe must not queue
//! behind requests.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A heartbeat older than this means trouble.
const MAX_HEARTBEAT_AGE: Duration = Duration::from_secs(10);

/// What a probe is told.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub struct Health {
    /// The shards hold the model and their step streams are open.
    pub connected: bool,
    /// Time since every shard last answered a health check.
    pub heartbeat_age: Duration,
    /// Steps since the start; a stuck loop stops counting.
    pub steps: u64,
}

impl Health {
    /// Whether requests can be expected to finish.
    pub fn is_healthy(&self) -> bool {
        self.connected && self.heartbeat_age <= MAX_HEARTBEAT_AGE
    }
}

#[derive(Debug)]
pub(super) struct Monitor {
    born: Instant,
    connected: AtomicBool,
    /// Milliseconds from `born` to the latest good heartbeat.
    heartbeat_ms: AtomicU64,
    steps: AtomicU64,
}

impl Monitor {
    pub(super) fn new() -> Self {
        let (connected, heartbeat_ms, steps) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
        Self { born: Instant::now(), connected, heartbeat_ms, steps }
    }

    pub(super) fn set_connected(&self, connected: bool) {
        self.connected.store(connected, Ordering::Relaxed);
        if connected {
            self.beat();
        }
    }

    pub(super) fn beat(&self) {
        self.heartbeat_ms.store(self.born.elapsed().as_millis() as u64, Ordering::Relaxed);
    }

    pub(super) fn count_step(&self) -> u64 {
        self.steps.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub(super) fn report(&self) -> Health {
        let heartbeat = Duration::from_millis(self.heartbeat_ms.load(Ordering::Relaxed));
        Health {
            connected: self.connected.load(Ordering::Relaxed),
            heartbeat_age: self.born.elapsed().saturating_sub(heartbeat),
            steps: self.steps.load(Ordering::Relaxed),
        }
    }
}
