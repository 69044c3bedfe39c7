//! The two signals: the first asks for an orderly end, the second for an immediate one.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use crate::error::LaunchError;

/// Tells how often the launcher was asked to stop.
#[derive(Clone)]
pub struct Stop {
    requests: watch::Receiver<u32>,
}

impl Stop {
    /// A stop that follows `SIGTERM` and `SIGINT`. Must be called inside the runtime.
    ///
    /// # Errors
    /// The system refuses signal handlers.
    pub fn on_signals() -> Result<Self, LaunchError> {
        let install = |kind| signal(kind).map_err(LaunchError::system("cannot watch for signals"));
        let (terminate, interrupt) = (install(SignalKind::terminate())?, install(SignalKind::interrupt())?);
        let (sender, stop) = Self::by_hand();
        tokio::spawn(count(terminate, interrupt, sender));
        Ok(stop)
    }

    /// A stop that somebody counts up.
    pub fn by_hand() -> (watch::Sender<u32>, Self) {
        let (sender, requests) = watch::channel(0);
        (sender, Self { requests })
    }

    /// Returns once the orderly end was asked for.
    pub async fn asked(&self) {
        self.at_least(1).await;
    }

    /// Returns once the immediate end was asked for.
    pub async fn insisted(&self) {
        self.at_least(2).await;
    }

    /// Whether it was asked for already.
    pub fn is_insisted(&self) -> bool {
        *self.requests.borrow() >= 2
    }

    async fn at_least(&self, times: u32) {
        let mut requests = self.requests.clone();
        if requests.wait_for(|count| *count >= times).await.is_err() {
            // Nobody is left who could ask.
            std::future::pending::<()>().await;
        }
    }
}

async fn count(mut terminate: Signal, mut interrupt: Signal, requests: watch::Sender<u32>) {
    loop {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        requests.send_modify(|count| *count = count.saturating_add(1));
    }
}
