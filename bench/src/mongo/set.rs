//! The replica set for the measurements.

use test_servers::mongo::Mongo;
use test_servers::mongo::bson::doc;

/// Number of members.
const MEMBERS: usize = 3;
/// Databases of MongoDB itself.
const SYSTEM_DATABASES: [&str; 3] = ["admin", "config", "local"];

/// Three members on this machine, in temporary folders. Dropping the value kills them.
pub(crate) struct Set(Mongo);

impl Set {
    /// Starts the members. The defaults of `test-servers` are for tests: small, and with short
    /// election timeouts. Under load, members need more memory and respond to heartbeats late.
    pub(crate) fn start() -> Self {
        let mongo = Mongo::replica_set(MEMBERS, &[]);
        for member in 0..MEMBERS {
            // The oplog covers minutes at any write rate, like the default.
            let oplog = doc! { "replSetResizeOplog": 1, "size": 8192.0 };
            mongo.command_on(member, "admin", &oplog);
            let cache = "cache_size=1G";
            let cache = doc! { "setParameter": 1, "wiredTigerEngineRuntimeConfig": cache };
            mongo.command_on(member, "admin", &cache);
        }
        set_default_timeouts(&mongo);
        Self(mongo)
    }

    /// Returns its URI with the database that the service and the driver use.
    pub(crate) fn uri(&self) -> String {
        self.0.uri_of("chapar")
    }

    /// Drops all databases and returns when all members have done so.
    pub(crate) fn empty(&self) {
        let primary = self.0.primary();
        let list = doc! { "listDatabases": 1, "nameOnly": true };
        let response = self.0.command_on(primary, "admin", &list);
        let databases = response.get_array("databases").map(Vec::as_slice).unwrap_or_default();
        let names = databases.iter().filter_map(|it| it.as_document()?.get_str("name").ok());
        let concern = doc! { "w": i32::try_from(MEMBERS).unwrap_or(i32::MAX), "wtimeout": 25_000 };
        for name in names.filter(|name| !SYSTEM_DATABASES.contains(name)) {
            let drop = doc! { "dropDatabase": 1, "writeConcern": concern.clone() };
            self.0.command_on(primary, name, &drop);
        }
    }
}

/// Sets the default election timeout of ten seconds, so that members that wait for a CPU are not
/// taken for dead.
fn set_default_timeouts(mongo: &Mongo) {
    let primary = mongo.primary();
    let response = mongo.command_on(primary, "admin", &doc! { "replSetGetConfig": 1 });
    let mut config = response.get_document("config").cloned().unwrap_or_default();
    let version = config.get_i32("version").unwrap_or_default();
    config.insert("version", version + 1);
    let settings = config.get_document_mut("settings").map(|settings| {
        settings.insert("electionTimeoutMillis", 10_000);
        settings.insert("heartbeatIntervalMillis", 2_000);
    });
    settings.unwrap_or_default();
    mongo.command_on(primary, "admin", &doc! { "replSetReconfig": config });
}
