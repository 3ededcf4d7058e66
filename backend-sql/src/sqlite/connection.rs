//! Opens connections to the file and migrates its tables.

use std::time::Duration;

use rusqlite::{Connection, OpenFlags, TransactionBehavior, config::DbConfig};
use storage_traits::{Result, pool::Durability};

use super::{
    error::{store_error, unexpected},
    options::SqliteOptions,
};

/// How long to wait while another process writes to the file.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// Marks the file as one of this program, in its header.
const APPLICATION_ID: i32 = i32::from_be_bytes(*b"ChP1");
/// The forward migrations: entry `n` migrates the tables from version `n` (`PRAGMA user_version`)
/// to version `n + 1`. A new version appends an entry; a released entry is never changed.
const MIGRATIONS: [&str; 1] = [include_str!("../../migrations/sqlite/0001_initial.sql")];

/// Opens a connection. It does not change a file that belongs to another program.
pub(super) fn connect(options: &SqliteOptions, reader: bool) -> Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(&options.path, flags).map_err(store_error)?;
    connection.busy_timeout(BUSY_TIMEOUT).map_err(store_error)?;
    // Checks the owner first: the pragmas below write to the file.
    schema_version(&connection)?;
    configure(&connection, options, reader).map_err(store_error)?;
    Ok(connection)
}

fn configure(
    connection: &Connection,
    options: &SqliteOptions,
    reader: bool,
) -> rusqlite::Result<()> {
    connection.set_prepared_statement_cache_capacity(64);
    // A plan does not depend on the values of parameters, so each statement is parsed once.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    connection.pragma_update(None, "journal_mode", "wal")?;
    let synchronous = if options.durability >= Durability::Fsync { "full" } else { "normal" };
    connection.pragma_update(None, "synchronous", synchronous)?;
    connection.pragma_update(None, "foreign_keys", false)?;
    connection.pragma_update(None, "temp_store", "memory")?;
    connection.pragma_update(None, "cache_size", if reader { "-4096" } else { "-8192" })?;
    connection.pragma_update(None, "query_only", reader)
}

/// Returns the version of the tables, 0 for a new file; an error if the file belongs to another
/// program.
fn schema_version(connection: &Connection) -> Result<i32> {
    let number =
        |pragma: &str| connection.pragma_query_value(None, pragma, |row| row.get::<_, i32>(0));
    let owner = number("application_id").map_err(store_error)?;
    let tables: i64 = connection
        .query_row("SELECT count(*) FROM sqlite_schema", (), |row| row.get(0))
        .map_err(store_error)?;
    if tables > 0 && owner != APPLICATION_ID {
        return Err(unexpected("the file belongs to another program"));
    }
    number("user_version").map_err(store_error)
}

/// Runs the migrations that the file has not had, in one transaction.
pub(super) fn migrate(connection: &mut Connection) -> Result<()> {
    let tx = connection
        .transaction_with_behavior(TransactionBehavior::Immediate)
        .map_err(store_error)?;
    let version = usize::try_from(schema_version(&tx)?).unwrap_or(usize::MAX);
    let Some(missing) = MIGRATIONS.get(version..) else {
        return Err(unexpected("the file was made by a newer version of this program"));
    };
    for migration in missing {
        tx.execute_batch(migration).map_err(store_error)?;
    }
    tx.pragma_update(None, "application_id", APPLICATION_ID).map_err(store_error)?;
    tx.pragma_update(None, "user_version", MIGRATIONS.len()).map_err(store_error)?;
    tx.commit().map_err(store_error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(options: &SqliteOptions) -> Result<Connection> {
        let mut connection = connect(options, false)?;
        migrate(&mut connection)?;
        Ok(connection)
    }

    fn in_folder(folder: &tempfile::TempDir) -> SqliteOptions {
        SqliteOptions::new(folder.path().join("file.db"))
    }

    #[test]
    fn a_new_file_gets_every_migration_once() {
        let folder = tempfile::tempdir().unwrap();
        for _ in 0..2 {
            let connection = open(&in_folder(&folder)).unwrap();
            let version = usize::try_from(schema_version(&connection).unwrap()).unwrap();
            assert_eq!(version, MIGRATIONS.len());
        }
    }

    #[test]
    fn a_file_of_another_program_is_refused_and_not_changed() {
        let folder = tempfile::tempdir().unwrap();
        let options = in_folder(&folder);
        let other = Connection::open(&options.path).unwrap();
        other.execute_batch("CREATE TABLE other (id INTEGER)").unwrap();
        let before = std::fs::read(&options.path).unwrap();
        assert!(open(&options).is_err());
        assert_eq!(std::fs::read(&options.path).unwrap(), before);
    }

    #[test]
    fn a_file_of_a_newer_version_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let options = in_folder(&folder);
        let connection = open(&options).unwrap();
        connection.pragma_update(None, "user_version", MIGRATIONS.len() + 1).unwrap();
        drop(connection);
        assert!(open(&options).is_err());
    }
}
