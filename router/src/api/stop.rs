//! Stop strings, in the two ways clients know them. TGI's: the text must end with one exactly where a token ends, and
//! keeps it. OpenAI's: the text is cut in front of the first one wherever it lies, and no part of it is ever let out.
//! Both see text only; ending the sequence is the caller's business.

/// TGI's rule.
#[derive(Clone, Debug, Default)]
pub(super) struct BoundaryStops(Vec<String>);

impl BoundaryStops {
    pub(super) fn new(stops: Vec<String>) -> Self {
        Self(stops)
    }

    /// Whether `text`, which ends where a token ends, is the last text.
    pub(super) fn met(&self, text: &str) -> bool {
        self.0.iter().any(|stop| text.ends_with(stop.as_str()))
    }

    /// Bytes of text that have to be kept to judge the next token.
    pub(super) fn window(&self) -> usize {
        self.0.iter().map(String::len).max().unwrap_or(0)
    }
}

/// OpenAI's rule. Text that may be the beginning of a stop string is held back until it is known not to be.
#[derive(Clone, Debug)]
pub(super) struct StopCutter {
    stops: Vec<String>,
    held: String,
}

/// What may be shown after a push.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Cut {
    /// This text; more may follow.
    Open(String),
    /// This text, and nothing ever again: a stop string follows it.
    Stopped(String),
}

impl StopCutter {
    /// The strings must not be empty.
    pub(super) fn new(stops: Vec<String>) -> Self {
        Self { stops, held: String::new() }
    }

    /// Adds text that was generated.
    pub(super) fn push(&mut self, text: &str) -> Cut {
        if self.stops.is_empty() {
            return Cut::Open(text.to_owned());
        }
        let seen = self.held.len();
        self.held.push_str(text);
        if let Some(start) = self.first_stop(seen) {
            self.held.truncate(start);
            return Cut::Stopped(std::mem::take(&mut self.held));
        }
        let rest = self.held.split_off(self.held.len() - self.possible_prefix());
        Cut::Open(std::mem::replace(&mut self.held, rest))
    }

    /// What was held back; the text is over without a stop string.
    pub(super) fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }

    /// Where the stop string begins that is complete first; of several, the longest. Only ends behind `seen` are new.
    fn first_stop(&self, seen: usize) -> Option<usize> {
        let ends = self.stops.iter().filter_map(|stop| {
            // A match that ended before `seen` would have been found by the push that completed it.
            let from = self.held.floor_char_boundary((seen + 1).saturating_sub(stop.len()));
            let start = from + self.held[from..].find(stop.as_str())?;
            Some((start + stop.len(), start))
        });
        ends.min().map(|(_, start)| start)
    }

    /// Length of the longest end of the held text that a stop string may begin with.
    fn possible_prefix(&self) -> usize {
        let longest = |stop: &String| {
            let most = self.held.len().min(stop.len().saturating_sub(1));
            (1..=most).rev().find(|&length| {
                stop.is_char_boundary(length) && self.held.as_bytes().ends_with(&stop.as_bytes()[..length])
            })
        };
        self.stops.iter().filter_map(longest).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The slow twin: looks at every beginning of the text, shortest first.
    fn cut_at_first(text: &str, stops: &[String]) -> (String, bool) {
        for end in (0..=text.len()).filter(|&end| text.is_char_boundary(end)) {
            let longest = stops.iter().filter(|stop| text[..end].ends_with(stop.as_str())).map(String::len).max();
            if let Some(length) = longest {
                return (text[..end - length].to_owned(), true);
            }
        }
        (text.to_owned(), false)
    }

    /// Everything the cutter lets out for these pieces, and whether it stopped.
    fn run(pieces: &[String], stops: &[String]) -> (String, bool) {
        let mut cutter = StopCutter::new(stops.to_vec());
        let mut shown = String::new();
        for piece in pieces {
            match cutter.push(piece) {
                Cut::Open(text) => shown.push_str(&text),
                Cut::Stopped(text) => return (shown + &text, true),
            }
        }
        (shown + &cutter.finish(), false)
    }

    fn pieces() -> impl Strategy<Value = Vec<String>> {
        prop::collection::vec("[abé\n]{0,4}", 0..12)
    }

    fn stops() -> impl Strategy<Value = Vec<String>> {
        prop::collection::vec("[abé\n]{1,4}", 0..4)
    }

    proptest! {
        #[test]
        fn any_split_gives_the_text_before_the_first_stop(pieces in pieces(), stops in stops()) {
            prop_assert_eq!(run(&pieces, &stops), cut_at_first(&pieces.concat(), &stops));
        }

        #[test]
        fn nothing_is_held_longer_than_needed(pieces in pieces(), stops in stops()) {
            let mut cutter = StopCutter::new(stops.clone());
            for piece in &pieces {
                if matches!(cutter.push(piece), Cut::Stopped(_)) {
                    break;
                }
                let held = cutter.held.as_str();
                prop_assert!(held.is_empty() || stops.iter().any(|stop| stop.starts_with(held) && stop != held));
            }
        }
    }

    #[test]
    fn a_stop_across_tokens_never_shows() {
        let stops = ["</answer>".to_owned()];
        let pieces = ["42", " <", "/ans", "wer>", " more"].map(str::to_owned);
        assert_eq!(run(&pieces, &stops), ("42 ".to_owned(), true));
    }

    #[test]
    fn boundary_stops_match_at_token_ends_only() {
        let stops = BoundaryStops::new(vec!["photo".to_owned()]);
        assert!(stops.met("a photo"));
        assert!(!stops.met("a photo of"));
        assert!(!BoundaryStops::default().met("anything"));
        assert_eq!(stops.window(), 5);
    }
}
