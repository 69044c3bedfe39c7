//! The tools of a request: what they may be, and what a client says about using them.

use std::collections::HashSet;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::grammar::Function;
use crate::api::error::{ApiError, ErrorKind};
use crate::api::{RequestLimits, ranges};

/// Longest name of a function.
const MAX_NAME_BYTES: usize = 128;

/// The fields of a request that are about tools.
#[derive(Debug, Default, Deserialize)]
pub(in crate::api) struct ToolFields {
    pub(in crate::api) tools: Option<Vec<Value>>,
    pub(in crate::api) tool_choice: Option<Value>,
    pub(in crate::api) parallel_tool_calls: Option<bool>,
    /// TGI's: text for the model beside the tools.
    pub(in crate::api) tool_prompt: Option<String>,
}

/// Whether the answer has to be a call.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(in crate::api) enum Choice {
    /// The model decides.
    Auto,
    /// It has to.
    Required,
}

/// Tools as they are offered.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::api) struct Offer {
    /// For the chat template.
    pub(super) tools: Vec<Value>,
    pub(super) functions: Vec<Function>,
    pub(super) choice: Choice,
    pub(super) one_call: bool,
    pub(super) prompt: Option<String>,
}

impl ToolFields {
    /// The tools that are offered: `None` if there are none, or the model is to use none.
    ///
    /// Errors: 422 with the field's name; `tool_error` for a choice of a function that is not offered.
    pub(in crate::api) fn offer(self, limits: &RequestLimits) -> Result<Option<Offer>, ApiError> {
        let tools = self.tools.unwrap_or_default();
        ranges::at_most("tools", tools.len() as u64, limits.max_tools as u64)?;
        let read: Result<Vec<_>, _> = tools.into_iter().enumerate().map(|(index, tool)| read(index, tool)).collect();
        let (tools, functions): (Vec<Value>, Vec<Function>) = read?.into_iter().unzip();
        let mut seen = HashSet::new();
        if let Some(twice) = functions.iter().position(|function| !seen.insert(&function.name)) {
            return Err(ApiError::field(&format!("tools[{twice}].function.name"), "is that of another tool"));
        }
        let mut offer = Offer {
            tools,
            functions,
            choice: Choice::Auto,
            one_call: self.parallel_tool_calls == Some(false),
            prompt: self.tool_prompt.filter(|prompt| !prompt.is_empty()),
        };
        let offered = offer.choose(self.tool_choice.as_ref().unwrap_or(&Value::Null))?;
        Ok((offered && !offer.functions.is_empty()).then_some(offer))
    }
}

impl Offer {
    /// Whether tools are offered at all.
    fn choose(&mut self, choice: &Value) -> Result<bool, ApiError> {
        match (choice.as_str(), choice["type"].as_str()) {
            _ if choice.is_null() => Ok(true),
            (Some("auto"), _) => Ok(true),
            (Some("none"), _) => Ok(false),
            (Some("required"), _) => self.require(),
            (Some(name), _) => self.name(name),
            (None, Some("function")) => self.name_in(inner(choice, "function", "name")),
            (None, Some("allowed_tools")) => self.allow(inner(choice, "allowed_tools", "tools")),
            _ => Err(ApiError::field("tool_choice", "must be `auto`, `none`, `required` or a function")),
        }
    }

    fn require(&mut self) -> Result<bool, ApiError> {
        if self.functions.is_empty() {
            return Err(ApiError::field("tool_choice", "needs `tools`"));
        }
        self.choice = Choice::Required;
        Ok(true)
    }

    fn name_in(&mut self, function: &Value) -> Result<bool, ApiError> {
        match function["name"].as_str() {
            Some(name) => self.name(name),
            None => Err(ApiError::field("tool_choice.function.name", "must be a string")),
        }
    }

    /// One function has to be called, once. The model sees the others all the same.
    fn name(&mut self, name: &str) -> Result<bool, ApiError> {
        self.functions.retain(|function| function.name == name);
        if self.functions.is_empty() {
            let message = "`tool_choice` names a function that is not in `tools`";
            return Err(ApiError::new(ErrorKind::Tool, message).at("tool_choice"));
        }
        self.one_call = true;
        self.require()
    }

