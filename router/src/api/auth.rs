//! Who may use which route. Every route needs the key when one is configured, except those listed here by name, so that
//! a new route is closed until somebody opens it.

use std::fmt;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http::header::{AUTHORIZATION, HOST};
use http::{HeaderMap, Method};
use subtle::{Choice, ConstantTimeEq};

use super::error::{ApiError, ErrorKind};
use super::{Api, web};

/// Routes that a prober without a key may ask.
const OPEN_ROUTES: &[&str] = &["/", "/health", "/live", "/ready", "/ping"];

/// An API key, kept as a digest: it cannot be printed, and comparing it takes the same time for every wrong key.
#[derive(Clone)]
pub struct ApiKey([u8; 32]);

impl ApiKey {
    /// The key a client has to send after `Authorization: Bearer`.
    pub fn new(key: &str) -> Self {
        Self(*blake3::hash(key.as_bytes()).as_bytes())
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("ApiKey(…)")
    }
}

/// Middleware: 401 without a configured key.
pub(super) async fn require_key(
    State(api): State<Arc<Api>>,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let options = &api.options;
    let open = is_open(request.method(), request.uri().path(), options.metrics_need_key);
    if options.api_keys.is_empty() || open || knows_key(request.headers(), &options.api_keys) {
        return Ok(next.run(request).await);
    }
    Err(ApiError::new(ErrorKind::Unauthorized, "this server needs `Authorization: Bearer <key>`"))
}

fn is_open(method: &Method, path: &str, metrics_need_key: bool) -> bool {
    let reads = method == Method::GET || method == Method::HEAD;
    reads && (OPEN_ROUTES.contains(&path) || web::is_page(path) || (path == "/metrics" && !metrics_need_key))
}

fn knows_key(headers: &HeaderMap, keys: &[ApiKey]) -> bool {
    let Some(key) = bearer(headers) else { return false };
    let given = ApiKey::new(key);
    let mut known = Choice::from(0);
    for key in keys {
        known |= key.0.ct_eq(&given.0);
    }
    known.into()
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, key) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| key.trim())
}

/// Middleware: 421 for a host name that is not on the list. Keeps web pages that point their own name at this machine
/// (DNS rebinding) from reading answers.
pub(super) async fn require_host(
    State(api): State<Arc<Api>>,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let hosts = &api.options.allowed_hosts;
    if hosts.is_empty()
        || host_name(&request).is_none_or(|name| hosts.iter().any(|host| host.eq_ignore_ascii_case(name)))
    {
        return Ok(next.run(request).await);
    }
    Err(ApiError::new(ErrorKind::Misdirected, "this server does not answer for the host name of the request"))
}

/// The host that was asked, without port.
fn host_name(request: &Request) -> Option<&str> {
    let host = request.uri().host().or_else(|| request.headers().get(HOST)?.to_str().ok())?;
    if host.starts_with('[') {
        return host.find(']').map(|end| &host[..=end]);
    }
    host.split(':').next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(header: Option<&str>, known: bool) {
        let keys = [ApiKey::new("Secret"), ApiKey::new("other")];
        let header = header.map(|value| (AUTHORIZATION, value.parse().unwrap()));
        assert_eq!(knows_key(&HeaderMap::from_iter(header), &keys), known);
    }

    #[test]
    fn keys_are_compared_exactly() {
        check(Some("Bearer Secret"), true);
        check(Some("bearer other"), true);
        for wrong in ["Bearer secret", "Bearer Secret2", "Bearer Secre", "Bearer", "Bearer ", "Basic Secret", "Secret"]
        {
            check(Some(wrong), false);
        }
        check(None, false);
    }

    #[test]
    fn a_key_is_never_printed() {
        assert_eq!(format!("{:?}", ApiKey::new("Secret")), "ApiKey(…)");
    }

    #[test]
    fn only_named_reads_are_open() {
        assert!(is_open(&Method::GET, "/health", true));
        assert!(is_open(&Method::GET, "/metrics", false));
        assert!(is_open(&Method::GET, "/playground/main.js", true));
        assert!(!is_open(&Method::GET, "/metrics", true));
        assert!(!is_open(&Method::POST, "/", true));
        assert!(!is_open(&Method::GET, "/info", false));
    }

    #[test]
    fn ports_do_not_count() {
        let name = |host: &str| {
            let request = Request::builder().header(HOST, host).body(axum::body::Body::empty()).unwrap();
            host_name(&request).map(str::to_owned)
        };
        assert_eq!(name("localhost:3000").as_deref(), Some("localhost"));
        assert_eq!(name("[::1]:3000").as_deref(), Some("[::1]"));
        assert_eq!(name("example.com").as_deref(), Some("example.com"));
    }
}
