//! What time alone does to a queue: messages expire, delays end, claims lapse.

use rusqlite::params;
use storage_traits::{Result, domain::Timestamp};

use super::{
    STEP,
    arrival::release_body,
    group::fill,
    line::{Shift, shift},
    rows::{CLAIMED, DELAYED, IN_LINE, READY, execute},
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
#[derive(Clone)]
pub(super) struct Place {
    pub(super) sequence: i64,
    pub(super) state: i64,
    pub(super) body: i64,
    /// Its ordering key.
    pub(super) key: Option<String>,
    /// Whether it was claimed before: if it is delayed as well, it waits for a retry.
    pub(super) tried: bool,
}

impl Place {
    /// Whether others of its key wait for it: it is claimed, or it waits for a retry.
    const fn is_busy(&self) -> bool {
        self.state == CLAIMED || (self.state == DELAYED && self.tried)
    }

    /// Reads it from the columns that [`place_of!`] names.
    pub(super) fn read(row: &rusqlite::Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            sequence: row.get(0)?,
            state: row.get(1)?,
            body: row.get(2)?,
            key: row.get(3)?,
            tried: row.get(4)?,
        })
    }
}

/// The columns of `ready` or `held` that make a [`Place`].
macro_rules! place_of {
    (ready) => {
        "sequence, 0, body, NULL, claim_count > 0"
    };
    (held) => {
        "sequence, state, body, ordering_key, claim_count > 0"
    };
}
pub(super) use place_of;

/// Brings the rows of a queue up to `now`, in a bounded step.
pub(super) fn settle(tx: &mut Tx<'_>, queue: &mut QueueRow, now: Timestamp) -> Result<Settled> {
    if !queue.is_due(now) {
        return Ok(Settled { done: true, handled: 0 });
    }
    if let Some(range) = queue.fill {
        fill(tx, queue, range, now)?;
        if queue.fill.is_none() {
            queue.next_due = next_due(tx, queue.id)?;
        }
        tx.put(*queue);
        return Ok(Settled { done: !queue.is_due(now), handled: STEP as u64 });
    }
    let over = places(
        tx,
        concat!(
            "SELECT ",
            place_of!(ready),
            " FROM ready WHERE queue = ?1 AND expires_at <= ?2 ORDER BY expires_at LIMIT ?3"
        ),
        params![queue.id, now.as_millis(), STEP],
    )?;
    for place in &over {
        remove(tx, queue, place)?;
    }
    // Of a message that expires in groups as well, the queue is counted.
    let counts = u64::from(queue.mirrors.is_none());
    tx.tally.expired += counts * over.len() as u64;
    let due = due_held(tx, queue.id, now)?;
    for (place, is_over) in &due {
        if *is_over {
            remove(tx, queue, place)?;
            tx.tally.expired += counts;
        } else {
            free(tx, queue, place)?;
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
pub(super) fn remove(tx: &Tx<'_>, queue: &mut QueueRow, place: &Place) -> Result<()> {
    take_out(tx, queue, place)?;
    release_body(tx, place.body)
}

/// Removes a message from the queue, whatever its state, but not its body.
pub(super) fn take_out(tx: &Tx<'_>, queue: &mut QueueRow, place: &Place) -> Result<()> {
    leave(tx, queue, place)?;
    forget_letter(tx, queue, place.sequence)?;
    erase_place(tx, queue.id, place)
}

/// Makes a dead letter a message like any, as far as finding it goes.
pub(super) fn forget_letter(tx: &Tx<'_>, queue: &mut QueueRow, sequence: i64) -> Result<()> {
    if queue.dead_letters > 0 {
        let sql = "DELETE FROM dead_letter WHERE queue = ?1 AND sequence = ?2";
        let forgotten = execute(tx.connection, sql, [queue.id, sequence])?;
        queue.dead_letters -= i64::try_from(forgotten).unwrap_or(0);
    }
    Ok(())
}

/// Removes the rows of a message.
pub(super) fn erase(tx: &Tx<'_>, queue: i64, place: &Place) -> Result<()> {
    erase_place(tx, queue, place)?;
    release_body(tx, place.body)
}

/// Removes a message from where it stands, but not its body.
pub(super) fn erase_place(tx: &Tx<'_>, queue: i64, place: &Place) -> Result<()> {
    let Place { sequence, state, .. } = *place;
    if state == READY {
        let sql = "DELETE FROM ready WHERE queue = ?1 AND sequence = ?2";
        execute(tx.connection, sql, [queue, sequence])?;
    } else {
        let sql = "DELETE FROM held WHERE queue = ?1 AND state = ?2 AND sequence = ?3";
        execute(tx.connection, sql, [queue, state, sequence])?;
    }
    Ok(())
}

/// Takes a message that goes out of the counters, and out of its line.
pub(super) fn leave(tx: &Tx<'_>, queue: &mut QueueRow, place: &Place) -> Result<()> {
    match place.state {
        CLAIMED => queue.claimed -= 1,
        DELAYED => queue.delayed -= 1,
        READY => queue.ready -= 1,
        _ => {} // counted with its line
    }
    match &place.key {
        Some(key) if place.state == IN_LINE => shift(tx, queue, key, Shift::GONE),
        Some(key) if place.is_busy() => shift(tx, queue, key, Shift::DONE),
        _ => Ok(()),
    }
}

/// Puts a held message back among the ready ones. A lapsed claim stays written on it until another
/// takes it.
pub(super) fn free(tx: &Tx<'_>, queue: &mut QueueRow, place: &Place) -> Result<()> {
    if let Some(key) = &place.key {
        if place.state == CLAIMED {
            queue.claimed -= 1;
        } else {
            queue.delayed -= 1;
        }
        execute(
            tx.connection,
            "UPDATE held SET state = ?4, due_at = expires_at
             WHERE queue = ?1 AND state = ?2 AND sequence = ?3",
            [queue.id, place.state, place.sequence, IN_LINE],
        )?;
        return shift(tx, queue, key, if place.is_busy() { Shift::BACK } else { Shift::COME });
    }
    leave(tx, queue, place)?;
    queue.ready += 1;
    execute(
        tx.connection,
        "INSERT INTO ready (queue, sequence, expires_at, visible_at, posted_at, ttl, claim,
             claim_count, client, body, origin)
         SELECT queue, sequence, expires_at, visible_at, posted_at, ttl, claim, claim_count, client,
             body, origin FROM held WHERE queue = ?1 AND state = ?2 AND sequence = ?3",
        [queue.id, place.state, place.sequence],
    )?;
    erase_place(tx, queue.id, place)
}

/// Some of the held messages that are due, each with whether its ttl has ended.
fn due_held(tx: &Tx<'_>, queue: i64, now: Timestamp) -> Result<Vec<(Place, bool)>> {
    tx.connection
        .prepare_cached(concat!(
            "SELECT ",
            place_of!(held),
            ", expires_at <= ?2 FROM held
                 WHERE queue = ?1 AND due_at <= ?2 ORDER BY due_at LIMIT ?3"
        ))
        .and_then(|mut statement| {
            statement
                .query_map(params![queue, now.as_millis(), STEP], |row| {
                    Ok((Place::read(row)?, row.get(5)?))
                })?
                .collect()
        })
        .map_err(store_error)
}

/// Runs a query that selects what [`place_of!`] names.
pub(super) fn places(tx: &Tx<'_>, sql: &str, params: impl rusqlite::Params) -> Result<Vec<Place>> {
    tx.connection
        .prepare_cached(sql)
        .and_then(|mut statement| statement.query_map(params, Place::read)?.collect())
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
