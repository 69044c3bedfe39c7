//! The HTTP API: routes in TGI's and OpenAI's dialect over one path through images, prompt and engine.
//!
//! This module owns everything a client sees and nothing a model does. It is the only place that knows the JSON of
//! either dialect; nothing else in the crate imports it.

mod auth;
mod error;
mod extract;
mod feed;
mod generator;
mod guided;
mod head;
mod health;
mod hosted;
mod info;
mod limits;
mod loading;
mod media;
mod object;
mod observe;
mod openai;
mod openapi;
mod ranges;
mod sse;
mod start;
mod stop;
mod text;
mod tgi;
mod timing;
mod tokens;
mod trace;
mod web;

#[cfg(test)]
mod tests;

use std::ops::Deref;
use std::sync::Arc;

use axum::Router;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::{get, post};
use http::{HeaderMap, HeaderValue, Method};
use metrics_exporter_prometheus::PrometheusHandle;
use serde_json::{Map, Value};
use tokio::sync::Semaphore;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::cors::{AllowHeaders, AllowOrigin, CorsLayer};

pub use self::auth::ApiKey;
pub use self::error::{ApiError, ErrorKind};
pub use self::generator::{Admission, Generator, Tokens};
pub use self::limits::RequestLimits;
pub use self::loading::while_loading;
use crate::grammar::GrammarCompiler;
use crate::images::ImageLoader;
use crate::prompt::PromptBuilder;

/// What the routes are built on.
pub struct App {
    /// Where tokens come from: the engine.
    pub generator: Arc<dyn Generator>,
    /// Chat template and tokenizer.
    pub prompts: Arc<PromptBuilder>,
    /// What answers may be held to; `None`: every grammar is refused.
    pub grammars: Option<Arc<GrammarCompiler>>,
    /// `None`: the model takes no images.
    pub images: Option<Arc<ImageLoader>>,
    /// What the server says about its model.
    pub model: ModelInfo,
    /// How much a request may ask for.
    pub limits: RequestLimits,
    /// Who may ask, and what answers say about the server.
    pub options: ApiOptions,
    /// Where `/metrics` reads from.
    pub metrics: PrometheusHandle,
}

/// What the server says about its model.
#[derive(Clone, Debug, Default)]
pub struct ModelInfo {
    /// Hub id or path; what `/v1/models` lists.
    pub id: String,
    /// Hub revision.
    pub revision: Option<String>,
    /// `float32`, `bfloat16`, …
    pub dtype: Option<String>,
    /// `cpu`, `cuda:0`, …
    pub device: Option<String>,
    /// The Hub's task name for the model, where it is known.
    pub pipeline_tag: Option<String>,
    /// Special tokens of its tokenizer, by name.
    pub special_tokens: Map<String, Value>,
    /// Its chat template, if it has one.
    pub chat_template: Option<String>,
}

/// Who may ask, and what answers say about the server.
#[derive(Clone, Debug)]
pub struct ApiOptions {
    /// Any of these opens every route; empty: no key is asked for.
    pub api_keys: Vec<ApiKey>,
    /// Whether `/metrics` needs a key too.
    pub metrics_need_key: bool,
    /// Origins whose pages may call; `*` is any. Empty: none.
    pub cors_allow_origin: Vec<HeaderValue>,
    /// Host names that are answered for; empty: any.
    pub allowed_hosts: Vec<String>,
    /// `x-compute-type` of every answer.
    pub compute_type: HeaderValue,
    /// Tokenizer threads, for `/info`.
    pub validation_workers: u32,
}

impl Default for ApiOptions {
    fn default() -> Self {
        Self {
            api_keys: Vec::new(),
            metrics_need_key: false,
            cors_allow_origin: Vec::new(),
            allowed_hosts: Vec::new(),
            compute_type: HeaderValue::from_static("gpu+optimized"),
            validation_workers: 2,
        }
    }
}

/// The state of the routes.
struct Api {
    app: App,
    /// How the model is offered tools and calls them.
    tools: openai::tools::Dialect,
    /// What all bodies that are being read may hold together.
    bodies: Semaphore,
}

