//! MongoDB 6: a single server, a replica set, a server with TLS and a password.
//!
//! Debian has no `mongod`: `scripts/test.sh` downloads it. TLS needs the package `openssl`.

mod member;
mod set;
mod wire;

pub use bson;
pub use set::Mongo;
