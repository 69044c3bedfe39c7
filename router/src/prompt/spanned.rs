//! A text that knows which parts of it a user wrote. What is done about them is decided elsewhere.

use std::ops::Range;

/// A text, and which parts of it a user wrote.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Spanned {
    pub(super) text: String,
    /// Byte ranges in order, not overlapping, never touching.
    pub(super) user: Vec<Range<usize>>,
}

impl Spanned {
    /// Marks everything from `start` to the end of the text as the user's.
    pub(super) fn push_user(&mut self, start: usize) {
        let end = self.text.len();
        match self.user.last_mut() {
            Some(last) if last.end == start => last.end = end,
            _ if start == end => {}
            _ => self.user.push(start..end),
        }
    }

    /// Appends user text.
    pub(super) fn push_user_text(&mut self, text: &str) {
        let start = self.text.len();
        self.text.push_str(text);
        self.push_user(start);
    }
}
