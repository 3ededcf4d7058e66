//! Redrive: moves dead letters back to the queue or group that they come from.

use std::collections::HashMap;

use async_trait::async_trait;
use rusqlite::params;
use storage_traits::{
    Limit, Page, Result,
    domain::{Origin, QueueRef, Timestamp},
    pool::{DeadLetterStore, RedriveSpec, Redriven},
    support::RedriveSchedule,
};

use super::{
    due::up_to_date_row,
    enqueue::{NewRow, insert},
    group::group_incarnation,
    ordering::is_available,
    progress::Progress,
    rows::{MessageRow, READY, execute, message_columns, state, whole_seconds},
    transitions::{clear_dead_letter_flag, detach},
};
use crate::sqlite::{error::store_error, queue_row::QueueRow, store::Sqlite, transaction::Tx};

#[async_trait]
impl DeadLetterStore for Sqlite {
    async fn redrive(
        &self,
        queue: &QueueRef,
        spec: RedriveSpec,
        now: Timestamp,
    ) -> Result<Redriven> {
        let queue = queue.clone();
        self.write_until_done(move |tx| redrive(tx, &queue, spec, now)).await
    }
}

/// Dead letters that a redrive reads to find some that are ready.
const LOOK_AHEAD: u32 = 1_024;

/// A ready dead letter.
struct DeadLetterRow {
    row: MessageRow,
    client: String,
    /// `None` if the stored form cannot be parsed.
    origin: Option<Origin>,
}

fn redrive(
    tx: &mut Tx<'_>,
    queue: &QueueRef,
    spec: RedriveSpec,
    now: Timestamp,
) -> Result<Progress<Redriven>> {
    let mut redriven = Redriven { moved: 0, orphaned: 0, more: false, last_visible_at: now };
    let mut row = match up_to_date_row(tx, queue, now)? {
        None => return Ok(Progress::Done(redriven)),
        Some(Progress::Again) => return Ok(Progress::Again),
        Some(Progress::Done(row)) => row,
    };
    let found = ready_dead_letters(tx, &row, spec.limit)?;
    redriven.more = found.more;
    let next_free = Timestamp::from_millis(row.next_redrive_at);
    let schedule = RedriveSchedule::new(spec.rate, next_free, now);
    for dead_letter in found.items {
        let visible_at = schedule.visible_at(redriven.moved);
        if move_back(tx, &mut row, &dead_letter, visible_at, now)? {
            redriven.moved += 1;
            redriven.last_visible_at = visible_at;
        } else {
            mark_orphaned(tx, &mut row, &dead_letter.row)?;
            redriven.orphaned += 1;
        }
    }
    row.next_redrive_at = schedule.next_free(redriven.moved, next_free).as_millis();
    tx.save(row);
    Ok(Progress::Done(redriven))
}

