//! Opens stores by their URIs. No other file names a backend.

use std::{num::NonZeroUsize, path::PathBuf, str::FromStr, sync::Arc};

use anyhow::Context as _;
use backend_mongo::{MongoCatalog, MongoOptions, MongoPool};
use backend_redis::{Redis, RedisOptions};
use backend_sql::sqlite::{Sqlite, SqliteOptions};
use storage_traits::{
    catalog::Catalog,
    pool::{Durability, MessagePool},
};

/// The address and options of a store, as the configuration gives them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreUri {
    /// `sqlite:FILE[?durability=fsync|os-buffer][&readers=N]`
    Sqlite(SqliteOptions),
    /// `redis://…`, `rediss://…`, `unix:…`, `redis+sentinel://…`, `redis+cluster://…`
    Redis(Box<RedisOptions>),
    /// `mongodb://…`, `mongodb+srv://…`
    Mongo(Box<MongoOptions>),
}

/// Why a URI is not valid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidUri(String);

impl StoreUri {
    /// Parses a URI.
    ///
    /// # Errors
    /// If the URI is not valid. The text does not repeat the URI, which may contain a password.
    pub fn parse(uri: &str) -> Result<Self, InvalidUri> {
        uri.parse()
    }
}

impl FromStr for StoreUri {
    type Err = InvalidUri;

    fn from_str(uri: &str) -> Result<Self, InvalidUri> {
        let fault = |text: &str| Err(InvalidUri(text.to_owned()));
        let Some((scheme, rest)) = uri.split_once(':') else {
            return fault("write sqlite:FILE, redis://HOST or mongodb://HOST");
        };
        if RedisOptions::SCHEMES.contains(&scheme) {
            return match RedisOptions::parse(uri) {
                Ok(options) => Ok(Self::Redis(Box::new(options))),
                Err(error) => Err(InvalidUri(error.to_string())),
            };
        }
        if MongoOptions::SCHEMES.contains(&scheme) {
            return match MongoOptions::parse(uri) {
                Ok(options) => Ok(Self::Mongo(Box::new(options))),
                Err(error) => Err(InvalidUri(error.to_string())),
            };
        }
        if scheme != "sqlite" {
            return fault(
                "this scheme is not supported; write sqlite:FILE, redis://HOST or mongodb://HOST",
            );
        }
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let path = path.strip_prefix("//").unwrap_or(path);
        if path.is_empty() || path == ":memory:" {
            return fault("name a file, as in sqlite:chapar.db");
        }
        let mut options = SqliteOptions::new(PathBuf::from(path));
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            match pair.split_once('=') {
                Some(("durability", "fsync")) => options.durability = Durability::Fsync,
                Some(("durability", "os-buffer")) => options.durability = Durability::OsBuffer,
                Some(("durability", _)) => return fault("durability is fsync or os-buffer"),
                Some(("readers", number)) => match number.parse::<NonZeroUsize>() {
                    Ok(readers) if readers.get() <= 64 => options.readers = readers,
                    _ => return fault("readers is a number from 1 to 64"),
                },
                _ => return fault("the options of sqlite: are durability and readers"),
            }
        }
        Ok(Self::Sqlite(options))
    }
}

/// The stores of a node.
pub struct Stores {
    /// The control plane.
    pub catalog: Arc<dyn Catalog>,
    /// The default pool.
    pub pool: Arc<dyn MessagePool>,
}

/// Checks that a store can hold a catalog.
///
/// # Errors
/// If it cannot.
pub fn check_catalog(uri: &StoreUri) -> Result<(), InvalidUri> {
    match uri {
        StoreUri::Sqlite(_) | StoreUri::Mongo(_) => Ok(()),
        StoreUri::Redis(_) => Err(InvalidUri(
            "Redis holds messages, but no catalog; write sqlite:FILE or mongodb://HOST".to_owned(),
        )),
    }
}

