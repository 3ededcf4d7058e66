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

/// Where a message stands, as far as moving and removing it takes.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub(super) sequence: i64,
    pub(super) state: i64,
    pub(super) body: i64,
}

/// Brings the rows of a queue up to `now`, in a bounded step.
pub(super) fn settle(tx: &mut Tx<'_>, queue: &mut QueueRow, now: Timestamp) -> Result<Settled> {
    if !queue.is_due(now) {
        return Ok(Settled { done: true, handled: 0 });
    }
    let over = places(
        tx,
        "SELECT sequence, 0, body FROM ready WHERE queue = ?1 AND expires_at <= ?2
         ORDER BY expires_at LIMIT ?3",
        params![queue.id, now.as_millis(), STEP],
    )?;
    for place in &over {
        remove(tx, queue, *place)?;
    }
    tx.tally.expired += over.len() as u64;
    let due = due_held(tx, queue.id, now)?;
    for (place, is_over) in &due {
        if *is_over {
            remove(tx, queue, *place)?;
            tx.tally.expired += 1;
        } else {
            free(tx, queue, *place)?;
        }
    }
    let claims = execute(
        tx.connection,
        "DELETE FROM claim WHERE queue = ?1 AND id IN (
             SELECT id FROM claim WHERE queue = ?1 AND expires_at <= ?2 LIMIT ?3)",
        params![queue.id, now.as_millis(), STEP],
    )?;
    let closed = execute(
        tx.connection,
        "DELETE FROM deduplication WHERE queue = ?1 AND id IN (
             SELECT id FROM deduplication WHERE queue = ?1 AND expires_at <= ?2 LIMIT ?3)",
        params![queue.id, now.as_millis(), STEP],
    )?;
    let handled = [over.len(), due.len(), claims, closed];
    let done = handled.iter().all(|rows| *rows < STEP);
    if done {
        queue.next_due = next_due(tx, queue.id)?;
    }
    tx.put(*queue);
    Ok(Settled { done, handled: handled.iter().sum::<usize>() as u64 })
}

/// Removes a message from the queue, whatever its state.
pub(super) fn remove(tx: &Tx<'_>, queue: &mut QueueRow, place: Place) -> Result<()> {
    leave(queue, place.state);
    erase(tx, queue.id, place)
}

/// Removes the rows of a message.
pub(super) fn erase(tx: &Tx<'_>, queue: i64, place: Place) -> Result<()> {
    erase_place(tx, queue, place)?;
    execute(tx.connection, "DELETE FROM body WHERE id = ?1", [place.body])?;
    Ok(())
}

/// Removes a message from where it stands, but not its body.
pub(super) fn erase_place(tx: &Tx<'_>, queue: i64, place: Place) -> Result<()> {
    let Place { sequence, state, .. } = place;
    if state == READY {
        let sql = "DELETE FROM ready WHERE queue = ?1 AND sequence = ?2";
        execute(tx.connection, sql, [queue, sequence])?;
    } else {
        let sql = "DELETE FROM held WHERE queue = ?1 AND state = ?2 AND sequence = ?3";
        execute(tx.connection, sql, [queue, state, sequence])?;
    }
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

/// Puts a held message back among the ready ones. A lapsed claim stays written on it until another
/// takes it.
pub(super) fn free(tx: &Tx<'_>, queue: &mut QueueRow, place: Place) -> Result<()> {
    leave(queue, place.state);
    queue.ready += 1;
    execute(
        tx.connection,
        "INSERT INTO ready (queue, sequence, expires_at, visible_at, posted_at, ttl, claim,
             claim_count, client, body)
         SELECT queue, sequence, expires_at, visible_at, posted_at, ttl, claim, claim_count, client,
             body FROM held WHERE queue = ?1 AND state = ?2 AND sequence = ?3",
        [queue.id, place.state, place.sequence],
    )?;
    erase_place(tx, queue.id, place)
}

/// Some of the held messages that are due, each with whether its ttl has ended.
fn due_held(tx: &Tx<'_>, queue: i64, now: Timestamp) -> Result<Vec<(Place, bool)>> {
    tx.connection
        .prepare_cached(
            "SELECT sequence, state, body, expires_at <= ?2 FROM held
             WHERE queue = ?1 AND due_at <= ?2 ORDER BY due_at LIMIT ?3",
        )
        .and_then(|mut statement| {
            statement
                .query_map(params![queue, now.as_millis(), STEP], |row| {
                    let place =
                        Place { sequence: row.get(0)?, state: row.get(1)?, body: row.get(2)? };
                    Ok((place, row.get(3)?))
                })?
                .collect()
        })
        .map_err(store_error)
}

/// Runs a query that selects sequence, state and body.
pub(super) fn places(tx: &Tx<'_>, sql: &str, params: impl rusqlite::Params) -> Result<Vec<Place>> {
    tx.connection
        .prepare_cached(sql)
        .and_then(|mut statement| {
            statement
                .query_map(params, |row| {
                    Ok(Place { sequence: row.get(0)?, state: row.get(1)?, body: row.get(2)? })
                })?
                .collect()
        })
        .map_err(store_error)
}

fn next_due(tx: &Tx<'_>, queue: i64) -> Result<i64> {
    tx.connection
        .prepare_cached(
            "SELECT min(coalesce((SELECT min(expires_at) FROM ready WHERE queue = ?1), ?2),
                        coalesce((SELECT min(due_at) FROM held WHERE queue = ?1), ?2),
                        coalesce((SELECT min(expires_at) FROM claim WHERE queue = ?1), ?2),
                        coalesce((SELECT min(expires_at) FROM deduplication
                                  WHERE queue = ?1), ?2))",
        )
        .and_then(|mut statement| statement.query_row([queue, NEVER], |row| row.get(0)))
        .map_err(store_error)
}
