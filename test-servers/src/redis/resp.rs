//! A minimal client for the protocol of Redis (RESP2).

use std::fmt::{self, Display, Formatter};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use crate::wait::DEADLINE;

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Reply {
    Nil,
    Text(Vec<u8>),
    Error(String),
    Items(Vec<Reply>),
}

/// Writes one line for each item, and `(nil)` for a null.
impl Display for Reply {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nil => f.write_str("(nil)"),
            Self::Text(text) => f.write_str(&String::from_utf8_lossy(text)),
            Self::Error(error) => f.write_str(error),
            Self::Items(items) => {
                let lines: Vec<_> = items.iter().map(Self::to_string).collect();
                f.write_str(&lines.join("\n"))
            }
        }
    }
}

pub(super) struct Connection(BufReader<UnixStream>);

impl Connection {
    pub(super) fn open(socket: &Path) -> io::Result<Self> {
        let stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(DEADLINE))?;
        stream.set_write_timeout(Some(DEADLINE))?;
        Ok(Self(BufReader::new(stream)))
    }

    /// Sends a command and returns its reply.
    pub(super) fn send(&mut self, command: &[impl AsRef<[u8]>]) -> io::Result<Reply> {
        let mut request = format!("*{}\r\n", command.len()).into_bytes();
        for word in command.iter().map(AsRef::as_ref) {
            request.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
            request.extend_from_slice(word);
            request.extend_from_slice(b"\r\n");
        }
        self.0.get_mut().write_all(&request)?;
        read(&mut self.0)
    }
}

fn read(input: &mut impl BufRead) -> io::Result<Reply> {
    let mut line = String::new();
    input.read_line(&mut line)?;
    let line = line.strip_suffix("\r\n").ok_or(io::ErrorKind::UnexpectedEof)?;
    let (kind, rest) = line.split_at_checked(1).ok_or(io::ErrorKind::InvalidData)?;
    match kind {
        "+" | ":" => Ok(Reply::Text(rest.into())),
        "-" => Ok(Reply::Error(rest.into())),
        "$" | "*" if rest == "-1" => Ok(Reply::Nil),
        "$" => {
            let mut text = vec![0; length(rest)? + 2];
            input.read_exact(&mut text)?;
            text.truncate(text.len() - 2);
            Ok(Reply::Text(text))
        }
        "*" => (0..length(rest)?).map(|_| read(input)).collect::<io::Result<_>>().map(Reply::Items),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

fn length(digits: &str) -> io::Result<usize> {
    digits.parse().map_err(|_| io::ErrorKind::InvalidData.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_reply_is_parsed() {
        let bytes = b"*6\r\n+OK\r\n:7\r\n$4\r\na\r\nb\r\n$-1\r\n*1\r\n-ERR no\r\n*0\r\n";
        let reply = read(&mut bytes.as_slice()).unwrap();
        let text = |text: &str| Reply::Text(text.into());
        let nested = Reply::Items(vec![Reply::Error("ERR no".into())]);
        let items =
            vec![text("OK"), text("7"), text("a\r\nb"), Reply::Nil, nested, Reply::Items(vec![])];
        assert_eq!(reply, Reply::Items(items));
        assert_eq!(reply.to_string(), "OK\n7\na\r\nb\n(nil)\nERR no\n");
    }

    #[test]
    fn an_incomplete_reply_is_an_error() {
        for bytes in ["", "+OK", "$4\r\nab", "*2\r\n+OK\r\n", "\r\n", "$x\r\n"] {
            assert!(read(&mut bytes.as_bytes()).is_err(), "{bytes:?}");
        }
    }
}