impl Deref for Api {
    type Target = App;

    fn deref(&self) -> &App {
        &self.app
    }
}

impl Api {
    /// Headers of every answer that was generated.
    fn headers(&self, characters: usize) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert("x-compute-type", self.options.compute_type.clone());
        timing::insert(&mut headers, "x-compute-characters", &characters.to_string());
        headers
    }
}

/// The routes with everything around them. The outermost layer is added last: panics, the request's name, the form of
/// errors, cross-origin rules, bounds on the head, host, key, then the route, which reads the body within its limits.
pub fn router(app: App) -> Router {
    let cors = cors(&app.options.cors_allow_origin);
    let tools = openai::tools::Dialect::of(&app.prompts);
    let api = Arc::new(Api { app, tools, bodies: Semaphore::new(extract::BODY_BUDGET_UNITS) });
    routes(&api)
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(from_fn_with_state(Arc::clone(&api), auth::require_key))
        .layer(from_fn_with_state(Arc::clone(&api), auth::require_host))
        .layer(from_fn_with_state(Arc::clone(&api), head::bound))
        .layer(cors)
        .layer(CatchPanicLayer::custom(panicked))
        .layer(from_fn(error::render))
        .layer(from_fn(head::identify))
        .with_state(api)
}

fn routes(api: &Arc<Api>) -> Router<Arc<Api>> {
    Router::new()
        .merge(generating().route_layer(from_fn(observe::observe)))
        .route("/tokenize", post(tokens::tokenize))
        .route("/detokenize", post(tokens::detokenize))
        .route("/tokenizer_info", get(tokens::tokenizer_info))
        .route("/chat_tokenize", post(openai::tokenize))
        .route("/health", get(health::health))
        .route("/ping", get(health::ping))
        .route("/live", get(health::live))
        .route("/ready", get(health::ready))
        .route("/info", get(info::info))
        .route("/metrics", get(info::metrics))
        .route("/v1/models", get(openai::models))
        .route("/v1/models/{*id}", get(openai::model))
        .route("/playground/{file}", get(web::file))
        .route("/docs", get(web::docs))
        .route("/docs/", get(web::docs_folder))
        .route("/docs/{file}", get(web::docs_file))
        .route("/api-doc/openapi.json", get(openapi::document))
        .route_layer(from_fn(head::note_route))
        .with_state(Arc::clone(api))
}

/// Routes that generate. They count as requests in the metrics.
fn generating() -> Router<Arc<Api>> {
    Router::new()
        .route("/", post(tgi::compat).get(web::root))
        .route("/v1", post(tgi::compat))
        .route("/generate", post(tgi::generate))
        .route("/generate_stream", post(tgi::generate_stream))
        .route("/v1/chat/completions", post(openai::chat))
        .route("/v1/completions", post(openai::completions))
        .route("/invocations", post(hosted::invocations))
        .route("/vertex", post(hosted::vertex))
}

async fn not_found() -> ApiError {
    ApiError::new(ErrorKind::NotFound, "no such route")
}

async fn method_not_allowed() -> ApiError {
    ApiError::new(ErrorKind::MethodNotAllowed, "this route does not take this method")
}

fn panicked(_panic: Box<dyn std::any::Any + Send>) -> axum::response::Response {
    use axum::response::IntoResponse;
    tracing::error!("a handler panicked");
    ApiError::new(ErrorKind::Internal, "internal error").into_response()
}

/// Closed unless origins are listed.
fn cors(origins: &[HeaderValue]) -> CorsLayer {
    let layer = CorsLayer::new();
    if origins.is_empty() {
        return layer;
    }
    let any = origins.iter().any(|origin| origin == "*");
    let allowed = if any { AllowOrigin::any() } else { AllowOrigin::list(origins.iter().cloned()) };
    layer
        .allow_origin(allowed)
        .allow_methods([Method::GET, Method::POST])
        // SDKs in browsers send headers of their own, and a new release more of them.
        .allow_headers(AllowHeaders::mirror_request())
        .expose_headers([head::REQUEST_ID])
}
