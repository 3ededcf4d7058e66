use std::sync::Arc;

use serde_json::{Map, Value};

/// A queue's metadata: a JSON object, cheap to clone.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Metadata(Arc<Map<String, Value>>);

impl Metadata {
    /// The object.
    pub fn as_map(&self) -> &Map<String, Value> {
        &self.0
    }

    /// The value of a key, if it is set and not null.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.0.get(key).filter(|value| !value.is_null())
    }

    /// The object as JSON text, as stores keep it.
    pub fn to_json(&self) -> String {
        serde_json::Value::Object((*self.0).clone()).to_string()
    }

    /// Reads what [`Metadata::to_json`] wrote.
    ///
    /// # Errors
    /// If the text is not a JSON object.
    pub fn from_json(text: &str) -> serde_json::Result<Self> {
        serde_json::from_str(text).map(|map| Self(Arc::new(map)))
    }
}

impl From<Map<String, Value>> for Metadata {
    fn from(map: Map<String, Value>) -> Self {
        Self(Arc::new(map))
    }
}
