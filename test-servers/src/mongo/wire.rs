//! A minimal client for the protocol of `MongoDB` (`OP_MSG`).

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;

use bson::{Document, doc};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::wait::DEADLINE;

const OP_MSG: i32 = 2013;

/// Size of the header: message length, request id, id of the request replied to, and opcode.
const HEADER_BYTES: usize = 16;

/// The flag bits of a message, then the kind of its section.
const PREFIX: [u8; 5] = [0; 5];

/// Upper bound for the size of a reply.
const MAX_BYTES: usize = 64 << 20;

trait Stream: Read + Write {}

impl<T: Read + Write> Stream for T {}

pub(super) struct Connection(Box<dyn Stream>);

impl Connection {
    /// Connects to a Unix socket, with TLS if a CA certificate is given: a server that requires TLS
    /// requires it on its socket, too.
    pub(super) fn open(socket: &Path, authority: Option<&Path>) -> io::Result<Self> {
        let stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(DEADLINE))?;
        stream.set_write_timeout(Some(DEADLINE))?;
        Ok(Self(match authority {
            Some(authority) => Box::new(StreamOwned::new(tls(authority)?, stream)),
            None => Box::new(stream),
        }))
    }

    /// Sends a command and returns the reply, which may be an error of the server. Secondaries
    /// accept reads, too.
    pub(super) fn send(&mut self, database: &str, command: &Document) -> io::Result<Document> {
        let mut command = command.clone();
        command.insert("$db", database);
        if !command.contains_key("$readPreference") {
            command.insert("$readPreference", doc! { "mode": "primaryPreferred" });
        }
        self.0.write_all(&message(&command)?)?;
        self.0.flush()?;
        read(&mut self.0)
    }
}

fn message(command: &Document) -> io::Result<Vec<u8>> {
    let body = command.to_vec().map_err(io::Error::other)?;
    let length = HEADER_BYTES + PREFIX.len() + body.len();
    let length = i32::try_from(length).map_err(io::Error::other)?;
    let header = [length, 1, 0, OP_MSG].map(i32::to_le_bytes).concat();
    Ok([&header[..], &PREFIX, &body].concat())
}

fn read(input: &mut impl Read) -> io::Result<Document> {
    let mut header = [0; HEADER_BYTES];
    input.read_exact(&mut header)?;
    let number = |at: usize| header[at..at + 4].try_into().map(i32::from_le_bytes);
    let length = number(0).map_err(io::Error::other)?;
    let length = usize::try_from(length).map_err(io::Error::other)?;
    let rest = length.checked_sub(HEADER_BYTES).filter(|_| length <= MAX_BYTES);
    let mut rest = vec![0; rest.ok_or(io::ErrorKind::InvalidData)?];
    input.read_exact(&mut rest)?;
    let body = rest.strip_prefix(&PREFIX).ok_or(io::ErrorKind::InvalidData)?;
    Document::from_reader(body).map_err(io::Error::other)
}

/// Returns a TLS client that trusts only this CA.
fn tls(authority: &Path) -> io::Result<ClientConnection> {
    let authority = CertificateDer::from_pem_file(authority).map_err(io::Error::other)?;
    let mut roots = RootCertStore::empty();
    roots.add(authority).map_err(io::Error::other)?;
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().map_err(io::Error::other)?;
    let config = builder.with_root_certificates(roots).with_no_client_auth();
    let name = ServerName::try_from("localhost").map_err(io::Error::other)?;
    ClientConnection::new(Arc::new(config), name).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_survives_a_round_trip() {
        let command = doc! { "ping": 1, "comment": "a\0b", "$db": "admin" };
        let bytes = message(&command).unwrap();
        assert_eq!(read(&mut bytes.as_slice()).unwrap(), command);
    }

    #[test]
    fn an_incomplete_reply_is_an_error() {
        let bytes = message(&doc! { "ping": 1 }).unwrap();
        for length in 0..bytes.len() {
            assert!(read(&mut &bytes[..length]).is_err(), "{length}");
        }
    }

    #[test]
    fn an_impossible_length_is_an_error() {
        for length in [i32::MIN, -1, 0, 15, 16, 20, i32::MAX] {
            let mut bytes = message(&doc! { "ping": 1 }).unwrap();
            bytes[..4].copy_from_slice(&length.to_le_bytes());
            assert!(read(&mut bytes.as_slice()).is_err(), "{length}");
        }
    }
}
