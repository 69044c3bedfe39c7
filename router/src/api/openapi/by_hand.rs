//! Building blocks for schemas of what is deserialised by hand.

use utoipa::ToSchema;
use utoipa::openapi::schema::{OneOfBuilder, Schema};
use utoipa::openapi::{Ref, RefOr};

/// Schemas by name, as `utoipa` collects them.
pub(in crate::api) type Named = Vec<(String, RefOr<Schema>)>;

/// One of several schemas, for what is deserialised by hand.
pub(in crate::api) fn one_of<const N: usize>(description: &str, schemas: [RefOr<Schema>; N]) -> RefOr<Schema> {
    let one_of = OneOfBuilder::new().description(Some(description));
    schemas.into_iter().fold(one_of, OneOfBuilder::item).into()
}

/// Adds the schema of `T` and those it refers to.
pub(in crate::api) fn name<T: ToSchema>(schemas: &mut Named) {
    schemas.push((T::name().into(), T::schema()));
    T::schemas(schemas);
}

/// A reference to the schema of `T`.
pub(in crate::api) fn reference<T: ToSchema>() -> RefOr<Schema> {
    Ref::from_schema_name(T::name()).into()
}
