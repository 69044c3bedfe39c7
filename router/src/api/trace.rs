//! W3C Trace Context: which trace of the caller a request belongs to, so that log lines can be found by it.
//! Nothing is exported from here.

use http::{HeaderMap, HeaderName};

/// The header that names the trace and the caller's span.
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// The trace id in `traceparent`: 32 lower-case hexadecimal digits. `None` if the header is missing, sent twice or
/// malformed, as the standard asks for; a version to come may have fields behind the known ones.
pub(super) fn trace_id(headers: &HeaderMap) -> Option<&str> {
    let mut sent = headers.get_all(TRACEPARENT).iter();
    let (text, None) = (sent.next()?.to_str().ok()?, sent.next()) else { return None };
    let fields: Vec<&str> = text.split('-').collect();
    let [version, trace, parent, flags, rest @ ..] = fields.as_slice() else { return None };
    let known = is_hex(version, 2) && *version != "ff" && (rest.is_empty() || *version != "00");
    let named = is_hex(trace, 32) && is_hex(parent, 16) && [trace, parent].iter().all(|id| !is_zero(id));
    (known && named && is_hex(flags, 2)).then_some(*trace)
}

fn is_hex(text: &str, length: usize) -> bool {
    text.len() == length && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn is_zero(id: &str) -> bool {
    id.bytes().all(|byte| byte == b'0')
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

    fn found(values: &[&str]) -> Option<String> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(TRACEPARENT, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        trace_id(&headers).map(str::to_owned)
    }

    #[test]
    fn the_trace_of_the_caller() {
        for end in ["00", "01", "ff"] {
            assert_eq!(found(&[&format!("00-{TRACE}-00f067aa0ba902b7-{end}")]).as_deref(), Some(TRACE));
        }
        assert_eq!(found(&[&format!("cc-{TRACE}-00f067aa0ba902b7-01-more")]).as_deref(), Some(TRACE));
    }

    #[test]
    fn what_is_malformed_names_no_trace() {
        let good = format!("00-{TRACE}-00f067aa0ba902b7-01");
        let zero = "0".repeat(32);
        let bad = [
            String::new(),
            TRACE.to_owned(),
            format!("{good}-more"),
            format!("ff-{TRACE}-00f067aa0ba902b7-01"),
            format!("00-{zero}-00f067aa0ba902b7-01"),
            format!("00-{TRACE}-0000000000000000-01"),
            format!("00-{TRACE}-00f067aa0ba902b7-1"),
            format!("00-{TRACE}-00f067aa0ba902b7"),
            good.to_uppercase(),
            good.replace('4', "\u{e4}"),
        ];
        for text in &bad {
            assert_eq!(found(&[text]), None, "{text}");
        }
        assert_eq!(found(&[&good, &good]), None);
        assert_eq!(found(&[]), None);
    }
}
