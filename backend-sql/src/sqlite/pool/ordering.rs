//! Ordering keys: the messages with one key are delivered in order, to one claim at a time.
//!
//! A key is *blocked* while one of its messages is in flight: claimed, or waiting for a retry. A
//! key with a ready message that is not blocked is *available* and has a rotation. Claims serve the
//! available keys round-robin, lowest rotation first.

use rusqlite::{OptionalExtension, params};
use storage_traits::Result;

use super::rows::execute;
use crate::sqlite::{error::store_error, queue_row::QueueRow, transaction::Tx};

/// Change of the numbers of messages that an ordering key has.
#[derive(Clone, Copy)]
pub(super) struct KeyDelta {
    pub(super) ready: i64,
    pub(super) in_flight: i64,
}

impl KeyDelta {
    /// A message became ready that was not in flight.
    pub(super) const ENQUEUED: Self = Self { ready: 1, in_flight: 0 };
    /// A ready message was removed.
    pub(super) const DEQUEUED: Self = Self { ready: -1, in_flight: 0 };
    /// A message in flight became ready again.
    pub(super) const REQUEUED: Self = Self { ready: 1, in_flight: -1 };
    /// A message in flight was removed.
    pub(super) const COMPLETED: Self = Self { ready: 0, in_flight: -1 };
}

/// Changes the numbers of a key, and makes it available or blocked accordingly. A key without
/// messages is deleted.
pub(super) fn update_key(
    tx: &Tx<'_>,
    queue: &mut QueueRow,
    key: &str,
    delta: KeyDelta,
) -> Result<()> {
    let found: Option<(i64, i64, Option<i64>)> = tx
        .connection
        .prepare_cached(
            "SELECT ready, in_flight, rotation FROM ordering_key
             WHERE queue_id = ?1 AND ordering_key = ?2",
        )
        .and_then(|mut statement| {
            statement
                .query_row(params![queue.id, key], |row| {
                    Ok((row.get(0)?, row.get(1)?, row.get(2)?))
                })
                .optional()
        })
        .map_err(store_error)?;
    let (ready, in_flight, rotation) = found.unwrap_or_default();
    let (ready, in_flight) = (ready + delta.ready, in_flight + delta.in_flight);
    queue.ready_keyed += delta.ready;
    let is_available = ready > 0 && in_flight == 0;
    let rotation = match (rotation, is_available) {
        (Some(rotation), true) => Some(rotation),
        (None, true) => {
            queue.available_keys += 1;
            Some(queue.next_rotation())
        }
        (before, false) => {
            queue.available_keys -= i64::from(before.is_some());
            None
        }
    };
    if ready == 0 && in_flight == 0 {
        queue.keys -= i64::from(found.is_some());
        execute(
            tx.connection,
            "DELETE FROM ordering_key WHERE queue_id = ?1 AND ordering_key = ?2",
            params![queue.id, key],
        )?;
    } else {
        queue.keys += i64::from(found.is_none());
        execute(
            tx.connection,
            "INSERT INTO ordering_key (queue_id, ordering_key, ready, in_flight, rotation)
             VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT (queue_id, ordering_key)
             DO UPDATE SET ready = ?3, in_flight = ?4, rotation = ?5",
            params![queue.id, key, ready, in_flight, rotation],
        )?;
    }
    Ok(())
}

/// Returns the available key that is to be served next, with its rotation.
pub(super) fn next_available_key(tx: &Tx<'_>, queue: &QueueRow) -> Result<Option<(String, i64)>> {
    if queue.available_keys == 0 {
        return Ok(None);
    }
    tx.connection
        .prepare_cached(
            "SELECT ordering_key, rotation FROM ordering_key
             WHERE queue_id = ?1 AND rotation IS NOT NULL ORDER BY rotation LIMIT 1",
        )
        .and_then(|mut statement| {
            statement.query_row([queue.id], |row| Ok((row.get(0)?, row.get(1)?))).optional()
        })
        .map_err(store_error)
}

/// Returns whether a key is available.
pub(super) fn is_available(tx: &Tx<'_>, queue: &QueueRow, key: &str) -> Result<bool> {
    tx.connection
        .prepare_cached(
            "SELECT 1 FROM ordering_key
             WHERE queue_id = ?1 AND ordering_key = ?2 AND rotation IS NOT NULL",
        )
        .and_then(|mut statement| statement.exists(params![queue.id, key]))
        .map_err(store_error)
}

/// Moves an available key behind all others, after it was served.
pub(super) fn rotate_to_back(tx: &Tx<'_>, queue: &mut QueueRow, key: &str) -> Result<()> {
    let rotation = queue.next_rotation();
    execute(
        tx.connection,
        "UPDATE ordering_key SET rotation = ?3
         WHERE queue_id = ?1 AND ordering_key = ?2 AND rotation IS NOT NULL",
        params![queue.id, key, rotation],
    )?;
    Ok(())
}
