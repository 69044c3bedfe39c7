//! Values as Python prints them: `str`, `repr` and `json.dumps`.
//!
//! Chat templates are written for Jinja2, where printing a value is Python's `str` of it. Private-use characters are
//! printed as they are, where Python's `repr` would escape them: the marks of user text are such characters.

use std::borrow::Cow;
use std::fmt::Write as _;

use minijinja::value::{Kwargs, Value, ValueKind};
use minijinja::{Error, ErrorKind, State};

/// Python's `str(value)`; an undefined value prints nothing.
pub(super) fn to_str(value: &Value) -> String {
    match value.kind() {
        ValueKind::Undefined => String::new(),
        ValueKind::String => value.as_str().unwrap_or_default().to_owned(),
        _ => repr(value),
    }
}

/// Whether Python's `str.strip` takes the character away.
pub(super) fn is_space(letter: char) -> bool {
    letter.is_whitespace() || matches!(letter, '\u{1C}'..='\u{1F}')
}

/// `strip`, `lstrip` and `rstrip`, which know four blanks more than Rust's; other methods as `minijinja-contrib` has
/// them.
pub(super) fn unknown_method(
    state: &mut State<'_, '_>,
    value: &Value,
    method: &str,
    arguments: &[Value],
) -> Result<Value, Error> {
    match (method, value.as_str(), arguments) {
        ("strip", Some(text), []) => Ok(Value::from(text.trim_matches(is_space))),
        ("lstrip", Some(text), []) => Ok(Value::from(text.trim_start_matches(is_space))),
        ("rstrip", Some(text), []) => Ok(Value::from(text.trim_end_matches(is_space))),
        _ => minijinja_contrib::pycompat::unknown_method_callback(state, value, method, arguments),
    }
}

/// The `trim` filter.
#[allow(clippy::needless_pass_by_value, reason = "the signature minijinja wants of a filter")]
pub(super) fn trim(text: Cow<'_, str>, letters: Option<Cow<'_, str>>) -> String {
    match letters {
        Some(letters) => text.trim_matches(|letter| letters.contains(letter)).to_owned(),
        None => text.trim_matches(is_space).to_owned(),
    }
}

/// Python's `repr(value)`.
pub(super) fn repr(value: &Value) -> String {
    let mut out = String::new();
    write_repr(&mut out, value);
    out
}

fn write_repr(out: &mut String, value: &Value) {
    match value.kind() {
        ValueKind::Undefined => out.push_str("Undefined"),
        ValueKind::None => out.push_str("None"),
        ValueKind::Bool => out.push_str(if value.is_true() { "True" } else { "False" }),
        ValueKind::Number => out.push_str(&number(value, &["inf", "-inf", "nan"])),
        ValueKind::String => write_quoted(out, value.as_str().unwrap_or_default()),
        ValueKind::Map => write_map(out, value),
        ValueKind::Seq | ValueKind::Iterable => write_sequence(out, value),
        _ => out.push_str(&value.to_string()),
    }
}

fn write_map(out: &mut String, value: &Value) {
    out.push('{');
    for (index, (key, item)) in entries(value).into_iter().enumerate() {
        out.push_str(if index > 0 { ", " } else { "" });
        write_repr(out, &key);
        out.push_str(": ");
        write_repr(out, &item);
    }
    out.push('}');
}

fn write_sequence(out: &mut String, value: &Value) {
    let (open, close) = if value.is_tuple() { ('(', ')') } else { ('[', ']') };
    out.push(open);
    let items = items(value);
    for (index, item) in items.iter().enumerate() {
        out.push_str(if index > 0 { ", " } else { "" });
        write_repr(out, item);
    }
    out.push_str(if value.is_tuple() && items.len() == 1 { "," } else { "" });
    out.push(close);
}

fn items(value: &Value) -> Vec<Value> {
    value.try_iter().map(Iterator::collect).unwrap_or_default()
}

fn entries(value: &Value) -> Vec<(Value, Value)> {
    items(value).into_iter().map(|key| (key.clone(), value.get_item(&key).unwrap_or_default())).collect()
}

fn write_quoted(out: &mut String, text: &str) {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    out.push(quote);
    for letter in text.chars() {
        match letter {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            _ if letter == quote => out.extend(['\\', quote]),
            _ if is_printable(letter) => out.push(letter),
            _ => write_escape(out, letter),
        }
    }
    out.push(quote);
}

fn is_printable(letter: char) -> bool {
    let invisible = matches!(letter, '\u{AD}' | '\u{200B}'..='\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2060}'..='\u{206F}' | '\u{FEFF}');
    letter == ' ' || !(letter.is_control() || letter.is_whitespace() || invisible)
}

fn write_escape(out: &mut String, letter: char) {
    let code = u32::from(letter);
    // Writing to a String cannot fail.
    let _ = match code {
        0..=0xFF => write!(out, "\\x{code:02x}"),
        0x100..=0xFFFF => write!(out, "\\u{code:04x}"),
        _ => write!(out, "\\U{code:08x}"),
    };
}

/// A number as Python prints it; `special` are the names of infinity, its negative, and not-a-number.
fn number(value: &Value, special: &[&str; 3]) -> String {
    match f64::try_from(value.clone()) {
        Ok(number) if !value.is_integer() => float(number, special),
        _ => value.to_string(),
    }
}

