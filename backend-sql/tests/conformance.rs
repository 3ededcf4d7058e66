//! Runs the conformance suite on SQLite. Each test has a file of its own.

#![expect(clippy::unwrap_used, reason = "a test cannot go on without its file")]

use std::sync::Arc;

use backend_sql::sqlite::{Sqlite, SqliteOptions};
use storage_traits::{
    catalog::Catalog,
    conformance::{CatalogHarness, PoolHarness},
    pool::MessagePool,
};
use tempfile::TempDir;

struct SqliteFile {
    store: Arc<Sqlite>,
    _folder: TempDir,
}

impl SqliteFile {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let options = SqliteOptions::new(folder.path().join("chapar.db"));
        Self { store: Arc::new(Sqlite::open(&options).unwrap()), _folder: folder }
    }
}

impl PoolHarness for SqliteFile {
    async fn start() -> Self {
        Self::new()
    }

    fn pool(&self) -> Arc<dyn MessagePool> {
        Arc::clone(&self.store) as _
    }
}

impl CatalogHarness for SqliteFile {
    async fn start() -> Self {
        Self::new()
    }

    fn catalog(&self) -> Arc<dyn Catalog> {
        Arc::clone(&self.store) as _
    }
}

storage_traits::pool_conformance_tests!(SqliteFile);
storage_traits::catalog_conformance_tests!(SqliteFile);
