use rusqlite::{OptionalExtension, params};
use storage_traits::{
    Result, StoreError,
    domain::{
        ClientId, Deduplication, MessageId, NewMessage, OrderingKey, Posted, QueueRef, Sequence,
        Timestamp,
    },
};

use super::{
    bodies::insert_body,
    enqueue::{NewRow, enqueue},
    rows::{execute, whole_seconds},
};
use crate::sqlite::{
    error::{store_error, unexpected},
    queue_row::QueueRow,
    transaction::Tx,
};

/// Posts messages to a queue. A message whose deduplication id was posted within the window is not
/// stored again.
pub(super) fn post(
    tx: &mut Tx<'_>,
    queue: &QueueRef,
    client: &ClientId,
    messages: &[NewMessage],
    now: Timestamp,
) -> Result<Vec<Posted>> {
    // Messages are posted to queues, not to groups.
    let row = tx.queue(queue.incarnation)?.filter(|row| row.source_queue.is_none());
    let Some(mut row) = row else {
        return Err(StoreError::not_found("queue", &queue.key));
    };
    let mut posted = Vec::with_capacity(messages.len());
    for message in messages {
        if let Some(deduplication) = &message.deduplication {
            let next = row.last_sequence + 1;
            if let Some(first) = find_duplicate(tx, &mut row, deduplication, next, now)? {
                posted.push(Posted { id: message_id(queue, first)?, duplicate: true });
                continue;
            }
        }
        let (visible_at, expires_at) = message.lifetime(now);
        let body_id = insert_body(tx, message)?;
        let new = NewRow {
            sequence: row.last_sequence + 1,
            expires_at: expires_at.as_millis(),
            visible_at: visible_at.as_millis(),
            posted_at: now.as_millis(),
            ttl_seconds: whole_seconds(message.ttl),
            client: client.as_str(),
            ordering_key: message.ordering_key.as_ref().map(OrderingKey::as_str),
            origin: None,
            body_id,
        };
        enqueue(tx, &mut row, &new, message.retained, now)?;
        posted.push(Posted { id: message_id(queue, row.last_sequence)?, duplicate: false });
    }
    tx.save(row);
    Ok(posted)
}

fn message_id(queue: &QueueRef, sequence: i64) -> Result<MessageId> {
    let sequence =
        Sequence::new(sequence).ok_or_else(|| unexpected("the queue has used up its sequence"))?;
    Ok(MessageId { incarnation: queue.incarnation, sequence })
}

/// Returns the sequence of the message that was stored with this deduplication id, if the id is
/// within its window. If not, starts a window for the message that the caller stores as `next`.
fn find_duplicate(
    tx: &Tx<'_>,
    row: &mut QueueRow,
    deduplication: &Deduplication,
    next: i64,
    now: Timestamp,
) -> Result<Option<i64>> {
    let (id, expires_at) = (deduplication.id.as_str(), now.plus(deduplication.window).as_millis());
    let first = tx
        .connection
        .prepare_cached(
            "SELECT sequence FROM deduplication
             WHERE queue_id = ?1 AND id = ?2 AND expires_at > ?3",
        )
        .and_then(|mut statement| {
            statement.query_row(params![row.id, id, now.as_millis()], |row| row.get(0)).optional()
        })
        .map_err(store_error)?;
    if first.is_none() {
        execute(
            tx.connection,
            "INSERT OR REPLACE INTO deduplication (queue_id, id, sequence, expires_at)
             VALUES (?1, ?2, ?3, ?4)",
            params![row.id, id, next, expires_at],
        )?;
        row.record_due(expires_at);
    }
    Ok(first)
}