/// Returns the first dead letters that are ready.
fn ready_dead_letters(tx: &Tx<'_>, queue: &QueueRow, limit: Limit) -> Result<Page<DeadLetterRow>> {
    let read = |sql: &str, limit: u32| -> Result<Vec<DeadLetterRow>> {
        tx.connection
            .prepare_cached(sql)
            .and_then(|mut statement| {
                statement
                    .query_map(params![queue.id, limit], |columns| {
                        let row = MessageRow::read(columns)?;
                        let client = columns.get(5)?;
                        let origin = Origin::from_text(columns.get_ref(6)?.as_str()?);
                        Ok(DeadLetterRow { row, client, origin })
                    })?
                    .collect()
            })
            .map_err(store_error)
    };
    // If every message of the queue is ready, no dead letter has to be skipped.
    let may_skip = queue.claimed > 0 || queue.delayed > 0 || queue.keys > queue.available_keys;
    let window = if may_skip { LOOK_AHEAD.max(limit.with_spare()) } else { limit.with_spare() };
    let mut found = read(
        concat!(
            "SELECT ",
            message_columns!(ready_message),
            ", client, origin FROM ready_message JOIN (
                 SELECT sequence AS dead FROM dead_letter WHERE queue_id = ?1
                 ORDER BY sequence LIMIT ?2)
             WHERE queue_id = ?1 AND sequence = dead"
        ),
        window,
    )?;
    let keyed = read(
        concat!(
            "SELECT ",
            message_columns!(message_by_state),
            ", client, origin FROM message_by_state JOIN (
                 SELECT sequence AS dead FROM dead_letter WHERE queue_id = ?1
                 ORDER BY sequence LIMIT ?2)
             WHERE queue_id = ?1 AND state = ",
            state!(READY_KEYED),
            " AND sequence = dead"
        ),
        window,
    )?;
    let more_behind_window = may_skip && queue.dead_letters > i64::from(window);
    let mut available = HashMap::new();
    for dead_letter in keyed {
        let Some(key) = &dead_letter.row.ordering_key else { continue };
        let is_available = match available.get(key) {
            Some(is_available) => *is_available,
            None => *available.entry(key.clone()).or_insert(is_available(tx, queue, key)?),
        };
        if is_available {
            found.push(dead_letter);
        }
    }
    found.sort_by_key(|dead_letter| dead_letter.row.sequence);
    let mut page = Page::cut(found, limit);
    page.more |= more_behind_window;
    Ok(page)
}

/// Moves a dead letter to the end of its origin. Returns `false` if the origin does not exist any
/// more.
fn move_back(
    tx: &mut Tx<'_>,
    queue: &mut QueueRow,
    dead_letter: &DeadLetterRow,
    visible_at: Timestamp,
    now: Timestamp,
) -> Result<bool> {
    let Some(origin) = &dead_letter.origin else { return Ok(false) };
    let Some((mut source, mut target)) = origin_rows(tx, origin)? else { return Ok(false) };
    let row = &dead_letter.row;
    // The message keeps its reference to the body.
    detach(tx, queue, row)?;
    // The queue assigns the sequence, for its groups too.
    source.last_sequence += 1;
    let new = NewRow {
        sequence: source.last_sequence,
        expires_at: visible_at.plus(origin.ttl).as_millis(),
        visible_at: visible_at.as_millis(),
        posted_at: now.as_millis(),
        ttl_seconds: whole_seconds(origin.ttl),
        client: &dead_letter.client,
        ordering_key: row.ordering_key.as_deref(),
        origin: None,
        body_id: row.body_id,
    };
    // If both are the same row, the one that is saved last has both changes.
    tx.save(source);
    insert(tx, &mut target, &new, now)?;
    tx.save(target);
    Ok(true)
}

/// Returns the rows of an origin: the queue, and the group that the message comes from or the queue
/// again. `None` if one of them does not exist any more.
fn origin_rows(tx: &mut Tx<'_>, origin: &Origin) -> Result<Option<(QueueRow, QueueRow)>> {
    let Some(source) = tx.queue(origin.queue)? else { return Ok(None) };
    let Some(group) = &origin.group else { return Ok(Some((source, source))) };
    let Some(group) = group_incarnation(tx, source.incarnation, group)? else { return Ok(None) };
    Ok(tx.queue(group)?.map(|group| (source, group)))
}

/// Marks a dead letter as orphaned: it stays as an ordinary message of the dead-letter queue,
/// without an origin.
fn mark_orphaned(tx: &Tx<'_>, queue: &mut QueueRow, message: &MessageRow) -> Result<()> {
    let (queue_id, sequence, state) = (queue.id, message.sequence, message.state);
    clear_dead_letter_flag(tx, queue, sequence)?;
    if state == READY {
        let sql = "UPDATE ready_message SET origin = NULL WHERE queue_id = ?1 AND sequence = ?2";
        execute(tx.connection, sql, [queue_id, sequence])?;
    } else {
        let sql = "UPDATE message_by_state SET origin = NULL
                   WHERE queue_id = ?1 AND state = ?2 AND sequence = ?3";
        execute(tx.connection, sql, [queue_id, state, sequence])?;
    }
    Ok(())
}
