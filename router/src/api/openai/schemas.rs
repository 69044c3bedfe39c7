//! Schemas of what is deserialised by hand, beside [`super::types`] where that is done.

use utoipa::openapi::schema::Schema;
use utoipa::openapi::{ObjectBuilder, Ref, RefOr};
use utoipa::{PartialSchema, ToSchema};

use super::types::{ContentBody, ImageUrl, OneOrMany, PartBody};
use crate::api::openapi::{Named, name, one_of};

impl PartialSchema for ContentBody {
    fn schema() -> RefOr<Schema> {
        let parts = Ref::from_schema_name(PartBody::name()).to_array_builder();
        one_of("A text, or a list of parts.", [String::schema(), parts.into()])
    }
}

impl ToSchema for ContentBody {
    fn name() -> std::borrow::Cow<'static, str> {
        "Content".into()
    }

    fn schemas(schemas: &mut Named) {
        name::<PartBody>(schemas);
    }
}

impl PartialSchema for ImageUrl {
    fn schema() -> RefOr<Schema> {
        let address = ObjectBuilder::new()
            .schema_type(utoipa::openapi::schema::Type::String)
            .description(Some("An `http(s)` address or a `data:` URI."))
            .build();
        let detail = ObjectBuilder::new()
            .schema_type(utoipa::openapi::schema::Type::String)
            .enum_values(Some(["auto", "low", "high"]))
            .description(Some(
                "`low` makes few tokens of an image, where the model has a smaller form of one; `high` and `auto` are what \
                 its own processor makes.",
            ))
            .build();
        let object = ObjectBuilder::new().property("url", address.clone()).property("detail", detail).required("url");
        let object = object.build();
        one_of("An object with `url`, or the bare address.", [object.into(), address.into()])
    }
}

impl ToSchema for ImageUrl {
    fn name() -> std::borrow::Cow<'static, str> {
        "ImageUrl".into()
    }
}

impl PartialSchema for OneOrMany {
    fn schema() -> RefOr<Schema> {
        one_of("A string, or a list of strings.", [String::schema(), Vec::<String>::schema()])
    }
}

impl ToSchema for OneOrMany {
    fn name() -> std::borrow::Cow<'static, str> {
        "Strings".into()
    }
}
