//! Why a grammar is not followed.

use std::time::Duration;

/// Why a grammar is not followed. The texts are for the client that sent it and go on from the name of a field.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum GrammarError {
    /// It is larger than any grammar may be.
    #[error("has {bytes} bytes; a grammar has at most {limit}")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// Its parts are too deep inside each other.
    #[error("is nested more than {limit} deep")]
    TooDeep {
        /// The limit.
        limit: usize,
    },
    /// Its definitions may follow from each other for too long.
    #[error("may lead through {levels} definitions; a grammar has at most {limit}")]
    TooEntangled {
        /// How far it may lead.
        levels: usize,
        /// The limit.
        limit: usize,
    },
    /// An object of it leaves too much open.
    #[error("has an object of {properties} optional properties; an object has at most {limit}")]
    TooOpen {
        /// Properties that may be left out.
        properties: usize,
        /// The limit.
        limit: usize,
    },
    /// Its repetitions stand for too much.
    #[error("stands for {parts} letters and classes; a regular expression has at most {limit}")]
    TooRepetitive {
        /// How many it stands for.
        parts: u64,
        /// The limit.
        limit: u64,
    },
    /// Compiling it, or its first mask, took too long.
    #[error("takes more than {} ms to compile", limit.as_millis())]
    TooSlow {
        /// The limit.
        limit: Duration,
    },
    /// It says nothing that can be followed. The reason is the grammar library's.
    #[error("is no grammar that can be followed: {0}")]
    Invalid(String),
    /// The model's tokenizer is none that grammars can be followed with.
    #[error("cannot be followed with this model: {0}")]
    Unsupported(String),
    /// Too many grammars are waiting to be compiled.
    #[error("Model is overloaded")]
    Busy,
    /// The server is shutting down.
    #[error("the server is shutting down")]
    ShuttingDown,
}
