//! How often failed shards are started again: a few times in a window, each later than the one before. Pure: the
//! caller says what time it is.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Failures that happened longer ago than this are forgiven.
pub(crate) const RESTART_WINDOW: Duration = Duration::from_mins(10);
/// Wait before the first restart of a window; it doubles with each.
const FIRST_BACK_OFF: Duration = Duration::from_millis(500);
const LONGEST_BACK_OFF: Duration = Duration::from_secs(30);

/// The restarts that are left.
pub(crate) struct RestartBudget {
    max_restarts: u32,
    recent: VecDeque<Instant>,
}

impl RestartBudget {
    pub(crate) fn new(max_restarts: u32) -> Self {
        Self { max_restarts, recent: VecDeque::new() }
    }

    /// The most restarts in a window.
    pub(crate) fn max_restarts(&self) -> u32 {
        self.max_restarts
    }

    /// Takes one restart and says how long to wait before it; none is left when too many were taken lately.
    pub(crate) fn take(&mut self, now: Instant) -> Option<Duration> {
        self.recent.retain(|taken| now.duration_since(*taken) < RESTART_WINDOW);
        let taken = self.recent.len() as u32;
        if taken >= self.max_restarts {
            return None;
        }
        self.recent.push_back(now);
        Some(FIRST_BACK_OFF.saturating_mul(1 << taken.min(16)).min(LONGEST_BACK_OFF))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn waits_double_and_then_there_are_none() {
        let start = Instant::now();
        let mut budget = RestartBudget::new(3);
        let waits = [0, 5, 10, 15].map(|seconds| budget.take(start + seconds * SECOND));
        assert_eq!(waits, [Some(SECOND / 2), Some(SECOND), Some(2 * SECOND), None]);
    }

    #[test]
    fn old_failures_are_forgiven() {
        let start = Instant::now();
        let mut budget = RestartBudget::new(1);
        assert!(budget.take(start).is_some());
        assert!(budget.take(start + RESTART_WINDOW / 2).is_none());
        assert_eq!(budget.take(start + RESTART_WINDOW), Some(FIRST_BACK_OFF));
    }

    #[test]
    fn no_restarts_means_none() {
        assert!(RestartBudget::new(0).take(Instant::now()).is_none());
    }

    #[test]
    fn waits_have_a_ceiling() {
        let now = Instant::now();
        let mut budget = RestartBudget::new(100);
        let longest = (0..100).filter_map(|_| budget.take(now)).max();
        assert_eq!(longest, Some(LONGEST_BACK_OFF));
    }
}
