//! The only file that names a backend: URI to store.

use std::{num::NonZeroUsize, path::PathBuf, str::FromStr, sync::Arc};

use anyhow::Context as _;
use backend_sql::sqlite::{Sqlite, SqliteOptions};
use storage_traits::{
    catalog::Catalog,
    pool::{Durability, MessagePool},
};

/// Where a store is, as the configuration names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreUri {
    /// `sqlite:FILE[?durability=fsync|os-buffer][&readers=N]`
    Sqlite(SqliteOptions),
}

/// What is wrong with a URI.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidUri(String);

impl StoreUri {
    /// Reads a URI.
    ///
    /// # Errors
    /// A sentence that says what is wrong, without the URI, which may hold a password.
    pub fn parse(uri: &str) -> Result<Self, InvalidUri> {
        uri.parse()
    }
}

impl FromStr for StoreUri {
    type Err = InvalidUri;

    fn from_str(uri: &str) -> Result<Self, InvalidUri> {
        let fault = |text: &str| Err(InvalidUri(text.to_owned()));
        let Some((scheme, rest)) = uri.split_once(':') else {
            return fault("write sqlite:FILE");
        };
        if scheme != "sqlite" {
            return fault("this scheme is not supported; write sqlite:FILE");
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

/// Opens the stores; a file that both name is opened once. Blocks.
///
/// # Errors
/// If one cannot be opened.
pub fn open(catalog: &str, pool: &str) -> anyhow::Result<Stores> {
    let (StoreUri::Sqlite(catalog), StoreUri::Sqlite(pool)) =
        (StoreUri::parse(catalog)?, StoreUri::parse(pool)?);
    let same = std::path::absolute(&catalog.path)? == std::path::absolute(&pool.path)?;
    anyhow::ensure!(
        !same || pool == catalog,
        "catalog.uri and pool.uri name the same file with different options"
    );
    let pool = Arc::new(open_file(&pool)?);
    let catalog = if same { Arc::clone(&pool) } else { Arc::new(open_file(&catalog)?) };
    Ok(Stores { catalog, pool })
}

fn open_file(options: &SqliteOptions) -> anyhow::Result<Sqlite> {
    Sqlite::open(options).with_context(|| format!("cannot open {}", options.path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sqlite_uri_names_a_file_and_options() {
        let StoreUri::Sqlite(options) =
            StoreUri::parse("sqlite:///var/lib/chapar.db?durability=os-buffer&readers=4").unwrap();
        assert_eq!(options.path, PathBuf::from("/var/lib/chapar.db"));
        assert_eq!((options.durability, options.readers.get()), (Durability::OsBuffer, 4));
        assert_eq!(
            StoreUri::parse("sqlite:a.db").unwrap(),
            StoreUri::Sqlite(SqliteOptions::new("a.db"))
        );
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
        ] {
            let error = StoreUri::parse(uri).unwrap_err().to_string();
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
