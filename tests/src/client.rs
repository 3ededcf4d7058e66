//! An HTTP client with an identity.

use std::net::SocketAddr;

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;
use test_servers::DEADLINE;

use crate::call::{Call, call, delete, get, patch, post, put};
use crate::response::Response;

/// Sends calls to one server. Clones share its connections.
#[derive(Debug, Clone)]
#[must_use]
pub struct Client {
    http: reqwest::Client,
    address: SocketAddr,
    headers: HeaderMap,
}

impl Client {
    /// Returns a client that sends no identity.
    pub fn new(address: SocketAddr) -> Self {
        Self { http: http(), address, headers: HeaderMap::new() }
    }

    /// Returns a client with the same identity and new connections, for a server that was
    /// restarted.
    pub fn reconnected(&self) -> Self {
        Self { http: http(), ..self.clone() }
    }

    pub fn id(&self, id: &str) -> Self {
        self.with("client-id", id)
    }

    pub fn project(&self, project: &str) -> Self {
        self.with("x-project-id", project)
    }

    /// Returns a client that sends this header, too, or this value of it.
    pub fn with(&self, name: &str, value: &str) -> Self {
        let mut client = self.clone();
        let value = HeaderValue::from_bytes(value.as_bytes()).expect("a sendable header value");
        client.headers.insert(name.parse::<HeaderName>().expect("a header name"), value);
        client
    }

    /// Returns a client of the same project with another Client-ID.
    pub fn other_client(&self) -> Self {
        self.id("5e1fe55e-c0de-4bad-8dea-0123456789ab")
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the value that it sends for a header.
    pub fn sends(&self, name: &str) -> &str {
        self.headers[name].to_str().expect("a textual header")
    }

    /// Sends a call. Panics if there is no response.
    pub async fn send(&self, call: Call) -> Response {
        let shown = format!("{} {}", call.method, call.path);
        self.try_send(call).await.unwrap_or_else(|error| panic!("{shown}: {error:?}"))
    }

    /// Sends a call to a server that may have ended.
    pub async fn try_send(&self, call: Call) -> reqwest::Result<Response> {
        let mut headers = self.headers.clone();
        for (name, value) in call.headers {
            match value {
                Some(value) => drop(headers.insert(name, value)),
                None => drop(headers.remove(name)),
            }
        }
        let url = format!("http://{}{}", self.address, call.path);
        let mut request = self.http.request(call.method, url).headers(headers);
        if let Some(body) = call.body {
            request = request.body(body);
        }
        let response = request.send().await?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        Ok(Response { status, headers, body: response.bytes().await?.to_vec() })
    }

    pub async fn get(&self, path: impl Into<String>) -> Response {
        self.send(get(path)).await
    }

    pub async fn post(&self, path: impl Into<String>, body: &Value) -> Response {
        self.send(post(path).json(body)).await
    }

    pub async fn put(&self, path: impl Into<String>, body: &Value) -> Response {
        self.send(put(path).json(body)).await
    }

    pub async fn delete(&self, path: impl Into<String>) -> Response {
        self.send(delete(path)).await
    }

    /// Sends metadata operations to a queue.
    pub async fn patch_queue(&self, queue: &str, operations: &Value) -> Response {
        self.send(patch(format!("/v2/queues/{queue}")).json(operations)).await
    }

    /// Renews a claim.
    pub async fn patch_claim(&self, queue: &str, claim: &str, body: &Value) -> Response {
        self.send(call("PATCH", format!("/v2/queues/{queue}/claims/{claim}")).json(body)).await
    }
}

fn http() -> reqwest::Client {
    reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .timeout(DEADLINE)
        .build()
        .expect("an HTTP client can be built")
}
