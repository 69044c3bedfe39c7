//! What an answer may be, in the forms of [`guided`](crate::api::guided), which reads them as they come.

// These say what JSON looks like and hold none.
#![allow(dead_code, reason = "schemas only")]

use utoipa::openapi::RefOr;
use utoipa::openapi::schema::Schema;
use utoipa::{PartialSchema, ToSchema};

use super::by_hand::one_of;

/// What the answer may be, in TGI's form. OpenAI's form is taken as well.
#[derive(ToSchema)]
pub(in crate::api) struct Grammar {
    /// `json` for a JSON schema, `regex` for a regular expression, `lark` for a grammar, `text` for anything.
    r#type: String,
    /// The schema (an object, or a string that holds one), the expression, or the grammar.
    value: Option<StringOrObject>,
}

/// What the answer has to be, in OpenAI's form. TGI's form is taken as well.
#[derive(ToSchema)]
pub(in crate::api) struct ResponseFormat {
    /// `text` for anything, `json_object` for an object, `json_schema` for what follows a schema.
    r#type: String,
    /// The schema, for `json_schema`.
    json_schema: Option<NamedSchema>,
}

/// A JSON schema as OpenAI's clients wrap it.
#[derive(ToSchema)]
struct NamedSchema {
    /// Said by clients; makes no difference.
    name: Option<String>,
    /// The schema.
    #[schema(value_type = Object)]
    schema: (),
    /// Said by clients; a schema is always kept to.
    strict: Option<bool>,
}

/// What the text of a response has to be. Other forms are taken as well.
#[derive(ToSchema)]
#[schema(as = ResponseTextFormat)]
pub(in crate::api) struct TextFormat {
    /// `text` for anything, `json_object` for an object, `json_schema` for what follows a schema.
    r#type: String,
    /// Said by clients; makes no difference.
    name: Option<String>,
    /// Said by clients; makes no difference.
    description: Option<String>,
    /// The schema, for `json_schema`.
    #[schema(value_type = Option<Object>)]
    schema: Option<()>,
    /// Said by clients; a schema is always kept to.
    strict: Option<bool>,
}

/// Text, or a JSON object.
pub(super) struct StringOrObject;

impl PartialSchema for StringOrObject {
    fn schema() -> RefOr<Schema> {
        let object = utoipa::openapi::ObjectBuilder::new().build();
        one_of("Text, or an object.", [String::schema(), object.into()])
    }
}

impl ToSchema for StringOrObject {}
