//! Lines: the messages with one ordering key, which are handed out one claim at a time.
//!
//! A line is *open* while something waits in it and nothing of it is busy. Open lines have a turn,
//! by which claims go; a line that opens gets the last one.

use rusqlite::{OptionalExtension, params};
use storage_traits::Result;

use super::rows::execute;
use crate::sqlite::{
    error::store_error,
    writer::{QueueRow, Tx},
};

/// How the messages of a line change.
#[derive(Clone, Copy)]
pub(super) struct Shift {
    /// By how many more or fewer wait.
    pub(super) waiting: i64,
    /// By how many more or fewer are busy.
    pub(super) busy: i64,
}

impl Shift {
    /// One has come into the line.
    pub(super) const COME: Self = Self { waiting: 1, busy: 0 };
    /// One that waited is gone.
    pub(super) const GONE: Self = Self { waiting: -1, busy: 0 };
    /// One that was busy waits again.
    pub(super) const BACK: Self = Self { waiting: 1, busy: -1 };
    /// One that was busy is gone.
    pub(super) const DONE: Self = Self { waiting: 0, busy: -1 };
}

/// Changes a line, and opens or closes it; a line without messages is removed.
pub(super) fn shift(tx: &Tx<'_>, queue: &mut QueueRow, key: &str, by: Shift) -> Result<()> {
    let found: Option<(i64, i64, Option<i64>)> = tx
        .connection
        .prepare_cached(
            "SELECT waiting, busy, turn FROM line WHERE queue = ?1 AND ordering_key = ?2",
        )
        .and_then(|mut statement| {
            statement
                .query_row(params![queue.id, key], |row| {
                    Ok((row.get(0)?, row.get(1)?, row.get(2)?))
                })
                .optional()
        })
        .map_err(store_error)?;
    let (waiting, busy, turn) = found.unwrap_or_default();
    let (waiting, busy) = (waiting + by.waiting, busy + by.busy);
    queue.in_line += by.waiting;
    let opens = waiting > 0 && busy == 0;
    let turn = match (turn, opens) {
        (Some(turn), true) => Some(turn),
        (None, true) => {
            queue.open_lines += 1;
            Some(queue.next_turn())
        }
        (open, false) => {
            queue.open_lines -= i64::from(open.is_some());
            None
        }
    };
    if waiting == 0 && busy == 0 {
        queue.lines -= i64::from(found.is_some());
        execute(
            tx.connection,
            "DELETE FROM line WHERE queue = ?1 AND ordering_key = ?2",
            params![queue.id, key],
        )?;
    } else {
        queue.lines += i64::from(found.is_none());
        execute(
            tx.connection,
            "INSERT INTO line (queue, ordering_key, waiting, busy, turn) VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT (queue, ordering_key) DO UPDATE SET waiting = ?3, busy = ?4, turn = ?5",
            params![queue.id, key, waiting, busy, turn],
        )?;
    }
    Ok(())
}

/// The open line whose turn it is, with its turn.
pub(super) fn first_open(tx: &Tx<'_>, queue: &QueueRow) -> Result<Option<(String, i64)>> {
    if queue.open_lines == 0 {
        return Ok(None);
    }
    tx.connection
        .prepare_cached(
            "SELECT ordering_key, turn FROM line WHERE queue = ?1 AND turn IS NOT NULL
             ORDER BY turn LIMIT 1",
        )
        .and_then(|mut statement| {
            statement.query_row([queue.id], |row| Ok((row.get(0)?, row.get(1)?))).optional()
        })
        .map_err(store_error)
}

/// Whether a line is open.
pub(super) fn is_open(tx: &Tx<'_>, queue: &QueueRow, key: &str) -> Result<bool> {
    tx.connection
        .prepare_cached(
            "SELECT 1 FROM line WHERE queue = ?1 AND ordering_key = ?2 AND turn IS NOT NULL",
        )
        .and_then(|mut statement| statement.exists(params![queue.id, key]))
        .map_err(store_error)
}

/// Sends an open line to the end, because it has been served.
pub(super) fn send_to_end(tx: &Tx<'_>, queue: &mut QueueRow, key: &str) -> Result<()> {
    let turn = queue.next_turn();
    execute(
        tx.connection,
        "UPDATE line SET turn = ?3 WHERE queue = ?1 AND ordering_key = ?2 AND turn IS NOT NULL",
        params![queue.id, key, turn],
    )?;
    Ok(())
}
