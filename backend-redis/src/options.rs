//! Options of a pool, and the URIs that they are read from.

use std::{fmt, num::NonZeroUsize, path::PathBuf, time::Duration};

use percent_encoding::percent_decode_str;
use storage_traits::pool::Durability;

/// Default port of Redis.
const PORT: u16 = 6379;
/// Default port of Sentinel.
const SENTINEL_PORT: u16 = 26379;

/// Addresses of the servers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// One server.
    Tcp(String, u16),
    /// One server on this machine.
    Unix(PathBuf),
    /// The master that the sentinels report for a name.
    Sentinel {
        /// Addresses of the sentinels.
        sentinels: Vec<(String, u16)>,
        /// Name of the master.
        master: String,
    },
    /// A Cluster, by the addresses of some of its nodes.
    Cluster(Vec<(String, u16)>),
}

/// User name and password.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Credentials {
    /// User name; the server's default user if `None`.
    pub username: Option<String>,
    /// Password.
    pub password: Option<String>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("username", &self.username).finish_non_exhaustive()
    }
}

/// Certificates, as files in PEM format.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TlsFiles {
    /// Authority that signs the server's certificate; those that the system trusts if `None`.
    pub ca: Option<PathBuf>,
    /// Client certificate and its key, if the server requires one.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// Options to open a pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedisOptions {
    /// Addresses of the servers.
    pub endpoint: Endpoint,
    /// Credentials for the servers.
    pub credentials: Credentials,
    /// Credentials for the sentinels.
    pub sentinel_credentials: Credentials,
    /// Certificates; connections are not encrypted if `None`.
    pub tls: Option<TlsFiles>,
    /// Number of the database; 0 on a Cluster.
    pub database: i64,
    /// Prefix of all keys, so that several pools can share a server.
    pub prefix: String,
    /// Minimum durability of acknowledged changes: the pool rejects a server with less.
    pub durability: Durability,
    /// Number of replicas that must have a change before it is acknowledged.
    pub replicas: u32,
    /// Whether these replicas and the master must have it on disk (Redis 7.2 or newer).
    pub replicas_fsync: bool,
    /// Maximum time of a call, with connecting and all retries.
    pub timeout: Duration,
    /// Number of connections to a server that requests share.
    pub connections: NonZeroUsize,
}

/// Why a URI is invalid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidOption(String);

fn fault<T>(text: &str) -> Result<T, InvalidOption> {
    Err(InvalidOption(text.to_owned()))
}

impl RedisOptions {
    /// The schemes that [`RedisOptions::parse`] accepts.
    pub const SCHEMES: [&'static str; 7] = [
        "redis",
        "rediss",
        "unix",
        "redis+sentinel",
        "rediss+sentinel",
        "redis+cluster",
        "rediss+cluster",
    ];

    /// Returns the defaults for an endpoint.
    pub fn new(endpoint: Endpoint) -> Self {
        Self {
            endpoint,
            credentials: Credentials::default(),
            sentinel_credentials: Credentials::default(),
            tls: None,
            database: 0,
            prefix: "chapar".to_owned(),
            durability: Durability::Memory,
            replicas: 0,
            replicas_fsync: false,
            timeout: Duration::from_millis(1_500),
            connections: NonZeroUsize::MIN.saturating_add(7),
        }
    }

