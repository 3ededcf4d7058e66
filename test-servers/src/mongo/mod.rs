//! MongoDB 6: one server, a replica set, one with TLS and a password.
//!
//! Debian has no `mongod`: `scripts/test.sh` fetches it. TLS takes the package `openssl`.

mod member;
mod set;
mod wire;

pub use bson;
pub use set::Mongo;
