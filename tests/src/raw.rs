//! Bytes over a TCP connection, for what no well-behaved client would send.

use std::io;
use std::net::SocketAddr;

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::{Answer, Client, DEADLINE};

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
        sent.expect("the server reads or hangs up in time")
    }

    /// Says that nothing more will be sent.
    pub async fn finish(&mut self) -> io::Result<()> {
        self.stream.shutdown().await
    }

    /// Reads one answer; `None` if the server closes the connection first.
    pub async fn answer(&mut self) -> Option<Answer> {
        timeout(DEADLINE, self.read_answer()).await.expect("the server answers or hangs up in time")
    }

    /// Waits until the server closes the connection and returns what it sent before.
    pub async fn until_closed(&mut self) -> Vec<u8> {
        let closed = async { while self.read_more().await {} };
        timeout(DEADLINE, closed).await.expect("the server hangs up in time");
        std::mem::take(&mut self.received)
    }

    async fn read_answer(&mut self) -> Option<Answer> {
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
        Some(Answer { status, headers, body: self.received.drain(..length).collect() })
    }

    /// Reads what is there; false at the end of the connection, however it came.
    async fn read_more(&mut self) -> bool {
        self.stream.read_buf(&mut self.received).await.is_ok_and(|read| read > 0)
    }
}

/// The head of a request: the request line but for the version, the identity of a client, and
/// these further headers, each with its line end.
pub fn head(client: &Client, line: &str, headers: &str) -> String {
    format!(
        "{line} HTTP/1.1\r\nHost: {}\r\nClient-ID: {}\r\nX-Project-ID: {}\r\n{headers}\r\n",
        client.address(),
        client.sends("client-id"),
        client.sends("x-project-id"),
    )
}

/// Sends bytes on a connection of their own.
pub async fn connect_and_send(client: &Client, bytes: impl AsRef<[u8]>) -> Connection {
    let mut connection = Connection::open(client.address()).await.expect("the server listens");
    connection.send(bytes).await.expect("the server reads");
    connection
}

/// A post to queue `q` of which only the body is still to come: the server waits for it.
pub async fn begin_post(client: &Client, body: &str) -> Connection {
    let headers = format!("Content-Length: {}\r\nExpect: 100-continue\r\n", body.len());
    let head = head(client, "POST /v2/queues/q/messages", &headers);
    let mut connection = connect_and_send(client, head).await;
    let go_on = connection.answer().await.expect("the server asks for the body");
    assert_eq!(go_on.status, 100, "the server asks for the body: {}", go_on.text());
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