    /// OpenAI's list of tools that may be used this time.
    fn allow(&mut self, allowed: &Value) -> Result<bool, ApiError> {
        const NAMES: &str = "tool_choice.allowed_tools.tools";
        let tools = allowed["tools"].as_array().ok_or_else(|| ApiError::field(NAMES, "must be a list"))?;
        let name =
            |tool: &Value| tool["function"]["name"].as_str().or_else(|| tool["name"].as_str()).map(str::to_owned);
        let names: Option<Vec<String>> = tools.iter().map(name).collect();
        let names = names.ok_or_else(|| ApiError::field(NAMES, "must name functions"))?;
        let known = |name: &String| self.functions.iter().any(|function| function.name == *name);
        if !names.iter().all(known) {
            let message = "`tool_choice` names a function that is not in `tools`";
            return Err(ApiError::new(ErrorKind::Tool, message).at(NAMES));
        }
        self.functions.retain(|function| names.contains(&function.name));
        self.tools.retain(|tool| tool["function"]["name"].as_str().is_some_and(|name| names.iter().any(|n| n == name)));
        match allowed["mode"].as_str() {
            Some("required") => self.require(),
            None | Some("auto") => Ok(!names.is_empty()),
            _ => Err(ApiError::field("tool_choice.allowed_tools.mode", "must be `auto` or `required`")),
        }
    }
}

/// The object that the chat API has around `key`. The Responses API has none.
fn inner<'a>(choice: &'a Value, name: &str, key: &str) -> &'a Value {
    if choice[name].is_null() && !choice[key].is_null() { choice } else { &choice[name] }
}

/// Puts a tool of the Responses API into the form of the chat API, for which chat templates are made.
fn nest(tool: &mut Map<String, Value>) {
    let mut function = std::mem::take(tool);
    function.shift_remove("type");
    tool.insert("type".to_owned(), json!("function"));
    tool.insert("function".to_owned(), function.into());
}

/// A tool as the chat template gets it, and what it says about arguments.
fn read(index: usize, mut tool: Value) -> Result<(Value, Function), ApiError> {
    let path = format!("tools[{index}]");
    let Some(object) = tool.as_object_mut() else { return Err(ApiError::field(&path, "must be an object")) };
    object.retain(|_, value| !value.is_null());
    if object.get("type").is_some_and(|kind| kind != "function") {
        return Err(ApiError::field(&format!("{path}.type"), "must be `function`"));
    }
    let flat = !object.contains_key("function") && object.contains_key("name");
    if flat {
        nest(object);
    }
    let path = if flat { path } else { format!("{path}.function") };
    let Some(function) = object.get_mut("function").and_then(Value::as_object_mut) else {
        return Err(ApiError::field(&path, "must be an object"));
    };
    let name = name(&path, function)?;
    let parameters = parameters(&path, function)?;
    Ok((tool, Function { name, parameters }))
}

fn name(path: &str, function: &Map<String, Value>) -> Result<String, ApiError> {
    let path = format!("{path}.name");
    let name =
        function.get("name").and_then(Value::as_str).ok_or_else(|| ApiError::field(&path, "must be a string"))?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    if name.is_empty() || name.len() > MAX_NAME_BYTES || !name.bytes().all(plain) {
        let rule = format!("must be 1 to {MAX_NAME_BYTES} letters, digits, `_`, `-` or `.`");
        return Err(ApiError::field(&path, rule));
    }
    Ok(name.to_owned())
}

/// The schema of the arguments, under the one name that templates know. `strict` is a word to us, not to the model.
fn parameters(path: &str, function: &mut Map<String, Value>) -> Result<Value, ApiError> {
    function.retain(|_, value| !value.is_null());
    function.shift_remove("strict");
    if let Some(arguments) = function.shift_remove("arguments") {
        function.entry("parameters").or_insert(arguments);
    }
    let none = || json!({"type": "object", "properties": {}});
    let parameters = function.entry("parameters").or_insert_with(none);
    if parameters.is_object() {
        return Ok(parameters.clone());
    }
    Err(ApiError::field(&format!("{path}.parameters"), "must be an object"))
}
