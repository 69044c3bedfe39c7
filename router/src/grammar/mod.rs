//! What an answer may be, where a client says so: a grammar over its whole text. Says nothing about which route asked.
//!
//! A grammar is checked here, before anything is fetched or scheduled for it: written down in the form the shard
//! reads, compiled, and its first mask computed, on a bounded pool and within a time limit. The shard compiles the same
//! text again and masks tokens with it.

mod check;
mod compiler;
mod error;
mod limits;
mod repeats;
mod schema;
mod source;
#[cfg(test)]
mod tests;
mod vocabulary;

pub use compiler::GrammarCompiler;
pub use error::GrammarError;
pub use limits::GrammarLimits;
pub(crate) use schema::close_objects;
pub use source::{Grammar, GrammarKind, GrammarSource};
pub use vocabulary::Vocabulary;
