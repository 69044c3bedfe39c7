//! Text around calls: markers are found in it before any part of them is let out, and blanks beside a call are the
//! format's, not the reader's.

use super::event::Events;

/// Text outside of calls.
#[derive(Debug)]
pub(super) struct Prose {
    markers: &'static [&'static str],
    /// What may be the beginning of a marker.
    held: String,
    /// Blanks that belong to a call if one follows.
    blank: String,
    called: bool,
}

impl Prose {
    pub(super) fn new(markers: &'static [&'static str]) -> Self {
        Self { markers, held: String::new(), blank: String::new(), called: false }
    }

    /// Reads a character; the marker that it completes.
    pub(super) fn read(&mut self, letter: char, events: &mut Events) -> Option<&'static str> {
        self.held.push(letter);
        let found = self.markers.iter().copied().find(|marker| self.held.ends_with(marker));
        let kept = found.map_or_else(|| self.possible_marker(), str::len);
        let rest = self.held.split_off(self.held.len() - kept);
        let text = std::mem::replace(&mut self.held, rest);
        self.show(&text, events);
        if found.is_some() {
            self.held.clear();
        }
        found
    }

    /// Lets out text that has no marker.
    pub(super) fn show(&mut self, text: &str, events: &mut Events) {
        let core = text.trim_end();
        if !core.is_empty() {
            events.text(&std::mem::take(&mut self.blank));
            events.text(core);
        }
        self.blank.push_str(&text[core.len()..]);
    }

    /// A call begins here.
    pub(super) fn call(&mut self) {
        self.blank.clear();
        self.called = true;
    }

    pub(super) fn has_called(&self) -> bool {
        self.called
    }

    /// The text is over. Blanks behind a call say nothing.
    pub(super) fn finish(&mut self, events: &mut Events) {
        let held = std::mem::take(&mut self.held);
        self.show(&held, events);
        if !self.called {
            events.text(&std::mem::take(&mut self.blank));
        }
    }

    /// Length of the longest end of what is held that a marker begins with.
    fn possible_marker(&self) -> usize {
        let starts = self.held.char_indices().map(|(at, _)| &self.held[at..]);
        let mut ends = starts.filter(|end| self.markers.iter().any(|marker| marker.starts_with(end)));
        ends.next().map_or(0, str::len)
    }
}
