//! The message store, and how messages are listed and read.

use std::sync::Arc;

use async_trait::async_trait;
use rusqlite::{Connection, params};
use storage_traits::{
    Page, Result,
    domain::{
        ClaimId, ClientId, Message, MessageId, NewMessage, Posted, QueueRef, Sequence, Timestamp,
    },
    pool::{DeleteOutcome, ListSpec, MessageStore, Rescheduled},
};

use super::{
    delete::{delete, delete_many},
    post::post,
    progress::Progress,
    reschedule::reschedule,
    rows::{
        CLAIMED, DELAYED, READY_KEYED, StoredMessage, own_sequences, select_by_state,
        select_messages, select_ready, state,
    },
};
use crate::sqlite::{error::store_error, queue_row::read_queue_row, store::Sqlite};

#[async_trait]
impl MessageStore for Sqlite {
    async fn post(
        &self,
        queue: &QueueRef,
        client: &ClientId,
        messages: Vec<NewMessage>,
        now: Timestamp,
    ) -> Result<Vec<Posted>> {
        let (queue, client) = (queue.clone(), client.clone());
        self.file.write(move |tx| post(tx, &queue, &client, &messages, now)).await
    }

    async fn list(
        &self,
        queue: &QueueRef,
        spec: &ListSpec,
        now: Timestamp,
    ) -> Result<Page<Message>> {
        loop {
            let (of, spec) = (queue.clone(), spec.clone());
            let read = move |connection: &mut Connection| list(connection, &of, &spec, now);
            match self.file.read(read).await? {
                Progress::Done(page) => return Ok(page),
                Progress::Again => self.apply_all_due(queue, now).await?,
            }
        }
    }

    async fn get(
        &self,
        queue: &QueueRef,
        ids: &[MessageId],
        now: Timestamp,
    ) -> Result<Vec<Message>> {
        let (queue, ids) = (queue.clone(), ids.to_vec());
        self.file.read(move |connection| get(connection, &queue, &ids, now)).await
    }

    async fn delete(
        &self,
        queue: &QueueRef,
        id: MessageId,
        claim: Option<ClaimId>,
        now: Timestamp,
    ) -> Result<DeleteOutcome> {
        let queue = queue.clone();
        self.file.write(move |tx| delete(tx, &queue, id, claim, now)).await
    }

    async fn reschedule(
        &self,
        queue: &QueueRef,
        id: MessageId,
        visible_at: Timestamp,
        now: Timestamp,
    ) -> Result<Rescheduled> {
        let queue = queue.clone();
        self.file.write(move |tx| reschedule(tx, &queue, id, visible_at, now)).await
    }

    async fn delete_many(
        &self,
        queue: &QueueRef,
        ids: &[MessageId],
        claims: &[ClaimId],
        now: Timestamp,
    ) -> Result<Option<u64>> {
        let (queue, ids) = (queue.clone(), ids.to_vec());
        let claims: Arc<[ClaimId]> = claims.into();
        self.file.write(move |tx| delete_many(tx, &queue, &ids, &claims, now)).await
    }
}

/// Lists messages. Returns `Again` if something is due in the queue: a reader cannot apply it.
fn list(
    connection: &mut Connection,
    queue: &QueueRef,
    spec: &ListSpec,
    now: Timestamp,
) -> Result<Progress<Page<Message>>> {
    let snapshot = connection.transaction().map_err(store_error)?;
    let Some(row) = read_queue_row(&snapshot, queue.incarnation)? else {
        return Ok(Progress::Done(Page::empty()));
    };
    if row.is_due(now) {
        return Ok(Progress::Again);
    }
    // Each state is in order by itself. The page merges those that the caller asked for.
    let after = spec.after.map_or(0, Sequence::get);
    let hidden = spec.hide_client.as_ref().map(ClientId::as_str);
    let limit = spec.limit.with_spare();
    let mut found = Vec::new();
    if spec.include_free {
        found = select_messages(
            &snapshot,
            row.message_incarnation(),
            select_ready!(
                "WHERE m.queue_id = ?1 AND m.sequence > ?2 AND (?3 IS NULL OR m.client <> ?3)
                 ORDER BY m.sequence LIMIT ?4"
            ),
            params![row.id, after, hidden, limit],
        )?;
    }
    for (state, count, wanted) in [
        (DELAYED, row.delayed, spec.include_delayed),
        (CLAIMED, row.claimed, spec.include_claimed),
        (READY_KEYED, row.ready_keyed, spec.include_free),
    ] {
        if wanted && count > 0 {
            found.extend(select_messages(
                &snapshot,
                row.message_incarnation(),
                select_by_state!(
                    "WHERE m.queue_id = ?1 AND m.state = ?2 AND m.sequence > ?3
                       AND (?4 IS NULL OR m.client <> ?4)
                     ORDER BY m.sequence LIMIT ?5"
                ),
                params![row.id, state, after, hidden, limit],
            )?);
        }
    }
    found.sort_by_key(StoredMessage::sequence);
    Ok(Progress::Done(Page::cut(found, spec.limit).map(|stored| stored.message)))
}

fn get(
    connection: &mut Connection,
    queue: &QueueRef,
    ids: &[MessageId],
    now: Timestamp,
) -> Result<Vec<Message>> {
    let snapshot = connection.transaction().map_err(store_error)?;
    let Some(row) = read_queue_row(&snapshot, queue.incarnation)? else {
        return Ok(Vec::new());
    };
    let incarnation = row.message_incarnation();
    let mut found = Vec::with_capacity(ids.len());
    for sequence in own_sequences(&row, ids) {
        let params = params![row.id, sequence, now.as_millis()];
        let ready =
            select_ready!("WHERE m.queue_id = ?1 AND m.sequence = ?2 AND m.expires_at > ?3");
        let by_state = select_by_state!(
            "WHERE m.queue_id = ?1 AND m.state IN ",
            state!(SERVED),
            " AND m.sequence = ?2 AND m.expires_at > ?3"
        );
        let before = found.len();
        found.extend(select_messages(&snapshot, incarnation, ready, params)?);
        if found.len() == before {
            found.extend(select_messages(&snapshot, incarnation, by_state, params)?);
        }
    }
    Ok(found.into_iter().map(|stored| stored.message).collect())
}
