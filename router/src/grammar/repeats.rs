//! How large a regular expression is once its counted repetitions are written out: a few letters may stand for any size.

use regex_syntax::Parser;
use regex_syntax::hir::{Hir, HirKind};

use super::error::GrammarError;
use super::limits::GrammarLimits;

/// Refuses an expression that is too large. What is no expression is left to the grammar library to say.
pub(super) fn check(regex: &str, limits: &GrammarLimits) -> Result<(), GrammarError> {
    let parts = Parser::new().parse(regex).map_or(0, |parsed| parts(&parsed));
    if parts > limits.max_regex_parts {
        return Err(GrammarError::TooRepetitive { parts, limit: limits.max_regex_parts });
    }
    Ok(())
}

/// Letters and classes. The parser bounds how deep they are inside each other.
fn parts(hir: &Hir) -> u64 {
    match hir.kind() {
        HirKind::Repetition(repeated) => {
            let times = repeated.max.unwrap_or(repeated.min).max(1);
            parts(&repeated.sub).saturating_mul(times.into())
        }
        HirKind::Capture(group) => parts(&group.sub),
        HirKind::Concat(all) | HirKind::Alternation(all) => all.iter().map(parts).fold(0, u64::saturating_add),
        HirKind::Literal(literal) => literal.0.len() as u64,
        HirKind::Empty | HirKind::Class(_) | HirKind::Look(_) => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_parts(regex: &str, expected: u64) {
        assert_eq!(parts(&Parser::new().parse(regex).unwrap()), expected, "{regex}");
    }

    #[test]
    fn repetitions_multiply() {
        check_parts("abc", 3);
        check_parts("[a-z]{2,7}x", 8);
        check_parts("(a{1000}){1000}", 1_000_000);
        check_parts("((ab|[cd]){3,}e*)?", 10);
        check_parts("(((a{1000}){1000}){1000}){1000}", 1_000_000_000_000);
    }
}
