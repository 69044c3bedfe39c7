//! Functions for the model to call. `openai::tools` reads them as they come.

// These say what JSON looks like and hold none.
#![allow(dead_code, reason = "schemas only")]

use utoipa::openapi::RefOr;
use utoipa::openapi::schema::Schema;
use utoipa::{PartialSchema, ToSchema};

use super::by_hand::{Named, name, one_of, reference};

/// A function that the model may call.
#[derive(ToSchema)]
pub(in crate::api) struct Tool {
    /// `function`, the only kind there is.
    r#type: Option<String>,
    /// The function.
    function: Function,
}

/// A function as the model is told of it.
#[derive(ToSchema)]
struct Function {
    /// Letters, digits, `_`, `-` and `.`.
    #[schema(min_length = 1, max_length = 128)]
    name: String,
    /// What it is for; the model reads that.
    description: Option<String>,
    /// JSON schema of its arguments; none if absent.
    #[schema(value_type = Option<Object>)]
    parameters: Option<()>,
    /// Said by clients; makes no difference.
    strict: Option<bool>,
}

/// A function that has to be called.
#[derive(ToSchema)]
struct ChosenFunction {
    /// `function`.
    r#type: String,
    /// Which.
    function: FunctionName,
}

/// A function by its name.
#[derive(ToSchema)]
struct FunctionName {
    /// As in `tools`.
    name: String,
}

/// `auto` (the model decides), `none`, `required`, the name of a function, or an object that names it.
pub(in crate::api) struct ToolChoice;

impl PartialSchema for ToolChoice {
    fn schema() -> RefOr<Schema> {
        let description = "`auto` (the model decides), `none`, `required`, the name of a function, or an object that \
                           names it. OpenAI's `allowed_tools` is taken as well.";
        one_of(description, [String::schema(), reference::<ChosenFunction>()])
    }
}

impl ToSchema for ToolChoice {
    fn schemas(schemas: &mut Named) {
        name::<ChosenFunction>(schemas);
    }
}

/// A function that the model may call, as responses have it.
#[derive(ToSchema)]
pub(in crate::api) struct FlatTool {
    /// `function`, the only kind there is.
    r#type: String,
    /// Letters, digits, `_`, `-` and `.`.
    #[schema(min_length = 1, max_length = 128)]
    name: String,
    /// What it is for; the model reads that.
    description: Option<String>,
    /// JSON schema of its arguments; none if absent.
    #[schema(value_type = Option<Object>)]
    parameters: Option<()>,
    /// Said by clients; makes no difference.
    strict: Option<bool>,
}

/// A function that has to be called, as responses have it.
#[derive(ToSchema)]
struct NamedFunction {
    /// `function`.
    r#type: String,
    /// Which; as in `tools`.
    name: String,
}

/// `auto` (the model decides), `none`, `required`, or an object that names a function.
pub(in crate::api) struct FlatToolChoice;

impl PartialSchema for FlatToolChoice {
    fn schema() -> RefOr<Schema> {
        let description = "`auto` (the model decides), `none`, `required`, or an object that names a function. \
                           OpenAI's `allowed_tools` and the form of chats are taken as well.";
        one_of(description, [String::schema(), reference::<NamedFunction>()])
    }
}

impl ToSchema for FlatToolChoice {
    fn schemas(schemas: &mut Named) {
        name::<NamedFunction>(schemas);
    }
}
