//! What time alone does to a queue: messages expire, delays end, claims lapse.

use rusqlite::params;
use storage_traits::{Result, domain::Timestamp};

use super::{
    STEP,
    rows::{CLAIMED, DELAYED, READY, execute},
};
use crate::sqlite::{
    error::store_error,
    writer::{NEVER, QueueRow, Tx},
};

/// What one step of settling did.
pub(super) struct Settled {
    /// Whether nothing is due any more; otherwise the step is to be repeated.
    pub(super) done: bool,
    /// Rows that it removed or freed.
    pub(super) handled: u64,
}

struct Due {
    sequence: i64,
    state: i64,
    expires_at: i64,
    body: i64,
}

/// Brings the rows of a queue up to `now`, in a bounded step.
pub(super) fn settle(tx: &mut Tx<'_>, queue: &mut QueueRow, now: Timestamp) -> Result<Settled> {
    let mut settled = Settled { done: true, handled: 0 };
    if !queue.is_due(now) {
        return Ok(settled);
    }
    let due = due_entries(tx, queue.id, now)?;
    for entry in &due {
        if entry.expires_at <= now.as_millis() {
            remove(tx, queue, entry.sequence, entry.state, entry.body)?;
            tx.tally.expired += 1;
        } else {
            free(tx, queue, entry)?;
        }
    }
    let claims = execute(
        tx.connection,
        "DELETE FROM claim WHERE queue = ?1 AND id IN (
             SELECT id FROM claim WHERE queue = ?1 AND expires_at <= ?2 LIMIT ?3)",
        params![queue.id, now.as_millis(), STEP],
    )?;
    settled.handled = (due.len() + claims) as u64;
    settled.done = due.len() < STEP && claims < STEP;
    if settled.done {
        queue.next_due = next_due(tx, queue.id)?;
    }
    tx.put(*queue);
    Ok(settled)
}

/// Removes a message from the queue, whatever its state.
pub(super) fn remove(
    tx: &Tx<'_>,
    queue: &mut QueueRow,
    sequence: i64,
    state: i64,
    body: i64,
) -> Result<()> {
    leave(queue, state);
    erase(tx, queue.id, sequence, body)
}

/// Removes the rows of a message.
pub(super) fn erase(tx: &Tx<'_>, queue: i64, sequence: i64, body: i64) -> Result<()> {
    let place = "DELETE FROM entry WHERE queue = ?1 AND sequence = ?2";
    execute(tx.connection, place, [queue, sequence])?;
    execute(tx.connection, "DELETE FROM body WHERE id = ?1", [body])?;
    Ok(())
}

/// Takes a message that was in `state` out of the counters.
pub(super) fn leave(queue: &mut QueueRow, state: i64) {
    match state {
        CLAIMED => queue.claimed -= 1,
        DELAYED => queue.delayed -= 1,
        _ => queue.ready -= 1,
    }
}

fn free(tx: &Tx<'_>, queue: &mut QueueRow, entry: &Due) -> Result<()> {
    leave(queue, entry.state);
    queue.ready += 1;
    // A lapsed claim stays written on the message until another takes it.
    execute(
        tx.connection,
        "UPDATE entry SET state = ?3, due_at = ?4 WHERE queue = ?1 AND sequence = ?2",
        [queue.id, entry.sequence, READY, entry.expires_at],
    )?;
    Ok(())
}

fn due_entries(tx: &Tx<'_>, queue: i64, now: Timestamp) -> Result<Vec<Due>> {
    tx.connection
        .prepare_cached(
            "SELECT sequence, state, expires_at, body FROM entry
             WHERE queue = ?1 AND due_at <= ?2 ORDER BY due_at LIMIT ?3",
        )
        .and_then(|mut statement| {
            statement
                .query_map(params![queue, now.as_millis(), STEP], |row| {
                    Ok(Due {
                        sequence: row.get(0)?,
                        state: row.get(1)?,
                        expires_at: row.get(2)?,
                        body: row.get(3)?,
                    })
                })?
                .collect()
        })
        .map_err(store_error)
}

fn next_due(tx: &Tx<'_>, queue: i64) -> Result<i64> {
    tx.connection
        .prepare_cached(
            "SELECT min(coalesce((SELECT min(due_at) FROM entry WHERE queue = ?1), ?2),
                        coalesce((SELECT min(expires_at) FROM claim WHERE queue = ?1), ?2))",
        )
        .and_then(|mut statement| statement.query_row([queue, NEVER], |row| row.get(0)))
        .map_err(store_error)
}
