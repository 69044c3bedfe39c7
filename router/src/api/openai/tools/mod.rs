//! Tools: what is offered to a model, and the calls in what it answers.
//!
//! `offer` reads what a client says, `format` finds out how the model writes calls, one file a format reads them from
//! text as it is generated, `grammar` makes a model call where it has to, and `rewrite` puts tools into conversations
//! whose template knows none. Nothing here runs a tool.

mod event;
mod format;
mod grammar;
mod hermes;
mod ids;
mod json_call;
mod llama;
mod mistral;
mod offer;
mod prose;
mod python_value;
mod pythonic;
mod reader;
mod rewrite;
#[cfg(test)]
mod tests;
mod value;

use std::sync::Arc;

pub(in crate::api) use self::format::Dialect;
use self::grammar::CallGrammar;
pub(in crate::api) use self::offer::{Choice, Offer, ToolFields};
pub(in crate::api) use self::reader::{CallDelta, CallReader, CallReading, Read};
use crate::grammar::GrammarSource;

impl Dialect {
    /// How the calls of an answer to this offer are read.
    pub(in crate::api) fn reading(&self, offer: &Offer) -> CallReading {
        CallReading {
            format: self.format,
            names: offer.functions.iter().map(|function| function.name.clone()).collect(),
            one_call: offer.one_call,
            ids: self.ids(),
            markers: self.markers.iter().map(|(_, id)| *id).collect::<Arc<[_]>>(),
        }
    }

    /// The grammar of an answer that has to be a call; `None` if the model decides.
    pub(in crate::api) fn grammar(&self, offer: &Offer) -> Option<GrammarSource> {
        let calls = CallGrammar {
            functions: &offer.functions,
            several: !offer.one_call,
            markers: &self.markers,
            written: self.template.call.as_deref().filter(|_| self.template.is_native()),
        };
        (offer.choice == Choice::Required).then(|| calls.source(self.format.grammar))
    }
}
