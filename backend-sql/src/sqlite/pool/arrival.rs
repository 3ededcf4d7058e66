//! Messages that come into a queue, and with it into its groups.

use rusqlite::params;
use storage_traits::{
    Result,
    domain::{Incarnation, Timestamp},
};

use super::{
    line::{Shift, shift},
    rows::{DELAYED, IN_LINE, RETAINED, execute},
    settle::{Place, place_of, places},
};
use crate::sqlite::{
    error::unexpected,
    writer::{NEVER, QueueRow, Tx},
};

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
    /// Where it comes from if it is a dead letter, in the form that is stored.
    pub(super) origin: Option<&'m str>,
    pub(super) body: i64,
}

/// Puts a message into a queue and all its groups, and keeps it for later ones if it is `retained`.
pub(super) fn append(
    tx: &mut Tx<'_>,
    queue: &mut QueueRow,
    arrival: &Arrival<'_>,
    retained: bool,
    now: Timestamp,
) -> Result<()> {
    put(tx, queue, arrival, now)?;
    if queue.groups == 0 && !retained {
        return Ok(());
    }
    let mut copies = 0;
    if retained {
        retain(tx, queue, arrival)?;
        copies += 1;
    }
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
    let Arrival { sequence, expires_at, visible_at, posted_at, ttl, client, key, origin, body } =
        *arrival;
    row.last_sequence = row.last_sequence.max(sequence);
    if origin.is_some() {
        row.dead_letters += 1;
        let sql = "INSERT INTO dead_letter (queue, sequence) VALUES (?1, ?2)";
        execute(tx.connection, sql, [row.id, sequence])?;
    }
    let delayed = visible_at > now.as_millis();
    let due_at = if delayed { visible_at.min(expires_at) } else { expires_at };
    row.due(due_at);
    if !delayed && key.is_none() {
        row.ready += 1;
        execute(
            tx.connection,
            "INSERT INTO ready (queue, sequence, expires_at, visible_at, posted_at, ttl,
                 claim_count, client, body, origin)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, 0, ?7, ?8, ?9)",
            params![row.id, sequence, expires_at, visible_at, posted_at, ttl, client, body, origin],
        )?;
        return Ok(());
    }
    hold(tx, row.id, if delayed { DELAYED } else { IN_LINE }, due_at, arrival)?;
    match key {
        _ if delayed => row.delayed += 1,
        Some(key) => shift(tx, row, key, Shift::COME)?,
        None => {}
    }
    Ok(())
}

fn hold(tx: &Tx<'_>, queue: i64, state: i64, due_at: i64, arrival: &Arrival<'_>) -> Result<()> {
    let Arrival { sequence, expires_at, visible_at, posted_at, ttl, client, key, origin, body } =
        *arrival;
    execute(
        tx.connection,
        "INSERT INTO held (queue, state, sequence, due_at, expires_at, visible_at, posted_at, ttl,
             claim_count, client, body, ordering_key, origin)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, 0, ?9, ?10, ?11, ?12)",
        params![
            queue, state, sequence, due_at, expires_at, visible_at, posted_at, ttl, client, body,
            key, origin
        ],
    )?;
    Ok(())
}

/// Keeps a message of a queue for groups that start later, or move back.
fn retain(tx: &mut Tx<'_>, queue: &mut QueueRow, arrival: &Arrival<'_>) -> Result<()> {
    let log = match queue.log {
        Some(log) => log,
        None => begin_log(tx, queue)?,
    };
    let Some(mut row) = tx.queue(log)? else { return Err(unexpected("a log is missing")) };
    row.due(arrival.expires_at);
    tx.put(row);
    hold(tx, row.id, RETAINED, arrival.expires_at, arrival)
}

fn begin_log(tx: &Tx<'_>, queue: &mut QueueRow) -> Result<Incarnation> {
    let log = Incarnation::generate_for_group();
    execute(
        tx.connection,
        "INSERT INTO pool_queue (incarnation, project, name, last_sequence, ready, delayed, claimed,
             next_due, mirrors)
         SELECT ?1, project, name, 0, 0, 0, 0, ?2, ?3 FROM pool_queue WHERE id = ?4",
        params![log.get(), NEVER, queue.incarnation.get(), queue.id],
    )?;
    queue.log = Some(log);
    Ok(log)
}

/// What a queue retains of a message, and where.
pub(super) fn retained(
    tx: &mut Tx<'_>,
    queue: &QueueRow,
    sequence: i64,
) -> Result<Option<(QueueRow, Place)>> {
    let log = queue.log.map(|log| tx.queue(log)).transpose()?.flatten();
    let Some(log) = log else { return Ok(None) };
    let found = places(
        tx,
        concat!(
            "SELECT ",
            place_of!(held),
            " FROM held WHERE queue = ?1 AND state = ?2 AND sequence = ?3"
        ),
        [log.id, RETAINED, sequence],
    )?;
    Ok(found.into_iter().next().map(|place| (log, place)))
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
