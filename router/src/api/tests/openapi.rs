//! The document and the router know the same routes.

use std::collections::BTreeSet;

use serde_json::Value;

use super::fixture::{Setup, read};

/// Files of pages, and redirects to them: nothing for a client of the API.
const PAGES: &[&str] = &["/docs", "/docs/", "/docs/{file}", "/playground/{file}"];

/// Paths of `.route("…", …)` in the source of the router: a router does not say what it knows.
fn routes() -> BTreeSet<String> {
    let source = include_str!("../mod.rs");
    let paths = source.split(".route(\"").skip(1).filter_map(|rest| rest.split('"').next());
    paths.map(|path| path.replace("{*", "{")).filter(|path| !PAGES.contains(&path.as_str())).collect()
}

#[tokio::test]
async fn every_route_is_in_the_document_and_nothing_else() {
    let (_, document) = read(Setup::playing([]).get("/api-doc/openapi.json").await).await;
    let documented: BTreeSet<String> = document["paths"].as_object().unwrap().keys().cloned().collect();
    let undocumented = routes().difference(&documented).cloned().collect::<Vec<_>>();
    // `/v1` is another name of `/` that the Hub uses.
    assert_eq!(undocumented, ["/v1"]);
    assert_eq!(documented.difference(&routes()).count(), 0);
}

#[tokio::test]
async fn errors_have_both_forms_on_openais_routes() {
    let (_, document) = read(Setup::playing([]).get("/api-doc/openapi.json").await).await;
    let schema = |path: &str, method: &str, status: &str| {
        let response = &document["paths"][path][method]["responses"][status];
        response["content"]["application/json"]["schema"]["$ref"]
            .as_str()
            .map(|name| name.rsplit('/').next().unwrap().to_owned())
    };
    for (path, method) in [("/v1/chat/completions", "post"), ("/v1/completions", "post"), ("/v1/models", "get")] {
        for status in ["401", "422", "4XX", "503"] {
            assert_eq!(schema(path, method, status).as_deref(), Some("EitherError"), "{path} {status}");
        }
    }
    for path in ["/generate", "/invocations"] {
        assert_eq!(schema(path, "post", "422").as_deref(), Some("Error"), "{path}");
    }
    let forms = document["components"]["schemas"]["EitherError"]["oneOf"].clone();
    assert_eq!(forms[1]["$ref"], "#/components/schemas/OpenAiError");
}

#[tokio::test]
async fn bounds_and_defaults_are_told() {
    let (_, document) = read(Setup::playing([]).get("/api-doc/openapi.json").await).await;
    let field = |schema: &str, name: &str| document["components"]["schemas"][schema]["properties"][name].clone();
    let top_p = field("GenerateParameters", "top_p");
    assert_eq!((&top_p["exclusiveMinimum"], &top_p["maximum"]), (&Value::from(0), &Value::from(1)));
    assert_eq!(field("ChatRequest", "temperature")["default"], Value::from(1.0));
    assert_eq!(document["openapi"].as_str().unwrap(), "3.1.0");
}
