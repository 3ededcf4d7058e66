//! Moves messages to a dead-letter queue.

use std::time::Duration;

use storage_traits::{
    Result, StoreError,
    domain::{DeadLetter, Origin, Timestamp},
};

use super::{
    enqueue::{NewRow, enqueue},
    group::group_name,
    rows::{StoredMessage, whole_seconds},
    transitions::detach,
};
use crate::sqlite::{queue_row::QueueRow, transaction::Tx};

/// Moves a ready message to the end of the dead-letter queue, with a new delivery state. Returns
/// how many rows that inserted, with those of groups and of the retention log.
pub(super) fn move_to_dead_letter_queue(
    tx: &mut Tx<'_>,
    queue: &mut QueueRow,
    stored: &StoredMessage,
    rule: &DeadLetter,
    now: Timestamp,
) -> Result<usize> {
    let Some(mut target) = tx.queue(rule.queue.incarnation)? else {
        return Err(StoreError::not_found("queue", &rule.queue.key));
    };
    let ttl = rule.ttl.unwrap_or(stored.message.ttl);
    let row = stored.row();
    let new = NewRow {
        sequence: target.last_sequence + 1,
        expires_at: now.plus(ttl).as_millis(),
        visible_at: now.as_millis(),
        posted_at: now.as_millis(),
        ttl_seconds: whole_seconds(ttl),
        client: stored.message.client.as_str(),
        ordering_key: row.ordering_key.as_deref(),
        origin: Some(&origin(tx, queue, stored.message.ttl)?),
        body_id: row.body_id,
    };
    enqueue(tx, &mut target, &new, rule.retained, now)?;
    let inserted =
        1 + usize::from(rule.retained) + usize::try_from(target.group_count).unwrap_or(0);
    tx.save(target);
    // The dead letter takes over the message's reference to the body.
    detach(tx, queue, &row)?;
    tx.save(*queue);
    Ok(inserted)
}

/// Returns the stored form of a dead letter's origin, for a message of this queue or group.
fn origin(tx: &Tx<'_>, queue: &QueueRow, ttl: Duration) -> Result<String> {
    let group = match queue.source_queue {
        None => None,
        Some(source) => group_name(tx, source, queue.incarnation)?,
    };
    Ok(Origin { queue: queue.message_incarnation(), group, ttl }.to_text())
}
