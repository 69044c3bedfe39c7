//! `GET /`: the playground for a browser, nothing for a health check. The page lies in `playground/` as it is served.

use axum::extract::Path;
use axum::response::{IntoResponse, Response};
use http::header::{ACCEPT, VARY};
use http::{HeaderMap, StatusCode};

use super::page;
use crate::api::error::{ApiError, ErrorKind};

const PAGE: &str = include_str!("playground/page.html");
const JAVASCRIPT: &str = "text/javascript; charset=utf-8";

/// What the page is made of: name, type, content.
const FILES: &[(&str, &str, &str)] = &[
    ("style.css", "text/css; charset=utf-8", include_str!("playground/style.css")),
    ("conversation.js", JAVASCRIPT, include_str!("playground/conversation.js")),
    ("copy.js", JAVASCRIPT, include_str!("playground/copy.js")),
    ("main.js", JAVASCRIPT, include_str!("playground/main.js")),
    ("measures.js", JAVASCRIPT, include_str!("playground/measures.js")),
    ("pictures.js", JAVASCRIPT, include_str!("playground/pictures.js")),
    ("request.js", JAVASCRIPT, include_str!("playground/request.js")),
    ("server.js", JAVASCRIPT, include_str!("playground/server.js")),
    ("settings.js", JAVASCRIPT, include_str!("playground/settings.js")),
];

/// The playground for who asks for `text/html`, an empty answer for everybody else.
#[utoipa::path(
    get, path = "/", tag = "Server", responses((status = 200, description = "The page, or nothing.", content_type = "text/html", body = String)),
    security(()),
)]
pub(in crate::api) async fn root(headers: HeaderMap) -> Response {
    if asks_for_html(&headers) { page::html(PAGE) } else { ([(VARY, "accept")], StatusCode::OK).into_response() }
}

/// `GET /playground/{file}`.
pub(in crate::api) async fn file(Path(name): Path<String>) -> Result<Response, ApiError> {
    let found = FILES.iter().find(|(known, ..)| *known == name);
    let (_, content_type, content) = found.ok_or_else(|| ApiError::new(ErrorKind::NotFound, "no such file"))?;
    Ok(page::file(content_type, *content))
}

/// Whether the client names HTML; `*/*` names nothing.
fn asks_for_html(headers: &HeaderMap) -> bool {
    let ranges =
        headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
    let mut types = ranges.map(|range| range.split(';').next().unwrap_or_default().trim());
    types.any(|name| name.eq_ignore_ascii_case("text/html"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asks_for_html() {
        let asks = |value: &str| asks_for_html(&HeaderMap::from_iter([(ACCEPT, value.parse().unwrap())]));
        assert!(asks("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"));
        assert!(asks("application/json, Text/HTML;q=0.5"));
        for other in ["*/*", "application/json", "text/*", "text/htmlx"] {
            assert!(!asks(other), "{other}");
        }
        assert!(!asks_for_html(&HeaderMap::new()));
    }

    #[test]
    fn every_file_is_served_and_every_import_is_a_file() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/api/web/playground");
        let mut there: Vec<_> =
            folder.read_dir().unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        there.retain(|name| name != "page.html");
        there.sort_unstable();
        let mut served: Vec<_> = FILES.iter().map(|(name, ..)| (*name).to_owned()).collect();
        served.sort_unstable();
        assert_eq!(there, served);
    }

    #[test]
    fn scripts_and_styles_carry_the_nonce() {
        for line in PAGE.lines().filter(|line| line.contains("<script") || line.contains("rel=\"stylesheet\"")) {
            assert!(line.contains("nonce=\"{nonce}\""), "{line}");
        }
        assert!(!PAGE.contains("style=") && !PAGE.contains("onclick="));
    }
}