/// Opens the stores. A file that is both catalog and pool is opened once.
///
/// # Errors
/// If a store cannot be opened. A server that cannot be reached is not an error: the backend
/// reconnects.
pub async fn open(catalog: &str, pool: &str) -> anyhow::Result<Stores> {
    let (catalog, pool) = (StoreUri::parse(catalog)?, StoreUri::parse(pool)?);
    check_catalog(&catalog)?;
    if let (StoreUri::Sqlite(catalog), StoreUri::Sqlite(pool)) = (&catalog, &pool)
        && std::path::absolute(&catalog.path)? == std::path::absolute(&pool.path)?
    {
        anyhow::ensure!(
            pool == catalog,
            "catalog.uri and pool.uri name the same file with different options"
        );
        let file = open_file(pool.clone()).await?;
        return Ok(Stores { catalog: Arc::clone(&file) as _, pool: file });
    }
    Ok(Stores { pool: open_pool(pool).await?, catalog: open_catalog(catalog).await? })
}

async fn open_catalog(uri: StoreUri) -> anyhow::Result<Arc<dyn Catalog>> {
    match uri {
        StoreUri::Sqlite(options) => Ok(open_file(options).await?),
        StoreUri::Mongo(options) => {
            let catalog = MongoCatalog::open(*options).await;
            Ok(Arc::new(catalog.context("the server of catalog.uri is not supported")?))
        }
        StoreUri::Redis(_) => unreachable!("check_catalog refuses Redis"),
    }
}

async fn open_pool(uri: StoreUri) -> anyhow::Result<Arc<dyn MessagePool>> {
    match uri {
        StoreUri::Sqlite(options) => Ok(open_file(options).await?),
        StoreUri::Redis(options) => {
            let pool = Redis::open(*options).await;
            Ok(Arc::new(pool.context("the server of pool.uri is not supported")?))
        }
        StoreUri::Mongo(options) => {
            let pool = MongoPool::open(*options).await;
            Ok(Arc::new(pool.context("the server of pool.uri is not supported")?))
        }
    }
}

async fn open_file(options: SqliteOptions) -> anyhow::Result<Arc<Sqlite>> {
    let open = move || {
        let file = Sqlite::open(&options);
        file.with_context(|| format!("cannot open {}", options.path.display()))
    };
    Ok(Arc::new(tokio::task::spawn_blocking(open).await??))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sqlite_uri_names_a_file_and_options() {
        let uri = "sqlite:///var/lib/chapar.db?durability=os-buffer&readers=4";
        let StoreUri::Sqlite(options) = StoreUri::parse(uri).unwrap() else {
            panic!("a file is no server")
        };
        assert_eq!(options.path, PathBuf::from("/var/lib/chapar.db"));
        assert_eq!((options.durability, options.readers.get()), (Durability::OsBuffer, 4));
        assert_eq!(
            StoreUri::parse("sqlite:a.db").unwrap(),
            StoreUri::Sqlite(SqliteOptions::new("a.db"))
        );
    }

    #[test]
    fn a_catalog_is_not_kept_in_redis() {
        for uri in ["redis://db", "unix:/run/redis.sock", "rediss+cluster://a,b"] {
            assert!(check_catalog(&StoreUri::parse(uri).unwrap()).is_err(), "{uri}");
        }
        for uri in ["sqlite:a.db", "mongodb://a,b/data?replicaSet=rs", "mongodb+srv://db.org"] {
            assert!(check_catalog(&StoreUri::parse(uri).unwrap()).is_ok(), "{uri}");
        }
    }

    #[test]
    fn a_wrong_uri_is_refused_without_being_repeated() {
        for uri in [
            "",
            "chapar.db",
            "sqlite:",
            "ftp://me:secret@x",
            "sqlite:a?durability=none",
            "sqlite:a?x=1",
            "redis://me:secret@a?x=1",
            "redis+sentinel://me:secret@a",
            "mongodb://me:secret@a,b/?w=0",
            "mongodb://me:secret@a,b:secret",
            "mongodb+srv://me:secret@a,b",
        ] {
            let error = StoreUri::parse(uri).unwrap_err().to_string();
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
