//! Servers that the tests share. Each test uses a database of its own.

pub(crate) mod plans;

use std::sync::{
    OnceLock,
    atomic::{AtomicUsize, Ordering},
};

use backend_mongo::MongoOptions;
use test_servers::mongo::Mongo;

/// Returns a server without a replica set.
pub(crate) fn standalone() -> &'static Mongo {
    static SERVER: OnceLock<Mongo> = OnceLock::new();
    SERVER.get_or_init(|| Mongo::standalone(&[]))
}

/// Returns a replica set of one member.
pub(crate) fn single() -> &'static Mongo {
    static SERVER: OnceLock<Mongo> = OnceLock::new();
    SERVER.get_or_init(|| Mongo::replica_set(1, &[]))
}

/// Returns a replica set of three members.
pub(crate) fn triple() -> &'static Mongo {
    static SERVER: OnceLock<Mongo> = OnceLock::new();
    SERVER.get_or_init(|| Mongo::replica_set(3, &[]))
}

/// Returns the name of an unused database.
pub(crate) fn own_database() -> String {
    static DATABASES: AtomicUsize = AtomicUsize::new(0);
    format!("test-{}", DATABASES.fetch_add(1, Ordering::Relaxed))
}

/// Returns options with a timeout that suits a busy machine.
pub(crate) fn options(server: &Mongo, database: &str) -> MongoOptions {
    let uri = server.uri_of(database);
    let mark = if uri.contains('?') { '&' } else { '?' };
    MongoOptions::parse(&format!("{uri}{mark}timeoutMS=30000")).unwrap()
}
