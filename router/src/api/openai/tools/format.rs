//! The table of formats in which models write calls, and how a model's own is found: its chat template is asked to
//! write one.

use std::sync::Arc;

use text_generation_scheduler::TokenId;

use super::event::CallParser;
use super::grammar::CallGrammar;
use super::{hermes, llama, mistral, pythonic};
use crate::prompt::{PromptBuilder, ToolTemplate};

/// A format of calls.
pub(super) struct Format {
    /// For logs.
    pub(super) name: &'static str,
    /// Whether a template that writes calls like this means this format.
    pub(super) writes: fn(&ToolTemplate) -> bool,
    /// What it is made of that tokenizers may hold as special tokens.
    pub(super) markers: &'static [&'static str],
    /// Reads it. Takes the names of the functions that were offered.
    pub(super) parser: fn(Arc<[String]>) -> Box<dyn CallParser>,
    /// The rules of a Lark grammar of one or more calls, beginning with `start`.
    pub(super) grammar: fn(&CallGrammar<'_>) -> String,
}

/// The first that fits is a model's. The last fits every model.
const FORMATS: &[&Format] = &[&mistral::FORMAT, &llama::FORMAT, &pythonic::FORMAT, &hermes::FORMAT];

/// How the model that is served is offered tools and calls them.
pub(in crate::api) struct Dialect {
    pub(super) format: &'static Format,
    pub(super) template: ToolTemplate,
    /// The special tokens among the format's markers.
    pub(super) markers: Arc<[(&'static str, TokenId)]>,
}

impl Dialect {
    /// The dialect of a model. A template that knows nothing of tools gets them in a text of ours, in the format that
    /// most models have seen.
    pub(in crate::api) fn of(prompts: &PromptBuilder) -> Self {
        let template = prompts.tool_template();
        let fits = |format: &&Format| (format.writes)(&template);
        let known = FORMATS.iter().copied().find(fits).filter(|_| template.is_native());
        let format = known.unwrap_or(&hermes::FORMAT);
        tracing::debug!(format = format.name, native = template.is_native(), "format of tool calls");
        let table = prompts.table();
        let marker = |&text: &&'static str| Some((text, table.special_token(text)?));
        Self { format, template, markers: format.markers.iter().filter_map(marker).collect() }
    }
}
