//! Inserts messages into a queue, its groups and its retention log.

use rusqlite::params;
use storage_traits::{
    Result,
    domain::{Incarnation, Timestamp},
};

use super::{
    bodies::ref_body,
    ordering::{KeyDelta, update_key},
    rows::{
        DELAYED, MessageRow, READY_KEYED, RETAINED, execute, message_columns, select_rows, state,
    },
};
use crate::sqlite::{
    error::unexpected,
    queue_row::{NEVER, QueueRow},
    transaction::Tx,
};

/// A message to insert. Its body is stored already; no consumer has claimed it.
pub(super) struct NewRow<'m> {
    pub(super) sequence: i64,
    pub(super) expires_at: i64,
    pub(super) visible_at: i64,
    pub(super) posted_at: i64,
    pub(super) ttl_seconds: i64,
    pub(super) client: &'m str,
    pub(super) ordering_key: Option<&'m str>,
    /// Of a dead letter, the stored form of its [`Origin`](storage_traits::domain::Origin).
    pub(super) origin: Option<&'m str>,
    pub(super) body_id: i64,
}

/// Inserts a message into a queue and all its groups; if it is `retained`, into the retention log
/// too.
pub(super) fn enqueue(
    tx: &mut Tx<'_>,
    queue: &mut QueueRow,
    new: &NewRow<'_>,
    retained: bool,
    now: Timestamp,
) -> Result<()> {
    insert(tx, queue, new, now)?;
    if queue.group_count == 0 && !retained {
        return Ok(());
    }
    let mut copies = 0;
    if retained {
        retain(tx, queue, new)?;
        copies += 1;
    }
    for group in tx.groups(queue.incarnation)?.iter() {
        if let Some(mut group) = tx.queue(*group)? {
            insert(tx, &mut group, new, now)?;
            tx.save(group);
            copies += 1;
        }
    }
    ref_body(tx, new.body_id, copies)
}

/// Inserts a message into one queue or group.
pub(super) fn insert(
    tx: &Tx<'_>,
    queue: &mut QueueRow,
    new: &NewRow<'_>,
    now: Timestamp,
) -> Result<()> {
    queue.last_sequence = queue.last_sequence.max(new.sequence);
    if new.origin.is_some() {
        queue.dead_letters += 1;
        let sql = "INSERT INTO dead_letter (queue_id, sequence) VALUES (?1, ?2)";
        execute(tx.connection, sql, [queue.id, new.sequence])?;
    }
    let is_delayed = new.visible_at > now.as_millis();
    let due_at = if is_delayed { new.visible_at.min(new.expires_at) } else { new.expires_at };
    queue.record_due(due_at);
    match new.ordering_key {
        _ if is_delayed => {
            queue.delayed += 1;
            insert_by_state(tx, queue.id, DELAYED, due_at, new)
        }
        Some(key) => {
            insert_by_state(tx, queue.id, READY_KEYED, due_at, new)?;
            update_key(tx, queue, key, KeyDelta::ENQUEUED)
        }
        None => {
            queue.ready += 1;
            insert_ready(tx, queue.id, new)
        }
    }
}

fn insert_ready(tx: &Tx<'_>, queue_id: i64, new: &NewRow<'_>) -> Result<()> {
    execute(
        tx.connection,
        "INSERT INTO ready_message (queue_id, sequence, expires_at, visible_at, posted_at,
             ttl_seconds, claim_count, client, body_id, origin)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, 0, ?7, ?8, ?9)",
        params![
            queue_id,
            new.sequence,
            new.expires_at,
            new.visible_at,
            new.posted_at,
            new.ttl_seconds,
            new.client,
            new.body_id,
            new.origin
        ],
    )?;
    Ok(())
}

fn insert_by_state(
    tx: &Tx<'_>,
    queue_id: i64,
    state: i64,
    due_at: i64,
    new: &NewRow<'_>,
) -> Result<()> {
    execute(
        tx.connection,
        "INSERT INTO message_by_state (queue_id, state, sequence, due_at, expires_at, visible_at,
             posted_at, ttl_seconds, claim_count, client, body_id, ordering_key, origin)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, 0, ?9, ?10, ?11, ?12)",
        params![
            queue_id,
            state,
            new.sequence,
            due_at,
            new.expires_at,
            new.visible_at,
            new.posted_at,
            new.ttl_seconds,
            new.client,
            new.body_id,
            new.ordering_key,
            new.origin
        ],
    )?;
    Ok(())
}

/// Inserts a message into the retention log of its queue. Groups that are created later, or are
/// moved back, copy it from there.
fn retain(tx: &mut Tx<'_>, queue: &mut QueueRow, new: &NewRow<'_>) -> Result<()> {
    let log = match queue.retention_log {
        Some(log) => log,
        None => create_retention_log(tx, queue)?,
    };
    let Some(mut log) = tx.queue(log)? else {
        return Err(unexpected("a retention log is missing"));
    };
    log.record_due(new.expires_at);
    tx.save(log);
    insert_by_state(tx, log.id, RETAINED, new.expires_at, new)
}

fn create_retention_log(tx: &Tx<'_>, queue: &mut QueueRow) -> Result<Incarnation> {
    let log = Incarnation::generate_for_group();
    execute(
        tx.connection,
        "INSERT INTO pool_queue (incarnation, project, name, last_sequence, next_due, source_queue)
         SELECT ?1, project, name, 0, ?2, ?3 FROM pool_queue WHERE id = ?4",
        params![log.get(), NEVER, queue.incarnation.get(), queue.id],
    )?;
    queue.retention_log = Some(log);
    Ok(log)
}

/// Looks up a message in the retention log of its queue. Returns the row of the log too.
pub(super) fn retained_row(
    tx: &mut Tx<'_>,
    queue: &QueueRow,
    sequence: i64,
) -> Result<Option<(QueueRow, MessageRow)>> {
    let log = queue.retention_log.map(|log| tx.queue(log)).transpose()?.flatten();
    let Some(log) = log else { return Ok(None) };
    let found = select_rows(
        tx,
        concat!(
            "SELECT ",
            message_columns!(message_by_state),
            " FROM message_by_state WHERE queue_id = ?1 AND state = ",
            state!(RETAINED),
            " AND sequence = ?2"
        ),
        [log.id, sequence],
    )?;
    Ok(found.into_iter().next().map(|row| (log, row)))
}
