//! A model's chat template, run with the settings that make minijinja behave like the Jinja2 of transformers.
//!
//! Templates come from the model folder or the command line, never from a request; they run with fuel and a bound on
//! their output all the same, because user text decides how often their loops run. There is no loader: a template
//! cannot read another one.

use std::fmt;
use std::io;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Rest, Serde, Value, ValueKind};
use minijinja::{AutoEscape, Environment, Error, ErrorKind};
use serde_json::Map;

use super::error::PromptError;
use super::python;

const NAME: &str = "chat";

/// Longest part of a template's own message that is shown to a client.
const MAX_MESSAGE_CHARS: usize = 100;

/// Bounds on one rendering.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub struct TemplateLimits {
    /// Instructions the template may run, and one more for every 64 bytes it makes.
    pub fuel: u64,
    /// Longest rendered text.
    pub max_output_bytes: usize,
}

impl Default for TemplateLimits {
    fn default() -> Self {
        Self { fuel: 1_000_000, max_output_bytes: 32 << 20 }
    }
}

/// A chat template that cannot be compiled.
#[derive(Debug, thiserror::Error)]
#[error("the chat template is not valid: {0}")]
pub struct InvalidTemplate(String);

/// A compiled chat template.
pub(super) struct ChatTemplate {
    environment: Environment<'static>,
    special_tokens: Map<String, serde_json::Value>,
    limits: TemplateLimits,
    source: String,
}

impl ChatTemplate {
    pub(super) fn new(
        source: &str,
        special_tokens: Map<String, serde_json::Value>,
        limits: TemplateLimits,
    ) -> Result<Self, InvalidTemplate> {
        let mut environment = environment(limits).map_err(|error| InvalidTemplate(error.to_string()))?;
        environment
            .add_template_owned(NAME, without_generation_blocks(source))
            .map_err(|error| InvalidTemplate(error.to_string()))?;
        Ok(Self { environment, special_tokens, limits, source: source.to_owned() })
    }

    /// The template's text.
    pub(super) fn source(&self) -> &str {
        &self.source
    }

    /// The rendered chat for these variables; special tokens are added to them.
    pub(super) fn render(&self, context: Map<String, serde_json::Value>) -> Result<String, PromptError> {
        let mut variables = self.special_tokens.clone();
        variables.extend(context);
        let template = self.environment.get_template(NAME).map_err(|error| describe(&error))?;
        let mut output = Capped { bytes: Vec::new(), limit: self.limits.max_output_bytes };
        template.render_captured_to(Value::from(Serde(&variables)), &mut output).map_err(|error| describe(&error))?;
        String::from_utf8(output.bytes).map_err(|_| PromptError::Template("the chat template wrote no text".to_owned()))
    }
}

/// A buffer that refuses to grow past its limit.
struct Capped {
    bytes: Vec<u8>,
    limit: usize,
}

impl io::Write for Capped {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.bytes.len() + bytes.len() > self.limit {
            return Err(io::Error::other("output limit"));
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What a template said through `raise_exception`.
#[derive(Debug)]
struct Raised(String);

impl fmt::Display for Raised {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for Raised {}

/// A client learns what the template said, or that it failed; not the engine's account of it.
fn describe(error: &Error) -> PromptError {
    let mut cause: Option<&dyn std::error::Error> = Some(error);
    while let Some(current) = cause {
        if let Some(Raised(message)) = current.downcast_ref() {
            let shown: String = message.chars().filter(|letter| !letter.is_control()).take(MAX_MESSAGE_CHARS).collect();
            return PromptError::Template(shown);
        }
        cause = current.source();
    }
    tracing::debug!(%error, "chat template failed");
    PromptError::Template("the chat template of this model cannot render this conversation".to_owned())
}

fn environment(limits: TemplateLimits) -> Result<Environment<'static>, Error> {
    let mut environment = Environment::new();
    environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_fuel(Some(limits.fuel));
    environment.set_unknown_method_callback(python::unknown_method);
    environment.set_formatter(|out, _, value| out.write_str(&python::to_str(value)).map_err(Error::from));
    environment.add_filter("tojson", python::tojson);
    environment.add_filter("trim", python::trim);
    environment.add_filter("string", |value: Value| python::to_str(&value));
    environment.add_test("sequence", |value: Value| is_python_sequence(&value));
    environment.add_test("iterable", |value: Value| is_python_sequence(&value));
    environment.add_function("raise_exception", raise_exception);
    environment.add_function("strftime_now", strftime_now);
    Ok(environment)
}

/// In Jinja2 strings and maps pass both tests, and so does an undefined value.
fn is_python_sequence(value: &Value) -> bool {
    use ValueKind::{Iterable, Map, Seq, String, Undefined};
    matches!(value.kind(), String | Seq | Map | Iterable | Undefined)
}

#[allow(clippy::needless_pass_by_value, reason = "the signature minijinja wants of a function")]
fn raise_exception(arguments: Rest<Value>) -> Result<Value, Error> {
    let message = arguments.first().map(python::to_str).unwrap_or_default();
    Err(Error::new(ErrorKind::InvalidOperation, "raised by the template").with_source(Raised(message)))
}

fn strftime_now(format: &str) -> Result<String, Error> {
    use chrono::format::{Item, StrftimeItems};
    let items: Vec<Item<'_>> = StrftimeItems::new(format).collect();
    if items.contains(&Item::Error) {
        return Err(Error::new(ErrorKind::InvalidOperation, "not a time format"));
    }
    Ok(chrono::Local::now().format_with_items(items.iter()).to_string())
}

/// `{% generation %}` is an extension of transformers that marks what an assistant wrote; it changes no text.
fn without_generation_blocks(source: &str) -> String {
    let (mut plain, mut rest) = (String::with_capacity(source.len()), source);
    while let Some((before, tag)) = rest.split_once("{%") {
        plain.push_str(before);
        let Some((body, after)) = tag.split_once("%}") else {
            rest = &rest[before.len()..];
            break;
        };
        plain.extend(["{%", &replacement(body), "%}"]);
        rest = after;
    }
    plain.push_str(rest);
    plain
}

fn replacement(body: &str) -> String {
    match body.trim_matches(['-', '+', ' ', '\t', '\n', '\r']) {
        "generation" => body.replace("generation", "if true"),
        "endgeneration" => body.replace("endgeneration", "endif"),
        _ => body.to_owned(),
    }
}
