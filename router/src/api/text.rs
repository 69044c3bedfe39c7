//! Bounds on text that goes back to clients or into logs. Knows nothing about what the text says.

/// Longest piece of a request that is repeated to its sender.
pub(super) const MAX_ECHO_BYTES: usize = 100;

const ELLIPSIS: &str = "…";

/// The text, cut to `max_bytes` with an ellipsis where something is missing.
pub(super) fn shorten(text: &str, max_bytes: usize) -> String {
    if text.len() <= max_bytes {
        return text.to_owned();
    }
    let end = text.floor_char_boundary(max_bytes.saturating_sub(ELLIPSIS.len()));
    format!("{}{ELLIPSIS}", &text[..end])
}

/// The text without its middle: a parser's message repeats what it read in front and says what it wanted at the end.
pub(super) fn shorten_middle(text: &str, head: usize, tail: usize) -> String {
    if text.len() <= head + tail + ELLIPSIS.len() {
        return text.to_owned();
    }
    let (end, start) = (text.floor_char_boundary(head), text.ceil_char_boundary(text.len() - tail));
    format!("{}{ELLIPSIS}{}", &text[..end], &text[start..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_texts_stay() {
        assert_eq!(shorten("abc", 3), "abc");
        assert_eq!(shorten_middle("abcdef", 3, 3), "abcdef");
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        assert_eq!(shorten("ééééé", 8), "éé…");
        assert_eq!(shorten_middle("éééééééééé", 3, 3), "é…é");
    }

    #[test]
    fn a_cut_text_keeps_its_bound() {
        for length in 4..40 {
            assert!(shorten(&"ä€x".repeat(20), length).len() <= length);
        }
    }
}
