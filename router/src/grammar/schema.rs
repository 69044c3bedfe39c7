//! What a schema leaves open and a model had better not use: what lists properties is an object, and gets no others.
//!
//! Whatever is valid by the narrower schema is valid by the one that was sent. text-generation-inference wrote objects
//! of the listed properties only; without this a small model invents keys until it is cut off, or writes a string where
//! nobody said `"type": "object"`.

use serde_json::{Map, Value};

/// With one of these an object has said itself which other properties it takes, or takes them from elsewhere.
const SAY_MORE: [&str; 11] = [
    "additionalProperties",
    "unevaluatedProperties",
    "patternProperties",
    "allOf",
    "anyOf",
    "oneOf",
    "$ref",
    "$dynamicRef",
    "if",
    "dependentSchemas",
    "minProperties",
];

/// With one of these a schema that lists properties says itself whether it is for objects, or might be for others.
const SAY_WHICH: [&str; 9] = ["type", "enum", "const", "allOf", "anyOf", "oneOf", "$ref", "$dynamicRef", "if"];

/// Keywords that hold a schema, a list of schemas, or schemas by name.
const ONE: [&str; 2] = ["items", "additionalProperties"];
const LISTED: [&str; 4] = ["prefixItems", "items", "anyOf", "oneOf"];
const NAMED: [&str; 4] = ["properties", "patternProperties", "$defs", "definitions"];

/// Closes every object of a schema that lists its properties, says nothing about others, and stands alone.
pub(crate) fn close_objects(schema: &mut Map<String, Value>) {
    mean_object(schema);
    if !combines(schema) {
        close(schema, true);
    }
}

/// The properties that are listed are an object's, though JSON Schema itself lets anything else pass beside one.
fn mean_object(schema: &mut Map<String, Value>) {
    if schema.contains_key("properties") && !SAY_WHICH.iter().any(|key| schema.contains_key(*key)) {
        schema.insert("type".to_owned(), "object".into());
    }
}

/// Whether schemas are laid over each other anywhere: then each needs what the others list. A list of one is none.
fn combines(schema: &Map<String, Value>) -> bool {
    let lists = schema.contains_key("properties");
    let laid_over = |key: &str, value: &Value| match key {
        "allOf" => lists || value.as_array().is_none_or(|all| all.len() > 1),
        "$ref" | "$dynamicRef" => lists,
        _ => false,
    };
    schema.iter().any(|(key, value)| laid_over(key, value) || combines_within(value))
}

fn combines_within(value: &Value) -> bool {
    match value {
        Value::Object(map) => combines(map),
        Value::Array(items) => items.iter().any(combines_within),
        _ => false,
    }
}

fn close(schema: &mut Map<String, Value>, alone: bool) {
    mean_object(schema);
    let lists = schema.contains_key("properties");
    if alone && lists && !SAY_MORE.iter().any(|key| schema.contains_key(*key)) {
        schema.insert("additionalProperties".to_owned(), false.into());
    }
    for (key, value) in schema.iter_mut() {
        // A branch adds to the properties beside it.
        let alone = !(lists && matches!(key.as_str(), "anyOf" | "oneOf"));
        match value {
            Value::Object(inner) if ONE.contains(&key.as_str()) => close(inner, alone),
            Value::Object(inner) if NAMED.contains(&key.as_str()) => {
                inner.values_mut().for_each(|one| enter(one, alone));
            }
            Value::Array(inner) if LISTED.contains(&key.as_str()) => inner.iter_mut().for_each(|one| enter(one, alone)),
            _ => {}
        }
    }
}

fn enter(value: &mut Value, alone: bool) {
    if let Value::Object(schema) = value {
        close(schema, alone);
    }
}