    /// Parses a URI: `redis://[user:password@]host[:port][/database]`, `rediss://…` for TLS,
    /// `unix:/path`, `redis+sentinel://host[:port],…/master[/database]`,
    /// `redis+cluster://host[:port],…`, the latter two as `rediss+…` for TLS; then `?key=value&…`.
    ///
    /// # Errors
    /// A sentence that describes what is wrong, without the URI, which may contain a password.
    pub fn parse(uri: &str) -> Result<Self, InvalidOption> {
        let (scheme, rest) = uri.split_once(':').unwrap_or(("", uri));
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        if !Self::SCHEMES.contains(&scheme) {
            return fault("this scheme is not one of Redis");
        }
        if scheme == "unix" {
            let path = decode(rest.strip_prefix("//").unwrap_or(rest))?;
            if path.is_empty() {
                return fault("name a socket, as in unix:/run/redis.sock");
            }
            return Self::new(Endpoint::Unix(path.into())).with_query(query);
        }
        let Some(rest) = rest.strip_prefix("//") else {
            return fault("write // behind the scheme, as in redis://localhost");
        };
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (credentials, hosts) = match authority.rsplit_once('@') {
            Some((credentials, hosts)) => (parse_credentials(credentials)?, hosts),
            None => (Credentials::default(), authority),
        };
        let (endpoint, database) = if scheme.ends_with("+sentinel") {
            let (master, database) = path.split_once('/').unwrap_or((path, ""));
            let master = decode(master)?;
            if master.is_empty() {
                return fault("name the master, as in redis+sentinel://host/main");
            }
            (Endpoint::Sentinel { sentinels: parse_hosts(hosts, SENTINEL_PORT)?, master }, database)
        } else if scheme.ends_with("+cluster") {
            (Endpoint::Cluster(parse_hosts(hosts, PORT)?), path)
        } else {
            match <[_; 1]>::try_from(parse_hosts(hosts, PORT)?) {
                Ok([(host, port)]) => (Endpoint::Tcp(host, port), path),
                Err(_) => return fault("one server has one host; write redis+cluster:// for more"),
            }
        };
        let mut options = Self { credentials, ..Self::new(endpoint) };
        if scheme.starts_with("rediss") {
            options.tls = Some(TlsFiles::default());
        }
        if !database.is_empty() {
            options.set_database(database)?;
        }
        options.with_query(query)
    }

    fn set_database(&mut self, text: &str) -> Result<(), InvalidOption> {
        match text.parse() {
            Ok(0) => {}
            Ok(_) if matches!(self.endpoint, Endpoint::Cluster(_)) => {
                return fault("a Cluster has no database but 0");
            }
            Ok(number @ 1..=65_535) => self.database = number,
            _ => return fault("the database is a number from 0 to 65535"),
        }
        Ok(())
    }

    fn with_query(mut self, query: &str) -> Result<Self, InvalidOption> {
        let (mut certificate, mut key) = (None, None);
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = decode(value)?;
            match name {
                "database" => self.set_database(&value)?,
                "prefix" if is_prefix(&value) => self.prefix = value,
                "prefix" => {
                    return fault(
                        "prefix is 1 to 64 letters, digits, dots, dashes and underscores",
                    );
                }
                "durability" => {
                    let known = [Durability::Memory, Durability::OsBuffer, Durability::Fsync];
                    match known.into_iter().find(|known| known.as_str() == value) {
                        Some(durability) => self.durability = durability,
                        None => return fault("durability is memory, os-buffer or fsync"),
                    }
                }
                "replicas" => match value.parse() {
                    Ok(replicas @ 0..=16) => self.replicas = replicas,
                    _ => return fault("replicas is a number from 0 to 16"),
                },
                "replicas_fsync" => self.replicas_fsync = parse_bool(&value, "replicas_fsync")?,
                "timeout_ms" => match value.parse() {
                    Ok(millis @ 50..=60_000) => self.timeout = Duration::from_millis(millis),
                    _ => return fault("timeout_ms is a number from 50 to 60000"),
                },
                "connections" => match value.parse::<NonZeroUsize>() {
                    Ok(connections) if connections.get() <= 64 => self.connections = connections,
                    _ => return fault("connections is a number from 1 to 64"),
                },
                "sentinel_username" => self.sentinel_credentials.username = Some(value),
                "sentinel_password" => self.sentinel_credentials.password = Some(value),
                "tls_ca" => self.tls_files()?.ca = Some(value.into()),
                "tls_cert" => certificate = Some(PathBuf::from(value)),
                "tls_key" => key = Some(PathBuf::from(value)),
                _ => {
                    return fault(
                        "the options of Redis are database, prefix, durability, replicas, \
                         replicas_fsync, timeout_ms, connections, sentinel_username, \
                         sentinel_password, tls_ca, tls_cert and tls_key",
                    );
                }
            }
        }
        match (certificate, key) {
            (None, None) => {}
            (Some(certificate), Some(key)) => {
                self.tls_files()?.identity = Some((certificate, key));
            }
            _ => return fault("tls_cert and tls_key go together"),
        }
        if self.replicas_fsync && self.replicas == 0 {
            return fault("replicas_fsync says what replicas is to mean: set replicas, too");
        }
        Ok(self)
    }

    fn tls_files(&mut self) -> Result<&mut TlsFiles, InvalidOption> {
        match &mut self.tls {
            Some(files) => Ok(files),
            None => fault("certificates are for rediss:// only"),
        }
    }
}

fn is_prefix(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    (1..=64).contains(&text.len()) && text.bytes().all(plain)
}

