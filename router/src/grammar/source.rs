//! A grammar as it was asked for, and the form of it that router and shard both read.

use std::collections::HashSet;

use serde_json::{Map, Value, json};

use super::error::GrammarError;
use super::limits::GrammarLimits;
use super::repeats;
use super::schema::close_objects;

/// Where a schema keeps the settings of the grammar library.
const SETTINGS: &str = "x-guidance";

/// A grammar as it was asked for, not compiled yet.
#[derive(Clone, Debug, PartialEq)]
pub enum GrammarSource {
    /// JSON that is valid by this schema.
    JsonSchema(Value),
    /// Text that the regular expression matches from its beginning to its end.
    Regex(String),
    /// Text of this grammar, in the dialect of Lark that llguidance reads.
    Lark(String),
}

/// What the text of a grammar is.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub enum GrammarKind {
    /// A JSON schema, as JSON.
    JsonSchema,
    /// A regular expression.
    Regex,
    /// A grammar in llguidance's dialect of Lark.
    Lark,
}

/// A grammar in the form that is compiled, here and in the shard.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Grammar {
    /// What `text` is.
    pub kind: GrammarKind,
    /// The grammar itself.
    pub text: String,
}

impl GrammarSource {
    /// Any JSON object: what OpenAI calls JSON mode.
    pub fn any_object() -> Self {
        Self::JsonSchema(json!({"type": "object"}))
    }

    /// Writes the grammar down, if it is within the limits.
    pub(super) fn write(self, limits: &GrammarLimits) -> Result<Grammar, GrammarError> {
        let (kind, text) = match self {
            Self::JsonSchema(schema) => (GrammarKind::JsonSchema, schema_text(schema, limits)?),
            Self::Regex(text) => (GrammarKind::Regex, text),
            Self::Lark(text) => (GrammarKind::Lark, text),
        };
        if text.len() > limits.max_bytes {
            return Err(GrammarError::TooLarge { bytes: text.len(), limit: limits.max_bytes });
        }
        if kind != GrammarKind::JsonSchema && bracket_depth(&text) > limits.max_nesting {
            return Err(GrammarError::TooDeep { limit: limits.max_nesting });
        }
        if kind == GrammarKind::Regex {
            repeats::check(&text, limits)?;
        }
        if kind == GrammarKind::Lark {
            // Every rule, and every key of a schema inside the grammar, has one.
            check_levels(text.matches(':').count(), limits)?;
        }
        Ok(Grammar { kind, text })
    }
}

impl Grammar {
    /// Names the grammar by its content.
    pub(super) fn key(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&[self.kind as u8]).update(self.text.as_bytes());
        *hasher.finalize().as_bytes()
    }
}

/// The order of keys is kept: it is the order in which the model writes them.
fn schema_text(schema: Value, limits: &GrammarLimits) -> Result<String, GrammarError> {
    let depth = depth(&schema);
    if depth > limits.max_nesting {
        return Err(GrammarError::TooDeep { limit: limits.max_nesting });
    }
    let mut references = HashSet::new();
    add_references(&schema, &mut references);
    check_levels(depth * references.len(), limits)?;
    let properties = most_optional(&schema);
    if properties > limits.max_optional {
        return Err(GrammarError::TooOpen { properties, limit: limits.max_optional });
    }
    match schema {
        Value::Object(mut schema) => {
            close_objects(&mut schema);
            schema.entry(SETTINGS).or_insert_with(writing);
            Ok(Value::Object(schema).to_string())
        }
        _ => Err(GrammarError::Invalid("a schema is an object".to_owned())),
    }
}

/// How JSON is written when a schema does not say so itself: one blank at most between two tokens, as in
/// text-generation-inference, so that white space always ends; and of a `oneOf` any branch.
fn writing() -> Value {
    json!({"whitespace_pattern": " ?", "coerce_one_of": true})
}

fn check_levels(levels: usize, limits: &GrammarLimits) -> Result<(), GrammarError> {
    if levels > limits.max_levels {
        return Err(GrammarError::TooEntangled { levels, limit: limits.max_levels });
    }
    Ok(())
}

/// Objects and lists inside each other. Bodies are no deeper than their parser goes.
fn depth(value: &Value) -> usize {
    match value {
        Value::Object(map) => 1 + map.values().map(depth).max().unwrap_or(0),
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

/// The most properties of an object that it does not require, over all objects of a schema.
fn most_optional(value: &Value) -> usize {
    match value {
        Value::Object(map) => optional(map).max(map.values().map(most_optional).max().unwrap_or(0)),
        Value::Array(items) => items.iter().map(most_optional).max().unwrap_or(0),
        _ => 0,
    }
}

fn optional(schema: &Map<String, Value>) -> usize {
    let Some(Value::Object(properties)) = schema.get("properties") else { return 0 };
    let required = schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    let required: HashSet<&str> = required.filter(|name| properties.contains_key(*name)).collect();
    properties.len() - required.len()
}

/// The different places that a schema refers to.
fn add_references<'a>(value: &'a Value, found: &mut HashSet<&'a str>) {
    match value {
        Value::Object(map) => {
            found.extend(["$ref", "$dynamicRef"].iter().filter_map(|key| map.get(*key)?.as_str()));
            map.values().for_each(|value| add_references(value, found));
        }
        Value::Array(items) => items.iter().for_each(|value| add_references(value, found)),
        _ => {}
    }
}

/// The most brackets open at once; what follows a backslash is no bracket.
fn bracket_depth(text: &str) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '\\' => drop(letters.next()),
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    deepest
}
