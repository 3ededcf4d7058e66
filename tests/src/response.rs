//! A response, read to its end.

use std::borrow::Cow;

use reqwest::header::HeaderMap;
use serde_json::Value;

#[derive(Debug, Clone)]
pub struct Response {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl Response {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().expect("a textual header"))
    }

    pub fn text(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.body)
    }

    /// Parses the body, which must be JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        let parsed = serde_json::from_slice(&self.body);
        parsed.unwrap_or_else(|error| panic!("no JSON, {error}: {} {}", self.status, self.text()))
    }

    /// Checks the status and returns the response.
    #[track_caller]
    #[expect(clippy::return_self_not_must_use, reason = "a test may need only the check")]
    pub fn expect(self, status: u16, what: &str) -> Self {
        assert_eq!(self.status, status, "{what}: {}", self.text());
        self
    }

    /// Checks the status, the title, and the form that all errors share.
    #[track_caller]
    pub fn expect_error(&self, status: u16, title: &str, what: &str) {
        assert_eq!(self.status, status, "{what}: {}", self.text());
        let body = self.json();
        assert_eq!(body["title"], title, "{what}: {body}");
        let keys = body.as_object().expect("an error is an object");
        let known = |key: &String| matches!(key.as_str(), "title" | "description" | "link");
        assert!(keys.keys().all(known), "{what}: unknown keys in {body}");
        assert_eq!(self.header("content-type"), Some("application/json"), "{what}: content type");
        let vary = self.header("vary").unwrap_or_default().to_ascii_lowercase();
        assert!(vary.contains("accept"), "{what}: Vary is {vary:?}");
        self.expect_request_id(what);
    }

    /// Checks that the request id is `req-<uuid>`.
    #[track_caller]
    pub fn expect_request_id(&self, what: &str) {
        let id = self.header("x-openstack-request-id").unwrap_or_default();
        let groups = id.strip_prefix("req-").unwrap_or_default().split('-');
        let lengths: Vec<_> = groups.clone().map(str::len).collect();
        let hex = groups.flat_map(str::chars).all(|digit| digit.is_ascii_hexdigit());
        assert!(hex && lengths == [8, 4, 4, 4, 12], "{what}: request id {id:?}");
    }
}
