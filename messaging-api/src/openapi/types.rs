//! Builders of the schemas of simple types.

use serde_json::Value;
use utoipa::openapi::{
    ArrayBuilder, ObjectBuilder, Ref, RefOr, Schema, SchemaFormat, Type, schema::SchemaType,
};

/// Returns the schema of a text.
pub(super) fn text() -> ObjectBuilder {
    typed(Type::String)
}

/// Returns the schema of a text in a named format.
pub(super) fn format(name: &str) -> ObjectBuilder {
    text().format(Some(SchemaFormat::Custom(name.to_owned())))
}

/// Returns the schema of a text that is one of these values.
pub(super) fn one_of<V: Into<Value>>(values: impl IntoIterator<Item = V>) -> ObjectBuilder {
    text().enum_values(Some(values))
}

/// Returns the schema of an integer within bounds.
pub(super) fn integer(min: i64, max: i64) -> ObjectBuilder {
    typed(Type::Integer).minimum(Some(min)).maximum(Some(max))
}

/// Returns the schema of an array.
pub(super) fn array(items: impl Into<RefOr<Schema>>) -> ArrayBuilder {
    ArrayBuilder::new().items(utoipa::openapi::schema::ArrayItems::from(items.into()))
}

/// Returns the schema of any value.
pub(super) fn any() -> ObjectBuilder {
    ObjectBuilder::new().schema_type(SchemaType::AnyValue)
}

/// Returns the schema of a type.
pub(super) fn typed(name: Type) -> ObjectBuilder {
    ObjectBuilder::new().schema_type(name)
}

/// Returns the schema of several types.
pub(super) fn either(names: impl IntoIterator<Item = Type>) -> ObjectBuilder {
    ObjectBuilder::new().schema_type(names.into_iter().collect::<SchemaType>())
}

/// Returns the schema of an object.
pub(super) fn object() -> ObjectBuilder {
    typed(Type::Object)
}

/// Returns a reference to a schema of the document.
pub(super) fn named(schema: &str) -> Ref {
    Ref::from_schema_name(schema)
}

/// Returns the schema of a number that is never negative.
pub(super) fn amount(text: &str) -> ObjectBuilder {
    typed(Type::Integer).minimum(Some(0)).description(Some(text))
}

/// Returns the schema of a duration in seconds, with its default.
pub(super) fn seconds(text: &str, min: i64, max: i64, default: i64) -> ObjectBuilder {
    integer(min, max).default(Some(default.into())).description(Some(text))
}
