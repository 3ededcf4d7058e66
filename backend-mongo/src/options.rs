use std::{fmt, time::Duration};

use mongodb::options::{
    Acknowledgment, ClientOptions, ConnectionString, ReadConcern, ReadConcernLevel, ReadPreference,
    WriteConcern,
};
use storage_traits::pool::Durability;

/// The database, if the URI names none.
const DATABASE: &str = "chapar";
/// How long a call may take in all, without `timeoutMS`.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How many connections to a server are opened at most, without `maxPoolSize`.
const CONNECTIONS: u32 = 64;
/// How often the driver checks each server, without `heartbeatFrequencyMS`.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// The maximum length of a database name, in bytes.
const MAX_DATABASE: usize = 63;

/// The options of a catalog or a pool.
#[derive(Clone, PartialEq)]
pub struct MongoOptions {
    connection: ConnectionString,
    database: String,
    /// The write concern of acknowledged writes.
    write_concern: WriteConcern,
    /// The read concern on a replica set.
    read_concern: ReadConcernLevel,
    timeout: Duration,
}

// No option is a floating-point number.
impl Eq for MongoOptions {}

/// Omits the credentials.
impl fmt::Debug for MongoOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MongoOptions")
            .field("hosts", &self.connection.host_info)
            .field("database", &self.database)
            .field("write_concern", &self.write_concern)
            .field("read_concern", &self.read_concern)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

/// Why a URI is rejected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidOption(String);

fn invalid<T>(text: &str) -> Result<T, InvalidOption> {
    Err(InvalidOption(text.to_owned()))
}

impl MongoOptions {
    /// The URI schemes that [`MongoOptions::parse`] accepts.
    pub const SCHEMES: [&'static str; 2] = ["mongodb", "mongodb+srv"];

    /// Parses MongoDB's own URI:
    /// `mongodb://[user:password@]host[:port],…[/database][?option=value&…]`, or `mongodb+srv://…`.
    ///
    /// The defaults are the database `chapar`, `w=majority`, `journal=true`, `timeoutMS=10000` and
    /// `maxPoolSize=64`.
    ///
    /// # Errors
    /// [`InvalidOption`] with a sentence that explains the error. It does not contain the URI,
    /// which may hold a password.
    pub fn parse(uri: &str) -> Result<Self, InvalidOption> {
        let (uri, timeout) = take_timeout(uri)?;
        // The driver's error may contain a part of the URI, so it is dropped.
        let Ok(connection) = ConnectionString::parse(&uri) else {
            return invalid(
                "not a MongoDB URI, as in mongodb://HOST,HOST/DATABASE?replicaSet=NAME: check the \
                 hosts, the names and values of the options, and that special characters in the \
                 password are percent-encoded",
            );
        };
        let database = connection.default_database.clone().unwrap_or_else(|| DATABASE.to_owned());
        if database.len() > MAX_DATABASE || database.contains(['.', '\0']) {
            return invalid("the database name is too long or contains a dot");
        }
        if ["admin", "config", "local"].contains(&database.as_str()) {
            return invalid("admin, config and local are reserved for MongoDB");
        }
        let write_concern = write_concern(&connection, timeout)?;
        let read_concern = read_concern(&connection, &write_concern)?;
        if connection.read_preference.as_ref().is_some_and(|it| *it != ReadPreference::Primary) {
            return invalid(
                "readPreference must be primary: a secondary may not have the latest changes yet",
            );
        }
        if connection.max_pool_size == Some(0) {
            return invalid("maxPoolSize must be at least 1");
        }
        Ok(Self { connection, database, write_concern, read_concern, timeout })
    }

    /// Returns the options of the driver. Resolves a `mongodb+srv` URI through DNS.
    pub(crate) async fn client_options(&self) -> mongodb::error::Result<ClientOptions> {
        let mut options = ClientOptions::parse(self.connection.clone()).await?;
        let half = self.timeout / 2;
        options.app_name.get_or_insert_with(|| DATABASE.to_owned());
        options.max_pool_size.get_or_insert(CONNECTIONS);
        options.connect_timeout.get_or_insert(half);
        options.heartbeat_freq.get_or_insert(HEARTBEAT);
        options.server_selection_timeout.get_or_insert(half);
        options.write_concern = Some(self.write_concern.clone());
        options.read_concern = Some(ReadConcern::local());
        Ok(options)
    }

    pub(crate) fn database(&self) -> &str {
        &self.database
    }

    pub(crate) const fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Returns the write concern of acknowledged writes.
    pub(crate) const fn write_concern(&self) -> &WriteConcern {
        &self.write_concern
    }

    /// Returns the read concern on a replica set. A standalone server is read with `local`.
    pub(crate) const fn read_concern(&self) -> &ReadConcernLevel {
        &self.read_concern
    }

    /// Returns what an acknowledgement means if so many members hold the data; `None` if the number
    /// is unknown.
    pub(crate) fn durability(&self, members: Option<usize>) -> Durability {
        if self.write_concern.journal == Some(false) {
            return Durability::Memory;
        }
        let majority = match (&self.write_concern.w, members) {
            (Some(Acknowledgment::Majority), _) => true,
            (Some(Acknowledgment::Nodes(nodes)), Some(members)) => {
                usize::try_from(*nodes).is_ok_and(|nodes| nodes * 2 > members)
            }
            _ => false,
        };
        if majority && members != Some(1) { Durability::Majority } else { Durability::Fsync }
    }
}

/// Removes `timeoutMS` from a URI: it is an option of MongoDB that the driver does not know.
fn take_timeout(uri: &str) -> Result<(String, Duration), InvalidOption> {
    let (place, query) = uri.split_once('?').unwrap_or((uri, ""));
    let (mut kept, mut timeout) = (Vec::new(), TIMEOUT);
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        if name.eq_ignore_ascii_case("timeoutMS") {
            match value.parse() {
                Ok(millis @ 100..=600_000) => timeout = Duration::from_millis(millis),
                _ => return invalid("timeoutMS must be from 100 to 600000"),
            }
        } else if name.eq_ignore_ascii_case("socketTimeoutMS") {
            return invalid("use timeoutMS, which limits a whole call, instead of socketTimeoutMS");
        } else {
            kept.push(pair);
        }
    }
    let query = kept.join("&");
    Ok((if query.is_empty() { place.to_owned() } else { format!("{place}?{query}") }, timeout))
}