fn parse_bool(value: &str, name: &str) -> Result<bool, InvalidOption> {
    value.parse().map_err(|_| InvalidOption(format!("{name} is true or false")))
}

fn decode(text: &str) -> Result<String, InvalidOption> {
    match percent_decode_str(text).decode_utf8() {
        Ok(text) => Ok(text.into_owned()),
        Err(_) => fault("a percent-encoded part is not UTF-8"),
    }
}

fn parse_credentials(text: &str) -> Result<Credentials, InvalidOption> {
    let (username, password) = text.split_once(':').unwrap_or((text, ""));
    let some = |text: String| Some(text).filter(|text| !text.is_empty());
    Ok(Credentials { username: some(decode(username)?), password: some(decode(password)?) })
}

fn parse_hosts(text: &str, default_port: u16) -> Result<Vec<(String, u16)>, InvalidOption> {
    text.split(',').map(|host| parse_host(host, default_port)).collect()
}

/// Parses `host`, `host:port` or `[address]:port`.
pub(crate) fn parse_host(text: &str, default_port: u16) -> Result<(String, u16), InvalidOption> {
    let wrong = || InvalidOption("write hosts as host, host:port or [address]:port".to_owned());
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, rest) = rest.split_once(']').ok_or_else(wrong)?;
            (host, rest.strip_prefix(':'))
        }
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let port = port.map_or(Ok(default_port), str::parse).map_err(|_| wrong())?;
    if host.is_empty() || port == 0 { Err(wrong()) } else { Ok((decode(host)?, port)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(uri: &str) -> RedisOptions {
        RedisOptions::parse(uri).unwrap_or_else(|error| panic!("{uri}: {error}"))
    }

    #[test]
    fn each_kind_of_endpoint_has_its_uri() {
        let tcp = |host: &str, port| (host.to_owned(), port);
        for (uri, endpoint) in [
            ("redis://db", Endpoint::Tcp("db".into(), 6379)),
            ("rediss://[::1]:7000/3", Endpoint::Tcp("::1".into(), 7000)),
            ("unix:/run/redis.sock", Endpoint::Unix("/run/redis.sock".into())),
            ("unix:///run/redis.sock", Endpoint::Unix("/run/redis.sock".into())),
            ("redis+cluster://a,b:7001", Endpoint::Cluster(vec![tcp("a", 6379), tcp("b", 7001)])),
            (
                "redis+sentinel://a:1,b/main/2",
                Endpoint::Sentinel {
                    sentinels: vec![tcp("a", 1), tcp("b", 26379)],
                    master: "main".into(),
                },
            ),
        ] {
            assert_eq!(parse(uri).endpoint, endpoint, "{uri}");
        }
        assert_eq!(parse("redis+sentinel://a/main/2").database, 2);
        assert!(parse("rediss+cluster://a").tls.is_some());
    }

    #[test]
    fn credentials_and_options_are_parsed() {
        let options = parse(
            "rediss://me:p%40ss@db/3?prefix=a.b&durability=fsync&replicas=2&timeout_ms=900\
             &connections=2&tls_ca=/ca.pem&tls_cert=/c.pem&tls_key=/k.pem",
        );
        assert_eq!(options.credentials.username.as_deref(), Some("me"));
        assert_eq!(options.credentials.password.as_deref(), Some("p@ss"));
        assert_eq!((options.database, options.prefix.as_str()), (3, "a.b"));
        assert_eq!((options.durability, options.replicas), (Durability::Fsync, 2));
        let tls = options.tls.unwrap();
        assert_eq!(tls.ca, Some("/ca.pem".into()));
        assert_eq!(tls.identity, Some(("/c.pem".into(), "/k.pem".into())));
    }

    #[test]
    fn errors_contain_no_secrets() {
        for uri in [
            "redis:db",
            "redis://",
            "redis://me:secret@",
            "redis://a,b",
            "redis://a:port",
            "redis://a/x",
            "redis+sentinel://a",
            "redis+cluster://a/1",
            "redis://secret@a?unknown=1",
            "redis://a?prefix={x}",
            "redis://a?durability=majority",
            "redis://a?replicas=-1",
            "redis://a?replicas_fsync=true",
            "redis://a?tls_ca=/x",
            "rediss://a?tls_cert=/x",
            "unix:",
            "mongodb://me:secret@a",
        ] {
            let error = RedisOptions::parse(uri).unwrap_err().to_string();
            assert!(!error.contains("secret"), "{uri}: {error}");
        }
    }
}
