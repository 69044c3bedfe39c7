//! Literals of Python as JSON text: strings in either quotes, `True`, `None`, tuples. Names and expressions are none.

/// Values nest this deep at most.
const MAX_DEPTH: usize = 64;

/// The JSON text of one literal; `None` if it is none.
pub(super) fn to_json(source: &str) -> Option<String> {
    let mut reader = Reader { rest: source, json: String::with_capacity(source.len()) };
    reader.value(0)?;
    reader.skip_blanks();
    reader.rest.is_empty().then_some(reader.json)
}

struct Reader<'a> {
    rest: &'a str,
    json: String,
}

impl Reader<'_> {
    fn skip_blanks(&mut self) {
        self.rest = self.rest.trim_start();
    }

    fn take(&mut self, word: &str) -> Option<()> {
        self.rest = self.rest.strip_prefix(word)?;
        Some(())
    }

    fn peek(&mut self) -> Option<char> {
        self.skip_blanks();
        self.rest.chars().next()
    }

    fn value(&mut self, depth: usize) -> Option<()> {
        if depth > MAX_DEPTH {
            return None;
        }
        match self.peek()? {
            '"' | '\'' => self.string(),
            '[' => self.list('[', ']', depth),
            '(' => self.list('(', ')', depth),
            '{' => self.map(depth),
            '-' | '0'..='9' => self.number(),
            _ => self.word(),
        }
    }

    fn word(&mut self) -> Option<()> {
        const WORDS: [(&str, &str); 6] = [
            ("True", "true"),
            ("False", "false"),
            ("None", "null"),
            ("true", "true"),
            ("false", "false"),
            ("null", "null"),
        ];
        let (word, json) = WORDS.into_iter().find(|(word, _)| self.rest.starts_with(word))?;
        self.take(word)?;
        self.json.push_str(json);
        Some(())
    }

    fn number(&mut self) -> Option<()> {
        let part = |letter: char| letter.is_ascii_digit() || matches!(letter, '-' | '+' | '.' | 'e' | 'E');
        let end = self.rest.find(|letter| !part(letter)).unwrap_or(self.rest.len());
        let (number, rest) = self.rest.split_at(end);
        // What JSON takes for a number stays as it is written, so that no digit is lost.
        serde_json::from_str::<serde_json::Number>(number).ok()?;
        self.json.push_str(number);
        self.rest = rest;
        Some(())
    }

    fn list(&mut self, open: char, close: char, depth: usize) -> Option<()> {
        self.rest = self.rest.strip_prefix(open)?;
        self.json.push('[');
        let mut first = true;
        while self.peek()? != close {
            if !first {
                self.take(",")?;
                if self.peek()? == close {
                    break;
                }
                self.json.push(',');
            }
            first = false;
            self.value(depth + 1)?;
        }
        self.rest = self.rest.strip_prefix(close)?;
        self.json.push(']');
        Some(())
    }

    fn map(&mut self, depth: usize) -> Option<()> {
        self.take("{")?;
        self.json.push('{');
        let mut first = true;
        while self.peek()? != '}' {
            if !first {
                self.take(",")?;
                if self.peek()? == '}' {
                    break;
                }
                self.json.push(',');
            }
            first = false;
            self.entry(depth)?;
        }
        self.take("}")?;
        self.json.push('}');
        Some(())
    }

    fn entry(&mut self, depth: usize) -> Option<()> {
        if !matches!(self.peek()?, '"' | '\'') {
            return None;
        }
        self.string()?;
        self.skip_blanks();
        self.take(":")?;
        self.json.push(':');
        self.value(depth + 1)
    }

    fn string(&mut self) -> Option<()> {
        let mut letters = self.rest.chars();
        let quote = letters.next()?;
        let mut text = String::new();
        loop {
            match letters.next()? {
                '\\' => text.extend(escaped(&mut letters)?),
                letter if letter == quote => break,
                letter => text.push(letter),
            }
        }
        self.rest = letters.as_str();
        self.json.push_str(&serde_json::Value::String(text).to_string());
        Some(())
    }
}

/// What follows a backslash. The outer `None` is a broken escape; a backslash before a line end says nothing.
fn escaped(letters: &mut std::str::Chars<'_>) -> Option<Vec<char>> {
    let letter = match letters.next()? {
        '\n' => return Some(Vec::new()),
        'n' => '\n',
        't' => '\t',
        'r' => '\r',
        'b' => '\u{8}',
        'f' => '\u{c}',
        '0' => '\0',
        'x' => code(letters, 2)?,
        'u' => code(letters, 4)?,
        'U' => code(letters, 8)?,
        letter @ ('\\' | '\'' | '"' | '/') => letter,
        // Python keeps the backslash of an escape it does not know.
        letter => return Some(vec!['\\', letter]),
    };
    Some(vec![letter])
}

fn code(letters: &mut std::str::Chars<'_>, digits: usize) -> Option<char> {
    let code = letters.as_str().get(..digits)?;
    let letter = char::from_u32(u32::from_str_radix(code, 16).ok()?)?;
    letters.nth(digits - 1);
    Some(letter)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::{json_value, python};
    use super::*;

    #[test]
    fn literals() {
        let rows = [
            ("'it\\'s'", Some(r#""it's""#)),
            (r#""a\nb\u00e9\x41""#, Some("\"a\\nbéA\"")),
            ("r'x'", None),
            (" ( 1, 2.50, -3e4, ) ", Some("[1,2.50,-3e4]")),
            ("{'a': True, \"b\": [None, False]}", Some(r#"{"a":true,"b":[null,false]}"#)),
            ("{1: 2}", None),
            ("city", None),
            ("f(1)", None),
            ("1_000", None),
            ("[1", None),
            ("'a' 'b'", None),
            ("12345678901234567890123", Some("12345678901234567890123")),
            ("", None),
        ];
        for (source, expected) in rows {
            assert_eq!(to_json(source).as_deref(), expected, "{source}");
        }
        assert_eq!(to_json(&"[".repeat(100_000)), None);
    }

    proptest! {
        #[test]
        fn json_survives(value in json_value()) {
            prop_assert_eq!(to_json(&python(&value)), Some(value.to_string()));
        }
    }
}
