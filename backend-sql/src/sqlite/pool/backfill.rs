//! Copies the messages of a queue to a new group.

use rusqlite::{Params, Row, params};
use storage_traits::{Result, domain::Timestamp};

use super::{
    bodies::ref_body,
    enqueue::{NewRow, insert},
    progress::MAX_STEP_ROWS,
    rows::{CLAIMED, DELAYED, READY_KEYED, RETAINED},
};
use crate::sqlite::{
    error::store_error,
    queue_row::{Backfill, QueueRow},
    transaction::Tx,
};

/// What is copied of a message: all but its delivery state.
struct SourceRow {
    sequence: i64,
    expires_at: i64,
    visible_at: i64,
    posted_at: i64,
    ttl_seconds: i64,
    client: String,
    ordering_key: Option<String>,
    origin: Option<String>,
    body_id: i64,
}

/// Copies a bounded part of the range to the group.
pub(super) fn backfill(
    tx: &mut Tx<'_>,
    group: &mut QueueRow,
    range: Backfill,
    now: Timestamp,
) -> Result<()> {
    let source = group.source_queue.map(|source| tx.queue(source)).transpose()?.flatten();
    let Some(source) = source else {
        // The queue was dropped, and its groups with it.
        group.backfill = None;
        return Ok(());
    };
    let mut found = ready_rows(tx, source.id, range)?;
    for state in [DELAYED, CLAIMED, READY_KEYED] {
        found.extend(rows_by_state(tx, source.id, state, range)?);
    }
    if let Some(log) = source.retention_log.map(|log| tx.queue(log)).transpose()?.flatten() {
        found.extend(rows_by_state(tx, log.id, RETAINED, range)?);
    }
    // The sort is stable: of a message in the queue and in its log, the queue's row is kept.
    found.sort_by_key(|row| row.sequence);
    found.dedup_by_key(|row| row.sequence);
    let more = found.len() >= MAX_STEP_ROWS;
    found.truncate(MAX_STEP_ROWS);
    let last = found.last().filter(|_| more);
    group.backfill = last.map(|last| Backfill { after: last.sequence, ..range });
    for row in found {
        if row.expires_at <= now.as_millis() || row.posted_at < range.since {
            continue;
        }
        let new = NewRow {
            sequence: row.sequence,
            expires_at: row.expires_at,
            visible_at: row.visible_at,
            posted_at: row.posted_at,
            ttl_seconds: row.ttl_seconds,
            client: &row.client,
            ordering_key: row.ordering_key.as_deref(),
            origin: row.origin.as_deref(),
            body_id: row.body_id,
        };
        insert(tx, group, &new, now)?;
        ref_body(tx, row.body_id, 1)?;
    }
    Ok(())
}

fn ready_rows(tx: &Tx<'_>, queue_id: i64, range: Backfill) -> Result<Vec<SourceRow>> {
    select(
        tx,
        "SELECT sequence, expires_at, iif(claim_count > 0, posted_at, visible_at), posted_at,
             ttl_seconds, client, NULL, body_id, origin
         FROM ready_message WHERE queue_id = ?1 AND sequence > ?2 AND sequence <= ?3
         ORDER BY sequence LIMIT ?4",
        params![queue_id, range.after, range.up_to, MAX_STEP_ROWS],
    )
}

/// Returns messages in one state, in order. A message that waits for a retry in the queue is
/// visible in the group.
fn rows_by_state(
    tx: &Tx<'_>,
    queue_id: i64,
    state: i64,
    range: Backfill,
) -> Result<Vec<SourceRow>> {
    select(
        tx,
        "SELECT sequence, expires_at, iif(claim_count > 0, posted_at, visible_at), posted_at,
             ttl_seconds, client, ordering_key, body_id, origin
         FROM message_by_state
         WHERE queue_id = ?1 AND state = ?2 AND sequence > ?3 AND sequence <= ?4
         ORDER BY sequence LIMIT ?5",
        params![queue_id, state, range.after, range.up_to, MAX_STEP_ROWS],
    )
}

fn select(tx: &Tx<'_>, sql: &str, params: impl Params) -> Result<Vec<SourceRow>> {
    let read = |row: &Row<'_>| {
        Ok(SourceRow {
            sequence: row.get(0)?,
            expires_at: row.get(1)?,
            visible_at: row.get(2)?,
            posted_at: row.get(3)?,
            ttl_seconds: row.get(4)?,
            client: row.get(5)?,
            ordering_key: row.get(6)?,
            body_id: row.get(7)?,
            origin: row.get(8)?,
        })
    };
    tx.connection
        .prepare_cached(sql)
        .and_then(|mut statement| statement.query_map(params, read)?.collect())
        .map_err(store_error)
}
