//! One HTTP connection that sends requests one after the other, with little work for each.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{CONNECTION, CONTENT_TYPE, HOST, HeaderMap, HeaderValue, LOCATION};
use hyper::{Method, Request, Uri};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;
use uuid::Uuid;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The address of a service.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    authority: String,
}

impl Target {
    /// Returns the target at `host:port`.
    pub(crate) fn at(authority: &str) -> Result<Self> {
        Self::from_url(&format!("http://{authority}"))
    }

    pub(crate) fn from_url(url: &str) -> Result<Self> {
        let url: Uri = url.parse().with_context(|| format!("{url} is not a URL"))?;
        ensure!(url.scheme_str() == Some("http"), "only http:// can be measured, not {url}");
        ensure!(matches!(url.path(), "" | "/"), "{url} must not have a path");
        let host = url.host().with_context(|| format!("{url} has no host"))?;
        Ok(Self { authority: format!("{host}:{}", url.port_u16().unwrap_or(80)) })
    }
}

/// The parts of a response that the load generator needs.
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) location: Option<HeaderValue>,
    pub(crate) body: Bytes,
}

/// A connection with its own client id, so that it sees the messages of others.
pub(crate) struct Connection {
    target: Target,
    /// `None` after the server has announced that it closes the connection.
    sender: Option<SendRequest<Full<Bytes>>>,
    headers: HeaderMap,
}

impl Connection {
    pub(crate) async fn open(target: &Target) -> Result<Self> {
        let client = Uuid::new_v4().to_string();
        let mut headers = HeaderMap::new();
        headers.insert(HOST, HeaderValue::from_str(&target.authority)?);
        headers.insert("client-id", HeaderValue::from_str(&client)?);
        headers.insert("x-project-id", HeaderValue::from_static("bench"));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        Ok(Self { target: target.clone(), sender: Some(connect(target).await?), headers })
    }

    pub(crate) async fn open_many(target: &Target, count: usize) -> Result<Vec<Self>> {
        let mut connections = Vec::with_capacity(count);
        for _ in 0..count {
            connections.push(Self::open(target).await?);
        }
        Ok(connections)
    }

    pub(crate) async fn get(&mut self, path: Uri) -> Result<Response> {
        self.send(Method::GET, path, Bytes::new()).await
    }

    pub(crate) async fn send(
        &mut self,
        method: Method,
        path: Uri,
        body: Bytes,
    ) -> Result<Response> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = path;
        request.headers_mut().clone_from(&self.headers);
        let sender = match &mut self.sender {
            Some(sender) => sender,
            closed => closed.insert(connect(&self.target).await?),
        };
        sender.ready().await.context("the server closed a connection")?;
        let response = sender.send_request(request).await.context("a request failed")?;
        if response.headers().get(CONNECTION).is_some_and(|value| value == "close") {
            self.sender = None;
        }
        read(response).await
    }
}

async fn connect(target: &Target) -> Result<SendRequest<Full<Bytes>>> {
    let stream = timeout(CONNECT_TIMEOUT, TcpStream::connect(&target.authority))
        .await
        .with_context(|| format!("connecting to {} timed out", target.authority))?
        .with_context(|| format!("cannot connect to {}", target.authority))?;
    stream.set_nodelay(true)?;
    let (sender, connection) = handshake(TokioIo::new(stream)).await?;
    // The sender returns its failure at the next request.
    tokio::spawn(connection);
    Ok(sender)
}

async fn read(response: hyper::Response<Incoming>) -> Result<Response> {
    let (head, body) = response.into_parts();
    let body = body.collect().await.context("a response was cut off")?.to_bytes();
    Ok(Response {
        status: head.status.as_u16(),
        location: head.headers.get(LOCATION).cloned(),
        body,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_a_host_and_a_port() {
        let authority = |url| Target::from_url(url).map(|target| target.authority).ok();
        assert_eq!(authority("http://127.0.0.1:8888").as_deref(), Some("127.0.0.1:8888"));
        assert_eq!(authority("http://localhost/").as_deref(), Some("localhost:80"));
        assert_eq!(authority("http://[::1]:1").as_deref(), Some("[::1]:1"));
        assert_eq!(authority("https://localhost"), None);
        assert_eq!(authority("http://localhost/v2"), None);
        assert_eq!(authority("localhost:8888"), None);
    }
}
