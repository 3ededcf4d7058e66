//! The tables of the baselines that store posts in SQLite.
//!
//! There is no index besides the keys, no claim and no sequence. The baselines do less work than
//! the service, so the comparison favours them.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, Result, Statement};

/// A message to store.
pub(crate) struct Message<'a> {
    pub(crate) queue: &'a str,
    pub(crate) ttl: u32,
    pub(crate) posted_ms: i64,
    pub(crate) body: &'a [u8],
}

/// Opens the database, or creates it, with the same durability as the service's.
pub(crate) fn open(path: &Path) -> Result<Connection> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(Duration::from_mins(1))?;
    connection.execute_batch(
        "PRAGMA journal_mode = WAL;
         PRAGMA synchronous = FULL;
         CREATE TABLE IF NOT EXISTS messages (
             id INTEGER PRIMARY KEY,
             queue TEXT NOT NULL,
             ttl INTEGER NOT NULL,
             posted_ms INTEGER NOT NULL,
             body BLOB NOT NULL
         );
         CREATE TABLE IF NOT EXISTS queues (name TEXT PRIMARY KEY) WITHOUT ROWID;",
    )?;
    connection.set_prepared_statement_cache_capacity(512);
    Ok(connection)
}

pub(crate) fn insert_sql(rows: usize) -> String {
    let values = vec!["(?, ?, ?, ?)"; rows].join(", ");
    format!("INSERT INTO messages (queue, ttl, posted_ms, body) VALUES {values}")
}

/// Runs a statement of [`insert_sql`] with as many messages as it has rows.
pub(crate) fn insert<'a>(
    statement: &mut Statement<'_>,
    messages: impl Iterator<Item = Message<'a>>,
) -> Result<()> {
    for (row, message) in messages.enumerate() {
        let column = row * 4;
        statement.raw_bind_parameter(column + 1, message.queue)?;
        statement.raw_bind_parameter(column + 2, message.ttl)?;
        statement.raw_bind_parameter(column + 3, message.posted_ms)?;
        statement.raw_bind_parameter(column + 4, message.body)?;
    }
    statement.raw_execute()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_stored() {
        let dir = tempfile::tempdir().unwrap();
        let connection = open(&dir.path().join("test.db")).unwrap();
        let message = |posted_ms| Message { queue: "q", ttl: 60, posted_ms, body: b"1" };
        let mut statement = connection.prepare(&insert_sql(3)).unwrap();
        insert(&mut statement, (1..=3).map(message)).unwrap();
        let sum = "SELECT sum(posted_ms) FROM messages WHERE queue = 'q' AND body = X'31'";
        assert_eq!(connection.query_row(sum, [], |row| row.get(0)), Ok(6));
        let setting = |name| connection.pragma_query_value(None, name, |row| row.get(0));
        assert_eq!(setting("synchronous"), Ok(2), "2 is FULL");
    }
}
