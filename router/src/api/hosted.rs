//! Routes that hosts of models call: `/invocations` (`SageMaker`) and `/vertex` (Vertex AI). Either takes the bodies of
//! other routes, and says what is wrong with them as those do.

use std::borrow::Cow;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::Response;
use futures::future::try_join_all;
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::Schema;
use utoipa::{PartialSchema, ToSchema};

use super::error::ApiError;
use super::extract::ApiJson;
use super::openai::{ChatBody, CompletionBody};
use super::openapi::{GenerationRefusals, Named, name, one_of, reference};
use super::tgi::GenerateBody;
use super::{Api, object, openai, tgi};

/// The body of another route, by the first of `inputs`, `messages` and `prompt` that is there.
pub(super) enum AnyBody {
    Generate(Box<GenerateBody>),
    Chat(Box<ChatBody>),
    Completion(Box<CompletionBody>),
}

/// `POST /vertex`.
#[derive(Deserialize, ToSchema)]
#[schema(as = VertexRequest)]
pub(super) struct Instances {
    /// Bodies of `/generate` and `/v1/chat/completions`.
    #[schema(min_items = 1)]
    instances: Vec<AnyBody>,
}

/// One text an instance, in order.
#[derive(Serialize, ToSchema)]
#[schema(as = VertexResponse)]
pub(super) struct Predictions {
    /// The texts.
    predictions: Vec<String>,
}

// A body is read as JSON first, so that errors are those of the route it is for.
impl<'de> Deserialize<'de> for AnyBody {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let fields = Map::deserialize(deserializer)?;
        let given = |name: &str| fields.get(name).is_some_and(|value| !value.is_null());
        if given("inputs") {
            object::read(Value::Object(fields)).map(|body| Self::Generate(Box::new(body)))
        } else if given("messages") {
            object::read(Value::Object(fields)).map(|body| Self::Chat(Box::new(body)))
        } else if given("prompt") {
            object::read(Value::Object(fields)).map(|body| Self::Completion(Box::new(body)))
        } else {
            Err(D::Error::custom("one of `inputs`, `messages` and `prompt` is needed"))
        }
    }
}

impl PartialSchema for AnyBody {
    fn schema() -> RefOr<Schema> {
        let description = "The body of another route, by the first of `inputs`, `messages` and `prompt` that is there.";
        let bodies = [reference::<GenerateBody>(), reference::<ChatBody>(), reference::<CompletionBody>()];
        one_of(description, bodies)
    }
}

impl ToSchema for AnyBody {
    fn name() -> Cow<'static, str> {
        "AnyRequest".into()
    }

    fn schemas(schemas: &mut Named) {
        name::<GenerateBody>(schemas);
        name::<ChatBody>(schemas);
        name::<CompletionBody>(schemas);
    }
}

/// Answers as `/`, `/v1/chat/completions` or `/v1/completions`, whichever the body is for. `SageMaker`'s.
#[utoipa::path(
    post, path = "/invocations", tag = "Others",
    request_body(content = AnyBody, examples(
        ("inputs" = (summary = "A body of `/`", value = json!({
            "inputs": "What is a rabbit?", "parameters": {"max_new_tokens": 16},
        }))),
        ("messages" = (summary = "A body of `/v1/chat/completions`", value = json!({
            "messages": [{"role": "user", "content": "What can you do?"}], "max_tokens": 16,
        }))),
    )),
    responses(
        (status = 200, description = "What the other route answers.",
         content((Value = "application/json"), (String = "text/event-stream"))),
        GenerationRefusals,
    ),
)]
pub(super) async fn invocations(
    State(api): State<Arc<Api>>,
    ApiJson(body): ApiJson<AnyBody>,
) -> Result<Response, ApiError> {
    match body {
        AnyBody::Generate(body) => tgi::compat(State(api), ApiJson(*body)).await,
        AnyBody::Chat(body) => openai::chat(State(api), ApiJson(*body)).await,
        AnyBody::Completion(body) => openai::completions(State(api), ApiJson(*body)).await,
    }
}

/// Answers every instance whole. One that fails fails them all, for its own reason. Vertex AI's.
#[utoipa::path(
    post, path = "/vertex", tag = "Others",
    request_body(content = Instances, example = json!({"instances": [
        {"inputs": "What is a rabbit?", "parameters": {"max_new_tokens": 16}},
        {"messages": [{"role": "user", "content": "What can you do?"}], "max_tokens": 16},
    ]})),
    responses((status = 200, description = "One text an instance, in order.", body = Predictions), GenerationRefusals),
)]
pub(super) async fn vertex(
    State(api): State<Arc<Api>>,
    ApiJson(body): ApiJson<Instances>,
) -> Result<Json<Predictions>, ApiError> {
    if body.instances.is_empty() {
        return Err(ApiError::field("instances", "must not be empty"));
    }
    let predictions = try_join_all(body.instances.into_iter().map(|instance| predict(&api, instance))).await?;
    Ok(Json(Predictions { predictions }))
}

async fn predict(api: &Arc<Api>, instance: AnyBody) -> Result<String, ApiError> {
    match instance {
        AnyBody::Generate(body) => tgi::generated_text(api, *body).await,
        AnyBody::Chat(body) => openai::answer_text(api, *body).await,
        AnyBody::Completion(_) => {
            Err(ApiError::field("prompt", "is not served on this route: use `inputs` or `messages`"))
        }
    }
}
