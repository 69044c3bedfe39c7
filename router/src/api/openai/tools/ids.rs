//! Names of calls. Most models do not care; Mistral's templates refuse all but nine letters and digits.

use crate::api::head;

/// What the ids of calls look like.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(in crate::api) enum IdStyle {
    /// `call_` and something unique.
    Call,
    /// Nine letters and digits.
    Nine,
}

const NINE: usize = 9;

impl IdStyle {
    pub(super) fn new_id(self) -> String {
        let random = head::random_id();
        match self {
            Self::Call => format!("call_{random}"),
            Self::Nine => random[..NINE].to_owned(),
        }
    }

    /// An id that a client sent, as the template takes it. The same one always becomes the same.
    pub(super) fn fitted(self, id: &str) -> String {
        let fits = id.len() == NINE && id.bytes().all(|byte| byte.is_ascii_alphanumeric());
        if self == Self::Call || fits {
            return id.to_owned();
        }
        blake3::hash(id.as_bytes()).to_hex()[..NINE].to_owned()
    }
}
