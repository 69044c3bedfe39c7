//! The `![alt](url)` form in which images arrive on text-generation routes.
//!
//! Not Markdown: no titles, references or escapes. Two passes, linear in the input whatever it holds, so that a data
//! URI of many megabytes or a million open brackets cost what their bytes cost. What does not match stays text.

use super::conversation::Segment;

/// Splits `inputs` at its images. URLs come back in the order of the image segments.
pub(super) fn segments(inputs: &str) -> (Vec<Segment>, Vec<String>) {
    let mut openings = openings(inputs);
    find_closings(inputs, &mut openings);
    let (mut segments, mut urls, mut text_start) = (Vec::new(), Vec::new(), 0);
    for opening in &openings {
        // Inside the URL of the image before.
        let Some(close) = opening.close.filter(|_| opening.start >= text_start) else { continue };
        push_text(&mut segments, &inputs[text_start..opening.start]);
        segments.push(Segment::Image);
        urls.push(inputs[opening.after..close].trim().to_owned());
        text_start = close + 1;
    }
    push_text(&mut segments, &inputs[text_start..]);
    (segments, urls)
}

fn push_text(segments: &mut Vec<Segment>, text: &str) {
    if !text.is_empty() {
        segments.push(Segment::Text(text.to_owned()));
    }
}

/// `![alt](` somewhere, and where its parenthesis closes.
struct Opening {
    start: usize,
    after: usize,
    close: Option<usize>,
}

/// Every `![alt](`. The alt text holds no bracket, so an image inside an alt text is found as an image itself.
fn openings(inputs: &str) -> Vec<Opening> {
    let (mut found, mut from) = (Vec::new(), 0);
    while let Some(offset) = inputs[from..].find("](") {
        let bracket = from + offset;
        let after = bracket + "](".len();
        let alt = inputs[from..bracket].rfind(['[', ']']).map(|offset| from + offset);
        if let Some(at) = alt.filter(|&at| inputs[at..].starts_with('[') && inputs[from..at].ends_with('!')) {
            found.push(Opening { start: at - 1, after, close: None });
        }
        from = after;
    }
    found
}

/// Matches parentheses once for the whole text: scanning on from each opening would take quadratic time.
fn find_closings(inputs: &str, openings: &mut [Opening]) {
    let Some(first) = openings.first().map(|opening| opening.after - 1) else { return };
    let (mut next, mut depth, mut unclosed) = (0, 0_usize, Vec::new());
    for (at, byte) in inputs.bytes().enumerate().skip(first) {
        match byte {
            b'(' => {
                depth += 1;
                if openings.get(next).is_some_and(|opening| opening.after == at + 1) {
                    unclosed.push((next, depth));
                    next += 1;
                }
            }
            b')' => {
                if let Some((index, _)) = unclosed.pop_if(|(_, opened)| *opened == depth) {
                    openings[index].close = Some(at);
                }
                depth = depth.saturating_sub(1);
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(inputs: &str, expected: &[&str]) {
        let (segments, urls) = segments(inputs);
        let mut urls = urls.iter();
        let shown: Vec<String> = segments
            .iter()
            .map(|segment| match segment {
                Segment::Text(text) => format!("T:{text}"),
                Segment::Image => format!("I:{}", urls.next().expect("a URL for every image")),
            })
            .collect();
        assert_eq!(shown, expected);
        assert!(urls.next().is_none(), "a URL without an image");
    }

    #[test]
    fn an_image_between_texts() {
        check("a![](http://x/y.png)b", &["T:a", "I:http://x/y.png", "T:b"]);
    }

    #[test]
    fn adjacent_images_have_no_text_between() {
        check("![](u)![](v)", &["I:u", "I:v"]);
    }

    #[test]
    fn alt_text_is_dropped() {
        check("see ![a rabbit, 2 ears](u)?", &["T:see ", "I:u", "T:?"]);
        check("![über\nzwei Zeilen](u)", &["I:u"]);
    }

    #[test]
    fn parentheses_in_urls_balance() {
        check("![](http://x/a_(b)_(c(d)).png) end)", &["I:http://x/a_(b)_(c(d)).png", "T: end)"]);
        check("(see ![](u))", &["T:(see ", "I:u", "T:)"]);
    }

    #[test]
    fn blanks_around_urls_go() {
        check("![]( u\n)", &["I:u"]);
        check("![]()", &["I:"]);
    }

    #[test]
    fn what_does_not_match_is_text() {
        for text in
            ["", "![", "![]", "![](u", "[](u)", "! [](u)", "!(u)", "![] (u)", "![a]b](u)", "](", "![](((", "!]("]
        {
            check(
                text,
                if text.is_empty() { vec![] } else { vec![format!("T:{text}")] }
                    .iter()
                    .map(String::as_str)
                    .collect::<Vec<_>>()
                    .as_slice(),
            );
        }
    }

    #[test]
    fn an_unclosed_image_does_not_hide_the_next() {
        check("![](a ![](b)", &["T:![](a ", "I:b"]);
        check("![a ![b](u)", &["T:![a ", "I:u"]);
        check("![x](![](b))", &["I:![](b)"]);
    }

    #[test]
    fn segments_put_together_are_the_input() {
        let inputs = "a ![x](b) c ![](d)![é](e) ![](f";
        let (segments, urls) = segments(inputs);
        assert_eq!(urls, ["b", "d", "e"]);
        assert_eq!(segments.iter().filter(|segment| **segment == Segment::Image).count(), urls.len());
    }

    /// A quadratic scan of these would take minutes; the bound is loose because test machines are shared.
    #[test]
    fn hostile_input_is_linear() {
        let million = 1 << 20;
        for unit in ["![](", "![", "](", "![]", "(", ")", "![](a)", "!", "![](()"] {
            let inputs = unit.repeat(4 * million / unit.len());
            let started = std::time::Instant::now();
            let (segments, _) = segments(&inputs);
            assert!(!segments.is_empty());
            assert!(started.elapsed().as_secs() < 20, "{unit:?} took {:?}", started.elapsed());
        }
    }

    #[test]
    fn a_long_data_uri_is_one_url() {
        let uri = format!("data:image/png;base64,{}", "A".repeat(3 << 20));
        let (segments, urls) = segments(&format!("![]({uri})What is this?"));
        assert_eq!(segments, [Segment::Image, Segment::Text("What is this?".to_owned())]);
        assert_eq!(urls, [uri]);
    }
}
