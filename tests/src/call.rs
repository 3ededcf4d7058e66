//! Requests as values, for tables of calls.

use reqwest::Method;
use reqwest::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use serde_json::Value;

/// The content type of a metadata PATCH.
pub const PATCH_TYPE: &str = "application/openstack-messaging-v2.0-json-patch";

/// A request that a [`Client`](crate::Client) sends. It may replace or omit the client's headers.
#[derive(Debug, Clone)]
#[must_use]
pub struct Call {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) headers: Vec<(HeaderName, Option<HeaderValue>)>,
    pub(crate) body: Option<Vec<u8>>,
}

impl Call {
    pub fn json(self, body: &Value) -> Self {
        self.body(body.to_string())
    }

    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = Some(body.into());
        self
    }

    /// Sends only this value for the header.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        let value = HeaderValue::from_bytes(value.as_bytes()).expect("a sendable header value");
        self.headers.push((name.parse().expect("a header name"), Some(value)));
        self
    }

    /// Omits a header that the client would send.
    pub fn without(mut self, name: &str) -> Self {
        self.headers.push((name.parse().expect("a header name"), None));
        self
    }
}

pub fn call(method: &str, path: impl Into<String>) -> Call {
    let method = method.parse().expect("a method");
    Call { method, path: path.into(), headers: Vec::new(), body: None }
}

pub fn get(path: impl Into<String>) -> Call {
    call("GET", path)
}

pub fn post(path: impl Into<String>) -> Call {
    call("POST", path)
}

pub fn put(path: impl Into<String>) -> Call {
    call("PUT", path)
}

pub fn delete(path: impl Into<String>) -> Call {
    call("DELETE", path)
}

/// Returns a PATCH with the content type that changes to queue metadata need.
pub fn patch(path: impl Into<String>) -> Call {
    call("PATCH", path).header(CONTENT_TYPE.as_str(), PATCH_TYPE)
}