fn float(number: f64, special: &[&str; 3]) -> String {
    if number.is_nan() {
        return special[2].to_owned();
    }
    if number.is_infinite() {
        return special[usize::from(number < 0.0)].to_owned();
    }
    let scientific = format!("{number:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    match exponent.parse::<i32>().unwrap_or(0) {
        exponent @ (..-4 | 16..) => {
            format!("{digits}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.unsigned_abs())
        }
        _ if number.fract() == 0.0 => format!("{number:.1}"),
        _ => number.to_string(),
    }
}

/// The `tojson` filter as transformers defines it: `json.dumps` with these keyword arguments and no HTML escapes.
#[allow(clippy::needless_pass_by_value, reason = "the signature minijinja wants of a filter")]
pub(super) fn tojson(value: Value, arguments: Kwargs) -> Result<Value, Error> {
    let style = JsonStyle::from_arguments(&arguments)?;
    arguments.assert_all_used()?;
    let mut out = String::new();
    style.write(&mut out, &value, 0)?;
    // Not `from_safe_string`: nothing is escaped, so there is nothing to be safe from.
    Ok(Value::from(out))
}

struct JsonStyle {
    ensure_ascii: bool,
    indent: Option<String>,
    item_separator: String,
    key_separator: String,
    sort_keys: bool,
}

impl JsonStyle {
    fn from_arguments(arguments: &Kwargs) -> Result<Self, Error> {
        let indent = indent(arguments.get::<Option<Value>>("indent")?)?;
        let separators: Option<Vec<String>> = arguments.get("separators")?;
        let comma = if indent.is_some() { "," } else { ", " };
        let (item_separator, key_separator) = match separators.as_deref() {
            Some([item, key]) => (item.clone(), key.clone()),
            _ => (comma.to_owned(), ": ".to_owned()),
        };
        Ok(Self {
            ensure_ascii: arguments.get::<Option<bool>>("ensure_ascii")?.unwrap_or(false),
            indent,
            item_separator,
            key_separator,
            sort_keys: arguments.get::<Option<bool>>("sort_keys")?.unwrap_or(false),
        })
    }

    fn write(&self, out: &mut String, value: &Value, depth: usize) -> Result<(), Error> {
        match value.kind() {
            ValueKind::None => out.push_str("null"),
            ValueKind::Bool => out.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => out.push_str(&number(value, &["Infinity", "-Infinity", "NaN"])),
            ValueKind::String => self.write_string(out, value.as_str().unwrap_or_default()),
            ValueKind::Seq | ValueKind::Iterable => self.write_list(out, &items(value), depth)?,
            ValueKind::Map => self.write_object(out, self.sorted(entries(value)), depth)?,
            other => return Err(Error::new(ErrorKind::BadSerialization, format!("{other} is not JSON serializable"))),
        }
        Ok(())
    }

    fn write_list(&self, out: &mut String, items: &[Value], depth: usize) -> Result<(), Error> {
        out.push('[');
        for (index, item) in items.iter().enumerate() {
            self.separate(out, index, depth);
            self.write(out, item, depth + 1)?;
        }
        self.close(out, items.is_empty(), depth, ']');
        Ok(())
    }

    fn write_object(&self, out: &mut String, entries: Vec<(Value, Value)>, depth: usize) -> Result<(), Error> {
        let empty = entries.is_empty();
        out.push('{');
        for (index, (key, item)) in entries.into_iter().enumerate() {
            self.separate(out, index, depth);
            self.write_key(out, &key);
            self.write(out, &item, depth + 1)?;
        }
        self.close(out, empty, depth, '}');
        Ok(())
    }

    fn separate(&self, out: &mut String, index: usize, depth: usize) {
        out.push_str(if index > 0 { &self.item_separator } else { "" });
        self.new_line(out, depth + 1);
    }

    fn close(&self, out: &mut String, empty: bool, depth: usize, bracket: char) {
        if !empty {
            self.new_line(out, depth);
        }
        out.push(bracket);
    }

    fn new_line(&self, out: &mut String, depth: usize) {
        if let Some(indent) = &self.indent {
            out.push('\n');
            out.extend(std::iter::repeat_n(indent.as_str(), depth));
        }
    }

    fn sorted(&self, mut entries: Vec<(Value, Value)>) -> Vec<(Value, Value)> {
        if self.sort_keys {
            entries.sort_by(|(left, _), (right, _)| left.cmp(right));
        }
        entries
    }

    /// Keys are strings; Python turns numbers, booleans and None into them.
    fn write_key(&self, out: &mut String, key: &Value) {
        let text = match key.kind() {
            ValueKind::Bool => (if key.is_true() { "true" } else { "false" }).to_owned(),
            ValueKind::None => "null".to_owned(),
            _ => to_str(key),
        };
        self.write_string(out, &text);
        out.push_str(&self.key_separator);
    }

    fn write_string(&self, out: &mut String, text: &str) {
        out.push('"');
        for letter in text.chars() {
            match letter {
                '"' => out.push_str("\\\""),
                '\\' => out.push_str("\\\\"),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                '\u{8}' => out.push_str("\\b"),
                '\u{C}' => out.push_str("\\f"),
                '\0'..'\u{20}' => write_utf16(out, letter),
                _ if self.ensure_ascii && !letter.is_ascii() => write_utf16(out, letter),
                _ => out.push(letter),
            }
        }
        out.push('"');
    }
}

fn write_utf16(out: &mut String, letter: char) {
    for unit in letter.encode_utf16(&mut [0; 2]) {
        // Writing to a String cannot fail.
        let _ = write!(out, "\\u{unit:04x}");
    }
}

/// `indent` as Python takes it: a number of blanks, or the text itself.
fn indent(value: Option<Value>) -> Result<Option<String>, Error> {
    const WIDEST: usize = 16;
    let Some(value) = value.filter(|value| !value.is_none()) else { return Ok(None) };
    if let Some(text) = value.as_str() {
        return Ok(Some(text.chars().take(WIDEST).collect()));
    }
    let width = value.as_usize().ok_or_else(|| Error::new(ErrorKind::InvalidOperation, "indent must be a number"))?;
    Ok(Some(" ".repeat(width.min(WIDEST))))
}