fn write_concern(
    connection: &ConnectionString,
    timeout: Duration,
) -> Result<WriteConcern, InvalidOption> {
    let mut concern = connection.write_concern.clone().unwrap_or_default();
    match concern.w.get_or_insert(Acknowledgment::Majority) {
        Acknowledgment::Nodes(0) => {
            return invalid("w must be at least 1: w=0 acknowledges nothing");
        }
        Acknowledgment::Nodes(51..) => {
            return invalid("w must be a number from 1 to 50, or a name");
        }
        _ => {}
    }
    concern.journal.get_or_insert(true);
    match concern.w_timeout.get_or_insert(timeout).as_millis() {
        1..=0x7fff_ffff => Ok(concern),
        _ => invalid("wtimeoutMS must be from 1 to 2147483647"),
    }
}

fn read_concern(
    connection: &ConnectionString,
    write_concern: &WriteConcern,
) -> Result<ReadConcernLevel, InvalidOption> {
    let majority = write_concern.w == Some(Acknowledgment::Majority);
    match connection.read_concern.as_ref().map(|concern| &concern.level) {
        None if majority => Ok(ReadConcernLevel::Majority),
        None => Ok(ReadConcernLevel::Local),
        Some(ReadConcernLevel::Majority) if !majority => invalid(
            "readConcernLevel=majority needs w=majority: it does not return all writes that \
                 other write concerns acknowledge",
        ),
        Some(
            level @ (ReadConcernLevel::Local
            | ReadConcernLevel::Majority
            | ReadConcernLevel::Linearizable),
        ) => Ok(level.clone()),
        Some(_) => invalid("readConcernLevel must be local, majority or linearizable"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(uri: &str) -> MongoOptions {
        MongoOptions::parse(uri).unwrap_or_else(|error| panic!("{uri}: {error}"))
    }

    #[tokio::test]
    async fn missing_options_have_defaults() {
        let options = parse("mongodb://a,b:1");
        assert_eq!((options.database(), options.timeout().as_secs()), ("chapar", 10));
        let concern = options.write_concern();
        assert_eq!((&concern.w, concern.journal), (&Some(Acknowledgment::Majority), Some(true)));
        assert_eq!(concern.w_timeout, Some(TIMEOUT));
        assert_eq!(*options.read_concern(), ReadConcernLevel::Majority);
        let client = options.client_options().await.unwrap();
        assert_eq!((client.app_name.as_deref(), client.max_pool_size), (Some("chapar"), Some(64)));
        assert_eq!(client.connect_timeout, Some(TIMEOUT / 2));
        assert_eq!(client.server_selection_timeout, Some(TIMEOUT / 2));
        assert_eq!((client.retry_reads, client.retry_writes), (None, None));
    }

    #[tokio::test]
    async fn given_options_are_kept() {
        let options = parse(
            "mongodb://me:p%40ss%3F@[::1]:1/data?timeoutMS=900&w=2&journal=false&wtimeoutMS=7\
             &authSource=admin&appName=x&maxPoolSize=3&connectTimeoutMS=8&retryWrites=false\
             &serverSelectionTimeoutMS=9&readPreference=primary&tls=true",
        );
        assert_eq!((options.database(), options.timeout().as_millis()), ("data", 900));
        let concern = options.write_concern();
        assert_eq!((&concern.w, concern.journal), (&Some(Acknowledgment::Nodes(2)), Some(false)));
        assert_eq!(concern.w_timeout, Some(Duration::from_millis(7)));
        assert_eq!(*options.read_concern(), ReadConcernLevel::Local);
        let client = options.client_options().await.unwrap();
        assert_eq!((client.app_name.as_deref(), client.max_pool_size), (Some("x"), Some(3)));
        assert_eq!(client.connect_timeout, Some(Duration::from_millis(8)));
        assert_eq!(client.server_selection_timeout, Some(Duration::from_millis(9)));
        assert_eq!(client.retry_writes, Some(false));
        let credential = client.credential.unwrap();
        assert_eq!(credential.password.as_deref(), Some("p@ss?"));
        assert_eq!(credential.source.as_deref(), Some("admin"));
        assert_eq!(parse("mongodb+srv://a.b.c").database(), "chapar");
    }

    #[test]
    fn the_read_concern_matches_the_write_concern() {
        for (query, level) in [
            ("w=majority&readConcernLevel=local", ReadConcernLevel::Local),
            ("readConcernLevel=linearizable", ReadConcernLevel::Linearizable),
            ("w=1&readConcernLevel=linearizable", ReadConcernLevel::Linearizable),
            ("w=1", ReadConcernLevel::Local),
            ("w=rack", ReadConcernLevel::Local),
        ] {
            assert_eq!(*parse(&format!("mongodb://a/?{query}")).read_concern(), level, "{query}");
        }
    }

    #[test]
    fn the_declared_durability_follows_the_write_concern() {
        use Durability::{Fsync, Majority, Memory};
        for (query, unknown, one, three) in [
            ("", Majority, Fsync, Majority),
            ("w=2", Fsync, Fsync, Majority),
            ("w=3", Fsync, Fsync, Majority),
            ("w=1", Fsync, Fsync, Fsync),
            ("w=rack", Fsync, Fsync, Fsync),
            ("journal=false", Memory, Memory, Memory),
            ("w=1&journal=false", Memory, Memory, Memory),
        ] {
            let options = parse(&format!("mongodb://a/?{query}"));
            let meant = [None, Some(1), Some(3)].map(|members| options.durability(members));
            assert_eq!(meant, [unknown, one, three], "{query}");
        }
    }

    #[test]
    fn errors_contain_no_secrets() {
        let host = "mongodb://me:secret@a";
        for wrong in [
            "mongodb:".to_owned(),
            "redis://me:secret@a".to_owned(),
            "mongodb://me:sec:secret@a".to_owned(),
            "mongodb://me:secret?@a".to_owned(),
            "mongodb+srv://me:secret@a:1".to_owned(),
            "mongodb+srv://me:secret@a,b".to_owned(),
            format!("{host}:secret"),
            format!("{host}/da.ta"),
            format!("{host}/admin"),
            format!("{host}/{}", "x".repeat(64)),
            format!("{host}/?secret"),
            format!("{host}/?secret=1"),
            format!("{host}/?w=0"),
            format!("{host}/?w=-1"),
            format!("{host}/?w=51"),
            format!("{host}/?journal=secret"),
            format!("{host}/?wtimeoutMS=0"),
            format!("{host}/?readConcernLevel=available"),
            format!("{host}/?readConcernLevel=snapshot"),
            format!("{host}/?readConcernLevel=secret"),
            format!("{host}/?w=1&readConcernLevel=majority"),
            format!("{host}/?readPreference=secondaryPreferred"),
            format!("{host}/?readPreference=secret"),
            format!("{host}/?maxPoolSize=0"),
            format!("{host}/?socketTimeoutMS=1"),
            format!("{host}/?timeoutMS=99"),
            format!("{host}/?timeoutMS=secret"),
        ] {
            let error = MongoOptions::parse(&wrong).expect_err(&wrong).to_string();
            assert!(!error.contains("secret") && !error.contains("me:"), "{wrong}: {error}");
        }
    }

    #[test]
    fn debug_output_contains_no_credentials() {
        let options = parse("mongodb://myself:secret@a,b/?authMechanism=SCRAM-SHA-256");
        let shown = format!("{options:?}");
        assert!(!shown.contains("secret") && !shown.contains("myself"), "{shown}");
        assert_ne!(options, parse("mongodb://myself:other@a,b/?authMechanism=SCRAM-SHA-256"));
    }
}
