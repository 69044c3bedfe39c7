//! A grammar of calls in a model's own format, for answers that have to be calls. What it lets through is what the
//! format's parser reads.

use serde_json::{Value, json};
use text_generation_scheduler::TokenId;

use crate::grammar::{GrammarSource, close_objects};

/// A function that may be called.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Function {
    pub(super) name: String,
    /// The schema of its arguments.
    pub(super) parameters: Value,
}

/// What a grammar of calls is made of.
pub(super) struct CallGrammar<'a> {
    pub(super) functions: &'a [Function],
    /// Whether several calls are allowed.
    pub(super) several: bool,
    /// Markers that are special tokens: a text cannot stand for them.
    pub(super) markers: &'a [(&'static str, TokenId)],
    /// How the model's chat template writes a call, if it does.
    pub(super) written: Option<&'a str>,
}

impl CallGrammar<'_> {
    pub(super) fn source(&self, rules: fn(&Self) -> String) -> GrammarSource {
        GrammarSource::Lark(rules(self))
    }

    /// A marker as a terminal.
    pub(super) fn marker(&self, marker: &str) -> String {
        let special = self.markers.iter().find(|(text, _)| *text == marker);
        special.map_or_else(|| text(marker), |(_, id)| format!("<[{id}]>"))
    }

    /// The rule `start`: one call, or several with `between` between them.
    pub(super) fn start(&self, between: &str) -> String {
        if self.several { format!("start: call ({} call)*\n", text(between)) } else { "start: call\n".to_owned() }
    }

    /// The rule `object`: `{"name": …, "<key>": …}` of any of the functions.
    pub(super) fn object(&self, key: &str) -> String {
        let rule = |(index, function): (usize, &Function)| {
            let head = format!("{{\"name\": {}, \"{key}\": ", Value::from(function.name.as_str()));
            format!("object_{index}: {} %json {} \"}}\"\n", text(&head), object_schema(&function.parameters))
        };
        let rules: String = self.functions.iter().enumerate().map(rule).collect();
        format!("object: {}\n{rules}", self.alternatives("object"))
    }

    /// `rule_0 | rule_1 | …`, one a function.
    pub(super) fn alternatives(&self, rule: &str) -> String {
        let rules: Vec<String> = (0..self.functions.len()).map(|index| format!("{rule}_{index}")).collect();
        rules.join(" | ")
    }
}

/// A text as a terminal. Lark quotes like JSON.
pub(super) fn text(text: &str) -> String {
    Value::from(text).to_string()
}

/// The schema of arguments: they are an object, whether or not the schema says so, and of the listed properties only.
pub(super) fn object_schema(parameters: &Value) -> Value {
    let mut schema = parameters.clone();
    if let Some(schema) = schema.as_object_mut() {
        schema.entry("type").or_insert(json!("object"));
        close_objects(schema);
    }
    schema
}
