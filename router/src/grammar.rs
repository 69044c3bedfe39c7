//! What an answer may be, where a client says so: a grammar over its whole text. Says nothing about which route asked.

/// A grammar as it was asked for, not compiled yet.
#[derive(Clone, Debug, PartialEq)]
pub enum GrammarSource {
    /// JSON that is valid by this schema.
    JsonSchema(serde_json::Value),
    /// Text that the regular expression matches from its beginning to its end.
    Regex(String),
    /// Text of this grammar, in the dialect of Lark that llguidance reads.
    Lark(String),
}
