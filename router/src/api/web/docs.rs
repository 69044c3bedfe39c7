//! `GET /docs`: Swagger UI over the `OpenAPI` document, all of it from the binary.

use std::borrow::Cow;
use std::sync::Arc;

use axum::extract::Path;
use axum::response::{Redirect, Response};
use http::HeaderValue;
use http::header::CONTENT_ENCODING;
use utoipa_swagger_ui::{Config, serve};

use super::page;
use crate::api::error::{ApiError, ErrorKind};

const PAGE: &str = include_str!("docs/page.html");
const START: &str = include_str!("docs/start.js");

/// The files of Swagger UI that the page asks for, and their types.
const FILES: &[(&str, &str)] =
    &[("swagger-ui.css", "text/css; charset=utf-8"), ("swagger-ui-bundle.js", "text/javascript; charset=utf-8")];

/// `GET /docs`.
pub(in crate::api) async fn docs() -> Response {
    page::html(PAGE)
}

/// `GET /docs/`: addresses in the page count from the folder above.
pub(in crate::api) async fn docs_folder() -> Redirect {
    Redirect::permanent("../docs")
}

/// `GET /docs/{file}`.
pub(in crate::api) async fn docs_file(Path(name): Path<String>) -> Result<Response, ApiError> {
    if name == "start.js" {
        return Ok(page::file("text/javascript; charset=utf-8", START));
    }
    let known = FILES.iter().find(|(known, _)| *known == name);
    let found = known.and_then(|(name, content_type)| Some((content_type, part_of_swagger_ui(name)?)));
    let (content_type, content) = found.ok_or_else(|| ApiError::new(ErrorKind::NotFound, "no such file"))?;
    let mut response = page::file(content_type, content);
    // It is compressed in the binary, and every browser takes it so.
    response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    Ok(response)
}

fn part_of_swagger_ui(name: &str) -> Option<Cow<'static, [u8]>> {
    serve(name, Arc::new(Config::from("api-doc/openapi.json"))).ok().flatten().map(|file| file.bytes)
}
