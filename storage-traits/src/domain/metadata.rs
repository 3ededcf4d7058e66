use std::sync::Arc;

use serde_json::{Map, Value};

/// Metadata of a queue or settings of a group: a JSON object, cheap to clone. The API allows 64 KiB
/// for a queue by default.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Metadata(Arc<Map<String, Value>>);

impl Metadata {
    /// Returns the object.
    pub fn as_map(&self) -> &Map<String, Value> {
        &self.0
    }

    /// Returns the value of a key; `None` if it is missing or null.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.0.get(key).filter(|value| !value.is_null())
    }

    /// Returns the object as JSON text, the form that stores keep.
    pub fn to_json(&self) -> String {
        serde_json::Value::Object((*self.0).clone()).to_string()
    }

    /// Reads the form that [`Metadata::to_json`] returns.
    ///
    /// # Errors
    /// [`serde_json::Error`] if the text is not a JSON object.
    pub fn from_json(text: &str) -> serde_json::Result<Self> {
        serde_json::from_str(text).map(|map| Self(Arc::new(map)))
    }
}

impl From<Map<String, Value>> for Metadata {
    fn from(map: Map<String, Value>) -> Self {
        Self(Arc::new(map))
    }
}
