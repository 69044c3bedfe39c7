//! Finding user text again after a chat template has moved it about.
//!
//! A template is a program: it trims, joins and repeats what it is given. So the chat is rendered a second time with
//! two private-use characters around every piece of user text, and where those come out is where user text is. The
//! characters are chosen per request among those that occur nowhere in it, so there is nothing to guess or forge.

use std::borrow::Cow;
use std::collections::HashSet;
use std::ops::Range;

use super::encode::Encoder;
use super::python;
use super::spanned::Spanned;

/// The private-use planes that Unicode never assigns.
const PRIVATE_USE: [std::ops::RangeInclusive<char>; 2] = ['\u{E000}'..='\u{F8FF}', '\u{F0000}'..='\u{FFFFD}'];

/// Characters that occur in no text of one request.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(super) struct Marks {
    start: char,
    end: char,
    /// Where a message that is to be continued ends.
    pub(super) cut: char,
}

impl Marks {
    /// Three characters that are in none of the texts given to `each_text`; `None` if the texts use them all.
    pub(super) fn absent_from<'a>(each_text: impl FnOnce(&mut dyn FnMut(&'a str))) -> Option<Self> {
        let mut used = HashSet::new();
        each_text(&mut |text| used.extend(text.chars().filter(|&letter| is_private(letter))));
        let mut free = PRIVATE_USE.into_iter().flatten().filter(|letter| !used.contains(letter));
        Some(Self { start: free.next()?, end: free.next()?, cut: free.next()? })
    }

    fn is_mark(self, letter: char) -> bool {
        letter == self.start || letter == self.end
    }

    /// The text with marks inside its leading and trailing blanks, which templates trim.
    fn around(self, text: &str) -> String {
        let core = text.trim_matches(python::is_space);
        let lead = text.len() - text.trim_start_matches(python::is_space).len();
        let tail = &text[lead + core.len()..];
        format!("{}{}{core}{}{tail}", &text[..lead], self.start, self.end)
    }

    /// The text with marks around each of `ranges`, which are in order and do not overlap.
    fn around_ranges(self, text: &str, ranges: &[Range<usize>]) -> String {
        let mut marked = String::with_capacity(text.len() + 8 * ranges.len());
        let mut from = 0;
        for range in ranges {
            marked.push_str(&text[from..range.start]);
            marked.push(self.start);
            marked.push_str(&text[range.clone()]);
            marked.push(self.end);
            from = range.end;
        }
        marked.push_str(&text[from..]);
        marked
    }

    /// The rendered text without its marks, and the ranges that were between them. `None` when marks are missing or
    /// nested: the template cut through a user's text, and what lies between two marks need not be the user's.
    pub(super) fn strip(self, rendered: &str) -> Option<Spanned> {
        let mut spanned = Spanned { text: String::with_capacity(rendered.len()), user: Vec::new() };
        let mut open = None;
        for piece in rendered.split_inclusive(|letter| self.is_mark(letter)) {
            let mark = piece.chars().next_back().filter(|&letter| self.is_mark(letter));
            spanned.text.push_str(&piece[..piece.len() - mark.map_or(0, char::len_utf8)]);
            match (mark, open) {
                (Some(letter), None) if letter == self.start => open = Some(spanned.text.len()),
                (Some(letter), Some(start)) if letter == self.end => {
                    spanned.push_user(start);
                    open = None;
                }
                (None, None) => {}
                _ => return None,
            }
        }
        open.is_none().then_some(spanned)
    }
}

fn is_private(letter: char) -> bool {
    PRIVATE_USE.iter().any(|range| range.contains(&letter))
}

/// How user text is marked while a context is built.
pub(super) enum Marking<'a> {
    /// Not at all: what the model would be sent.
    Off,
    /// Around the whole text.
    Whole(Marks),
    /// Only around what could become, or become a part of, a control token; for templates that look at how a text
    /// begins or ends.
    Tokens(Marks, &'a ControlPieces<'a>),
    /// Every text is replaced by one letter: what the template writes by itself.
    Blank,
}

impl Marking<'_> {
    /// The text as it goes into the context.
    pub(super) fn apply<'t>(&self, text: &'t str) -> Cow<'t, str> {
        match self {
            Self::Off => Cow::Borrowed(text),
            _ if text.chars().all(python::is_space) => Cow::Borrowed(text),
            Self::Whole(marks) => Cow::Owned(marks.around(text)),
            Self::Tokens(marks, pieces) => Cow::Owned(marks.around_ranges(text, &pieces.find(text))),
            Self::Blank => Cow::Borrowed("x"),
        }
    }
}

/// Finds control tokens and pieces of them in a text.
pub(super) struct ControlPieces<'a> {
    encoder: &'a Encoder,
    /// What control tokens begin and end with, themselves excluded.
    heads: HashSet<&'a str>,
    tails: HashSet<&'a str>,
    /// All tokens with a NUL between them.
    joined: String,
    longest: usize,
}

impl<'a> ControlPieces<'a> {
    pub(super) fn new(encoder: &'a Encoder) -> Self {
        let tokens: Vec<&str> = encoder.control().texts().collect();
        let cuts = |token: &'a str| token.char_indices().map(|(at, _)| at).filter(|&at| at > 0);
        Self {
            encoder,
            heads: tokens.iter().flat_map(|token| cuts(token).map(|at| &token[..at])).collect(),
            tails: tokens.iter().flat_map(|token| cuts(token).map(|at| &token[at..])).collect(),
            longest: tokens.iter().map(|token| token.len()).max().unwrap_or(0),
            joined: tokens.join("\0"),
        }
    }

    /// Whole tokens anywhere; an end of a token at the start of the text; a beginning of one at its end. A text that
    /// lies inside a token is all of it.
    fn find(&self, text: &str) -> Vec<Range<usize>> {
        let inside = (text.len() <= self.longest && self.joined.contains(text)).then_some(0..text.len());
        let most = text.len().min(self.longest);
        let head = (1..=most).rev().find(|&at| text.get(..at).is_some_and(|piece| self.tails.contains(piece)));
        let tail =
            (1..=most).rev().find(|&at| text.get(text.len() - at..).is_some_and(|piece| self.heads.contains(piece)));
        let whole = self.encoder.added_tokens(text).into_iter().filter(|found| self.encoder.control().has(found.id));
        let mut ranges: Vec<Range<usize>> = whole.map(|found| found.range).collect();
        ranges.extend(inside);
        ranges.extend(head.map(|end| 0..end));
        ranges.extend(tail.map(|length| text.len() - length..text.len()));
        merge(ranges)
    }
}

fn merge(mut ranges: Vec<Range<usize>>) -> Vec<Range<usize>> {
    ranges.sort_by_key(|range| (range.start, range.end));
    let mut merged: Vec<Range<usize>> = Vec::with_capacity(ranges.len());
    for range in ranges {
        match merged.last_mut() {
            Some(last) if last.end >= range.start => last.end = last.end.max(range.end),
            _ => merged.push(range),
        }
    }
    merged
}
