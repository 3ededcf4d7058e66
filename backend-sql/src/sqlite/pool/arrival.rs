//! Messages that come into a queue, and with it into its groups.

use rusqlite::params;
use storage_traits::{Result, domain::Timestamp};

use super::{
    line::{Shift, shift},
    rows::{DELAYED, IN_LINE, execute},
};
use crate::sqlite::writer::{QueueRow, Tx};

/// A message that nobody has claimed yet, its body stored.
pub(super) struct Arrival<'m> {
    pub(super) sequence: i64,
    pub(super) expires_at: i64,
    pub(super) visible_at: i64,
    pub(super) posted_at: i64,
    /// Seconds.
    pub(super) ttl: i64,
    pub(super) client: &'m str,
    pub(super) key: Option<&'m str>,
    pub(super) body: i64,
}

/// Puts a message into a queue and all its groups.
pub(super) fn append(
    tx: &mut Tx<'_>,
    queue: &mut QueueRow,
    arrival: &Arrival<'_>,
    now: Timestamp,
) -> Result<()> {
    put(tx, queue, arrival, now)?;
    if queue.groups == 0 {
        return Ok(());
    }
    let mut copies = 0;
    for reading in tx.readings(queue.incarnation)?.iter() {
        if let Some(mut row) = tx.queue(*reading)? {
            put(tx, &mut row, arrival, now)?;
            tx.put(row);
            copies += 1;
        }
    }
    share(tx, arrival.body, copies)
}

/// Puts a message into one reading.
pub(super) fn put(
    tx: &Tx<'_>,
    row: &mut QueueRow,
    arrival: &Arrival<'_>,
    now: Timestamp,
) -> Result<()> {
    let Arrival { sequence, expires_at, visible_at, posted_at, ttl, client, key, body } = *arrival;
    row.last_sequence = row.last_sequence.max(sequence);
    let delayed = visible_at > now.as_millis();
    let due_at = if delayed { visible_at.min(expires_at) } else { expires_at };
    row.due(due_at);
    if !delayed && key.is_none() {
        row.ready += 1;
        execute(
            tx.connection,
            "INSERT INTO ready (queue, sequence, expires_at, visible_at, posted_at, ttl,
                 claim_count, client, body)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, 0, ?7, ?8)",
            params![row.id, sequence, expires_at, visible_at, posted_at, ttl, client, body],
        )?;
        return Ok(());
    }
    let state = if delayed { DELAYED } else { IN_LINE };
    execute(
        tx.connection,
        "INSERT INTO held (queue, state, sequence, due_at, expires_at, visible_at, posted_at, ttl,
             claim_count, client, body, ordering_key)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, 0, ?9, ?10, ?11)",
        params![
            row.id, state, sequence, due_at, expires_at, visible_at, posted_at, ttl, client, body,
            key
        ],
    )?;
    match key {
        _ if delayed => row.delayed += 1,
        Some(key) => shift(tx, row, key, Shift::COME)?,
        None => {}
    }
    Ok(())
}

/// So many messages more have this body.
pub(super) fn share(tx: &Tx<'_>, body: i64, copies: i64) -> Result<()> {
    if copies > 0 {
        execute(
            tx.connection,
            "INSERT INTO body_share (body, messages) VALUES (?1, 1 + ?2)
             ON CONFLICT (body) DO UPDATE SET messages = messages + ?2",
            [body, copies],
        )?;
    }
    Ok(())
}

/// One message less has this body; the last one takes it along.
pub(super) fn release_body(tx: &Tx<'_>, body: i64) -> Result<()> {
    let deleted = execute(
        tx.connection,
        "DELETE FROM body
         WHERE id = ?1 AND NOT EXISTS (SELECT 1 FROM body_share WHERE body = ?1)",
        [body],
    )?;
    if deleted == 0 {
        execute(
            tx.connection,
            "UPDATE body_share SET messages = messages - 1 WHERE body = ?1",
            [body],
        )?;
        execute(tx.connection, "DELETE FROM body_share WHERE body = ?1 AND messages <= 1", [body])?;
    }
    Ok(())
}
