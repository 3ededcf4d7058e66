//! Direct calls of functions on Redis. Each connection pipelines several commands, like
//! `redis-benchmark -P`, which cannot use the reply to one command in the next.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// Commands that a connection sends in one pipeline.
pub(crate) const PIPELINE: u64 = 16;
/// Messages of a claim.
const CLAIM: i64 = 10;

/// The parts of a reply that are needed.
enum Reply {
    Number(i64),
    Other,
    Array(Vec<Reply>),
}

struct Connection {
    stream: TcpStream,
    read: Vec<u8>,
    at: usize,
}

impl Connection {
    async fn open(port: u16) -> Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, read: Vec::new(), at: 0 })
    }

    /// Sends commands in one pipeline and reads a reply for each.
    async fn send(&mut self, commands: &[Vec<Vec<u8>>]) -> Result<Vec<Reply>> {
        let mut bytes = Vec::new();
        for command in commands {
            bytes.extend(format!("*{}\r\n", command.len()).into_bytes());
            for part in command {
                bytes.extend(format!("${}\r\n", part.len()).into_bytes());
                bytes.extend(part);
                bytes.extend(b"\r\n");
            }
        }
        self.stream.write_all(&bytes).await?;
        let mut replies = Vec::with_capacity(commands.len());
        for _ in commands {
            replies.push(Box::pin(self.reply()).await?);
        }
        self.read.drain(..self.at);
        self.at = 0;
        Ok(replies)
    }

    async fn reply(&mut self) -> Result<Reply> {
        let line = self.line().await?;
        let (kind, rest) = line.split_at(1);
        let number = || rest.parse::<i64>().context("a malformed reply");
        Ok(match kind {
            ":" => Reply::Number(number()?),
            "$" => {
                if let Ok(length) = usize::try_from(number()?) {
                    self.fill(length + 2).await?;
                    self.at += length + 2;
                }
                Reply::Other
            }
            "*" => {
                let mut parts = Vec::new();
                for _ in 0..number()? {
                    parts.push(Box::pin(self.reply()).await?);
                }
                Reply::Array(parts)
            }
            "+" => Reply::Other,
            _ => bail!("Redis replied {line}"),
        })
    }

    async fn line(&mut self) -> Result<String> {
        loop {
            if let Some(length) = memchr::memchr(b'\n', &self.read[self.at..]) {
                let line = &self.read[self.at..self.at + length.saturating_sub(1)];
                let line = String::from_utf8_lossy(line).into_owned();
                self.at += length + 1;
                ensure!(!line.is_empty(), "an empty reply");
                return Ok(line);
            }
            self.more().await?;
        }
    }

    async fn fill(&mut self, count: usize) -> Result<()> {
        while self.read.len() - self.at < count {
            self.more().await?;
        }
        Ok(())
    }

    async fn more(&mut self) -> Result<()> {
        let read = self.stream.read_buf(&mut self.read).await?;
        ensure!(read > 0, "Redis closed a connection");
        Ok(())
    }
}

/// The Redis functions of a queue.
#[derive(Debug, Clone)]
pub(crate) struct Functions {
    /// The prefix of their names.
    pub(crate) prefix: String,
    /// The queue's key.
    pub(crate) queue: String,
}

impl Functions {
    /// Returns the command that calls a function.
    pub(crate) fn call(&self, name: &str, arguments: &[Vec<u8>]) -> Vec<Vec<u8>> {
        let tag = self.queue.rsplit_once(':').map_or("", |(tag, _)| tag);
        let mut call: Vec<Vec<u8>> = ["FCALL", &format!("{}{name}", self.prefix), "2"]
            .iter()
            .map(|part| part.as_bytes().to_vec())
            .collect();
        call.push(self.queue.clone().into_bytes());
        call.push(format!("{tag}:due").into_bytes());
        call.extend_from_slice(arguments);
        call
    }
}

/// Claims ten messages of a filled queue, reads and deletes them, again and again. Returns the
/// messages per second.
pub(crate) async fn claim_and_delete(
    port: u16,
    functions: &Functions,
    connections: usize,
    length: Duration,
) -> Result<f64> {
    let start = Instant::now();
    let mut tasks = JoinSet::new();
    for number in 0..connections {
        let (connection, functions) = (Connection::open(port).await?, functions.clone());
        tasks.spawn(drain(connection, functions, number, start + length));
    }
    let mut messages = 0;
    while let Some(done) = tasks.join_next().await {
        messages += done??;
    }
    Ok(crate::report::float(messages) / start.elapsed().as_secs_f64())
}

async fn drain(
    mut connection: Connection,
    functions: Functions,
    number: usize,
    until: Instant,
) -> Result<u64> {
    let text = |number: i64| number.to_string().into_bytes();
    // Messages were posted before this time and expire after it.
    let now = text(NOW);
    let (mut messages, mut claims) = (0, 0_u64);
    while Instant::now() < until {
        let mut claim = Vec::new();
        for _ in 0..PIPELINE {
            claims += 1;
            let id = format!("{number:06}{claims:010}").into_bytes();
            let arguments =
                [now.clone(), id, text(300), text(60), text(CLAIM), Vec::new(), Vec::new()];
            claim.push(functions.call("claim", &arguments));
        }
        let (mut reads, mut deletes) = (Vec::new(), Vec::new());
        for reply in connection.send(&claim).await? {
            let Reply::Array(parts) = reply else { bail!("a claim returned no array") };
            let number = |n: usize| match parts.get(n) {
                Some(Reply::Number(number)) => Ok(*number),
                _ => bail!("a claim returned too few values"),
            };
            let (first, last) = (number(3)?, number(4)?);
            if first == 0 {
                continue;
            }
            let stream = format!("{}:1", functions.queue).into_bytes();
            reads.push(vec![b"XRANGE".to_vec(), stream, text(first), text(last)]);
            let mut arguments = vec![now.clone(), text(0)];
            arguments.extend((first..=last).map(text));
            deletes.push(functions.call("delete_many", &arguments));
            messages += u64::try_from(last - first + 1)?;
        }
        if reads.is_empty() {
            break;
        }
        connection.send(&reads).await?;
        connection.send(&deletes).await?;
    }
    Ok(messages)
}

/// The current time in direct calls, in milliseconds: a day in 2026.
pub(crate) const NOW: i64 = 1_790_000_000_000;

/// Returns a stored message without zero bytes, so that it can be an argument of `redis-benchmark`.
/// It was posted and visible long ago, expires in the far future, and has no flags but the format.
/// Values that the calls do not read differ from those of the service.
pub(crate) fn message(body_bytes: usize) -> String {
    /// Size of the header before a body: times, flags, client and lengths.
    const HEAD: usize = 68;
    let mut text = "\u{1}".repeat(12);
    text.push_str(&"\u{7f}".repeat(6));
    text.push_str(&"\u{1}".repeat(5));
    text.push(' ');
    text.push_str(&"x".repeat(HEAD - text.len() + body_bytes));
    text
}
