//! `/v1/models`: the one model that is served.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use serde::Serialize;
use utoipa::ToSchema;

use crate::api::Api;
use crate::api::error::{ApiError, ErrorKind};
use crate::api::openapi::{ErrorBody, Refusals};

/// `/v1/models`.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::api) struct ModelList {
    /// `list`.
    object: &'static str,
    /// The models that are served.
    data: Vec<ModelBody>,
}

/// A model that is served.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Model)]
pub(in crate::api) struct ModelBody {
    /// Its name.
    id: String,
    /// `model`.
    object: &'static str,
    /// Not known: 0.
    created: u64,
    /// Its name again.
    owned_by: String,
}

/// The model that is served.
#[utoipa::path(
    get, path = "/v1/models", tag = "Server",
    responses((status = 200, description = "A list of one.", body = ModelList), Refusals),
)]
pub(in crate::api) async fn models(State(api): State<Arc<Api>>) -> Json<ModelList> {
    Json(ModelList { object: "list", data: vec![served(&api)] })
}

/// One model. A slash in its id may be raw or encoded.
#[utoipa::path(
    get, path = "/v1/models/{id}", tag = "Server",
    params(("id" = String, Path, description = "Name of the model, as `/v1/models` lists it.")),
    responses(
        (status = 200, description = "The model.", body = ModelBody),
        (status = 404, description = "Another model.", body = ErrorBody),
        Refusals,
    ),
)]
pub(in crate::api) async fn model(
    State(api): State<Arc<Api>>,
    Path(id): Path<String>,
) -> Result<Json<ModelBody>, ApiError> {
    if id == api.model.id {
        return Ok(Json(served(&api)));
    }
    Err(ApiError::new(ErrorKind::NotFound, "no such model"))
}

fn served(api: &Api) -> ModelBody {
    let id = api.model.id.clone();
    ModelBody { owned_by: id.clone(), id, object: "model", created: 0 }
}
