//! The replica set that everything is measured on.

use test_servers::mongo::Mongo;
use test_servers::mongo::bson::doc;

/// How many members there are, of which two are a majority.
const MEMBERS: usize = 3;
/// The databases that are MongoDB's own.
const OWN: [&str; 3] = ["admin", "config", "local"];

/// Three members on this machine, in temporary folders. They end with the value.
pub(crate) struct Set(Mongo);

impl Set {
    /// Starts the members. As tests like them they are small, and quick to elect another primary;
    /// a load needs room, and makes them slow to answer each other.
    pub(crate) fn start() -> Self {
        let mongo = Mongo::replica_set(MEMBERS, &[]);
        for member in 0..MEMBERS {
            // What has to be copied is kept for minutes at any rate of writing, as by default.
            let oplog = doc! { "replSetResizeOplog": 1, "size": 8192.0 };
            mongo.command_on(member, "admin", &oplog);
            let cache = "cache_size=1G";
            let cache = doc! { "setParameter": 1, "wiredTigerEngineRuntimeConfig": cache };
            mongo.command_on(member, "admin", &cache);
        }
        patient(&mongo);
        Self(mongo)
    }

    /// Its URI, with the database that the service and the bare driver use.
    pub(crate) fn uri(&self) -> String {
        self.0.uri_of("chapar")
    }

    /// Removes what was stored, by whomever, and returns when all members have done so.
    pub(crate) fn empty(&self) {
        let primary = self.0.primary();
        let list = doc! { "listDatabases": 1, "nameOnly": true };
        let answer = self.0.command_on(primary, "admin", &list);
        let databases = answer.get_array("databases").map(Vec::as_slice).unwrap_or_default();
        let names = databases.iter().filter_map(|it| it.as_document()?.get_str("name").ok());
        let concern = doc! { "w": i32::try_from(MEMBERS).unwrap_or(i32::MAX), "wtimeout": 25_000 };
        for name in names.filter(|name| !OWN.contains(name)) {
            let drop = doc! { "dropDatabase": 1, "writeConcern": concern.clone() };
            self.0.command_on(primary, name, &drop);
        }
    }
}

/// Members elect another primary after ten seconds without one, as by default: those that have to
/// wait for a processor are not taken for dead.
fn patient(mongo: &Mongo) {
    let primary = mongo.primary();
    let answer = mongo.command_on(primary, "admin", &doc! { "replSetGetConfig": 1 });
    let mut config = answer.get_document("config").cloned().unwrap_or_default();
    let version = config.get_i32("version").unwrap_or_default();
    config.insert("version", version + 1);
    let settings = config.get_document_mut("settings").map(|settings| {
        settings.insert("electionTimeoutMillis", 10_000);
        settings.insert("heartbeatIntervalMillis", 2_000);
    });
    settings.unwrap_or_default();
    mongo.command_on(primary, "admin", &doc! { "replSetReconfig": config });
}
