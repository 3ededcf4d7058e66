//! Message bodies and their reference counts.
//!
//! The messages of a queue, its groups and its retention log share one body. `body_refs` has a row
//! only for a body that more than one message has, so the common case writes one row.

use rusqlite::params;
use storage_traits::{Result, domain::NewMessage};

use super::rows::execute;
use crate::sqlite::{error::store_error, transaction::Tx};

/// Inserts the body of a message, for one reference. Returns its id.
pub(super) fn insert_body(tx: &Tx<'_>, message: &NewMessage) -> Result<i64> {
    tx.connection
        .prepare_cached("INSERT INTO body (checksum, json) VALUES (?1, ?2)")
        .and_then(|mut statement| {
            statement.insert(params![message.checksum, message.body.as_bytes()])
        })
        .map_err(store_error)
}

/// Adds references to a body.
pub(super) fn ref_body(tx: &Tx<'_>, body_id: i64, refs: i64) -> Result<()> {
    if refs > 0 {
        execute(
            tx.connection,
            "INSERT INTO body_refs (body_id, refs) VALUES (?1, 1 + ?2)
             ON CONFLICT (body_id) DO UPDATE SET refs = refs + ?2",
            [body_id, refs],
        )?;
    }
    Ok(())
}

/// Removes a reference to a body. Removing the last one deletes the body.
pub(super) fn unref_body(tx: &Tx<'_>, body_id: i64) -> Result<()> {
    let deleted = execute(
        tx.connection,
        "DELETE FROM body
         WHERE id = ?1 AND NOT EXISTS (SELECT 1 FROM body_refs WHERE body_id = ?1)",
        [body_id],
    )?;
    if deleted == 0 {
        execute(
            tx.connection,
            "UPDATE body_refs SET refs = refs - 1 WHERE body_id = ?1",
            [body_id],
        )?;
        execute(
            tx.connection,
            "DELETE FROM body_refs WHERE body_id = ?1 AND refs <= 1",
            [body_id],
        )?;
    }
    Ok(())
}
