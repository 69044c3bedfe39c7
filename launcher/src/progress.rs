//! Progress of downloads and loading: bars on a terminal, otherwise a log line every few seconds.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Deserialize;

/// Time between two log lines about the same thing.
const LINE_INTERVAL: Duration = Duration::from_secs(5);
const TEMPLATE: &str = "{prefix:>24} [{wide_bar}] {bytes}/{total_bytes} {bytes_per_sec} {eta}";

/// How far something is.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
pub(crate) struct Progress {
    pub(crate) done: u64,
    pub(crate) total: u64,
    /// What is being loaded or downloaded, for people. Children that leave it out say it in their message.
    #[serde(default)]
    pub(crate) what: String,
}

/// Where progress is shown. Copies show it in the same place.
#[derive(Clone)]
pub struct ProgressBoard {
    bars: MultiProgress,
    drawn: bool,
    tracks: Arc<Mutex<HashMap<String, Track>>>,
}

enum Track {
    Bar(ProgressBar),
    Lines { said: Instant },
}

impl ProgressBoard {
    /// A board that draws bars on standard error, or else only logs.
    pub fn new(draw: bool) -> Self {
        let target = if draw { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        Self { bars: MultiProgress::with_draw_target(target), drawn: draw, tracks: Arc::default() }
    }

    /// Takes the bars away while `write` puts lines on the same terminal.
    pub fn suspend<T>(&self, write: impl FnOnce() -> T) -> T {
        if self.drawn { self.bars.suspend(write) } else { write() }
    }

    /// Shows how far `source` is.
    pub(crate) fn update(&self, source: &str, progress: &Progress) {
        let key = format!("{source} {}", progress.what);
        let mut tracks = self.lock();
        if self.drawn {
            let track = tracks.entry(key).or_insert_with_key(|key| Track::Bar(self.bar(key, progress.total)));
            track.draw(progress);
        } else if due(&mut tracks, &key, progress.done >= progress.total, Instant::now()) {
            drop(tracks);
            tracing::info!("{key}: {}", share(progress));
        }
    }

    /// Removes what is shown; what ended early would stay half drawn.
    pub(crate) fn clear(&self) {
        for (_, track) in self.lock().drain() {
            if let Track::Bar(bar) = track {
                bar.finish_and_clear();
                self.bars.remove(&bar);
            }
        }
    }

    fn bar(&self, name: &str, total: u64) -> ProgressBar {
        let style = ProgressStyle::with_template(TEMPLATE).unwrap_or_else(|_| ProgressStyle::default_bar());
        self.bars.add(ProgressBar::new(total).with_style(style.progress_chars("=> ")).with_prefix(name.to_owned()))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Track>> {
        self.tracks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Track {
    fn draw(&self, progress: &Progress) {
        let Self::Bar(bar) = self else { return };
        bar.set_length(progress.total);
        bar.set_position(progress.done);
        if progress.done >= progress.total {
            bar.finish_and_clear();
        }
    }
}

/// Whether a line about `key` is due: the first at once, then one each interval, and one at the end.
fn due(tracks: &mut HashMap<String, Track>, key: &str, finished: bool, now: Instant) -> bool {
    let waiting = match tracks.get(key) {
        Some(Track::Lines { said }) => now.duration_since(*said) < LINE_INTERVAL,
        _ => false,
    };
    if finished {
        return tracks.remove(key).is_some();
    }
    if !waiting {
        tracks.insert(key.to_owned(), Track::Lines { said: now });
    }
    !waiting
}

fn share(progress: &Progress) -> String {
    let percent = progress.done.saturating_mul(100) / progress.total.max(1);
    format!("{percent} % ({} of {} MB)", progress.done / 1_000_000, progress.total / 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_at_first_then_now_and_then_and_at_the_end() {
        let (start, mut tracks) = (Instant::now(), HashMap::new());
        let mut at = |seconds: u64, finished: bool| {
            due(&mut tracks, "shard 0 weights", finished, start + Duration::from_secs(seconds))
        };
        let said = [(0, false), (1, false), (4, false), (5, false), (9, false), (9, true), (9, true)];
        assert_eq!(said.map(|(seconds, end)| at(seconds, end)), [true, false, false, true, false, true, false]);
    }

    #[test]
    fn the_share_survives_an_empty_total() {
        let progress = |done, total| Progress { done, total, what: "weights".to_owned() };
        assert_eq!(share(&progress(0, 0)), "0 % (0 of 0 MB)");
        assert_eq!(share(&progress(250_000_000, 1_000_000_000)), "25 % (250 of 1000 MB)");
    }
}
