//! TCP connections for requests that an HTTP client would not send.

use std::io;
use std::net::SocketAddr;

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use test_servers::DEADLINE;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::client::Client;
use crate::response::Response;

/// One connection to a server.
pub struct Connection {
    stream: TcpStream,
    received: Vec<u8>,
}

impl Connection {
    pub async fn open(address: SocketAddr) -> io::Result<Self> {
        Ok(Self::over(TcpStream::connect(address).await?))
    }

    pub fn over(stream: TcpStream) -> Self {
        Self { stream, received: Vec::new() }
    }

    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        let sent = timeout(DEADLINE, self.stream.write_all(bytes.as_ref())).await;
        sent.expect("the server reads or closes the connection in time")
    }

    /// Closes the sending side.
    pub async fn finish(&mut self) -> io::Result<()> {
        self.stream.shutdown().await
    }

    /// Reads one response. Returns `None` if the server closes the connection first.
    pub async fn response(&mut self) -> Option<Response> {
        let response = timeout(DEADLINE, self.read_response()).await;
        response.expect("the server responds or closes the connection in time")
    }

    /// Waits until the server closes the connection, and returns the bytes that it sent before.
    pub async fn until_closed(&mut self) -> Vec<u8> {
        let closed = async { while self.read_more().await {} };
        timeout(DEADLINE, closed).await.expect("the server closes the connection in time");
        std::mem::take(&mut self.received)
    }

    async fn read_response(&mut self) -> Option<Response> {
        let end = loop {
            match find(&self.received, b"\r\n\r\n") {
                Some(end) => break end,
                None if self.read_more().await => {}
                None => return None,
            }
        };
        let head = String::from_utf8_lossy(&self.received[..end]).into_owned();
        self.received.drain(..end + 4);
        let (status, headers) = parse_head(&head);
        let length =
            headers.get("content-length").map_or(0, |n| n.to_str().unwrap().parse().unwrap());
        while self.received.len() < length {
            if !self.read_more().await {
                return None;
            }
        }
        Some(Response { status, headers, body: self.received.drain(..length).collect() })
    }

    /// Reads available bytes. Returns false if the connection has ended, for whatever reason.
    async fn read_more(&mut self) -> bool {
        self.stream.read_buf(&mut self.received).await.is_ok_and(|read| read > 0)
    }
}

/// Returns the head of a request. `line` is the request line without the version; `headers` are
/// further headers, each with its line end.
pub fn head(client: &Client, line: &str, headers: &str) -> String {
    format!(
        "{line} HTTP/1.1\r\nHost: {}\r\nClient-ID: {}\r\nX-Project-ID: {}\r\n{headers}\r\n",
        client.address(),
        client.sends("client-id"),
        client.sends("x-project-id"),
    )
}

/// Sends bytes on a new connection.
pub async fn connect_and_send(client: &Client, bytes: impl AsRef<[u8]>) -> Connection {
    let mut connection = Connection::open(client.address()).await.expect("the server listens");
    connection.send(bytes).await.expect("the server reads");
    connection
}

/// Sends the head of a post to queue `q`. Returns when the server waits for the body.
pub async fn begin_post(client: &Client, body: &str) -> Connection {
    let headers = format!("Content-Length: {}\r\nExpect: 100-continue\r\n", body.len());
    let head = head(client, "POST /v2/queues/q/messages", &headers);
    let mut connection = connect_and_send(client, head).await;
    let response = connection.response().await.expect("the server asks for the body");
    assert_eq!(response.status, 100, "the server asks for the body: {}", response.text());
    connection
}

fn parse_head(head: &str) -> (u16, HeaderMap) {
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).expect("a status line");
    let mut headers = HeaderMap::new();
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        let name: HeaderName = name.parse().expect("a header name");
        headers.append(name, HeaderValue::from_str(value.trim()).expect("a header value"));
    }
    (status.parse().expect("a status"), headers)
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}
