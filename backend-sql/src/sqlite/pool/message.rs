//! Messages: post them, look at them, delete them.

use std::sync::Arc;

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension, params};
use storage_traits::{
    Page, Result, StoreError,
    domain::{ClaimId, ClientId, Message, MessageId, NewMessage, QueueRef, Sequence, Timestamp},
    pool::{DeleteOutcome, DeleteRefusal, ListSpec, MessageStore},
};

use super::{
    Progress,
    claim::is_alive,
    rows::{CLAIMED, DELAYED, Entry, READY, entries, own_sequences, select_entries, whole_seconds},
    settle::remove,
};
use crate::sqlite::{
    Sqlite,
    error::{store_error, unexpected},
    writer::{Tx, read_queue_row},
};

#[async_trait]
impl MessageStore for Sqlite {
    async fn post(
        &self,
        queue: &QueueRef,
        client: &ClientId,
        messages: Vec<NewMessage>,
        now: Timestamp,
    ) -> Result<Vec<MessageId>> {
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
            let (reading, spec) = (queue.clone(), spec.clone());
            let read = move |connection: &mut Connection| list(connection, &reading, &spec, now);
            match self.file.read(read).await? {
                Progress::Done(page) => return Ok(page),
                Progress::Again => self.settle_all(queue, now).await?,
            }
        }
    }

    async fn get(
        &self,
        queue: &QueueRef,
        ids: &[MessageId],
        now: Timestamp,
    ) -> Result<Vec<Message>> {
        let (queue, ids) = (queue.clone(), own_sequences(queue, ids));
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

    async fn delete_many(
        &self,
        queue: &QueueRef,
        ids: &[MessageId],
        claims: &[ClaimId],
        now: Timestamp,
    ) -> Result<Option<u64>> {
        let (queue, ids) = (queue.clone(), own_sequences(queue, ids));
        let claims: Arc<[ClaimId]> = claims.into();
        self.file.write(move |tx| delete_many(tx, &queue, &ids, &claims, now)).await
    }
}

fn post(
    tx: &mut Tx<'_>,
    queue: &QueueRef,
    client: &ClientId,
    messages: &[NewMessage],
    now: Timestamp,
) -> Result<Vec<MessageId>> {
    let Some(mut row) = tx.queue(queue.incarnation)? else {
        return Err(StoreError::not_found("queue", &queue.key));
    };
    let mut bodies = tx
        .connection
        .prepare_cached("INSERT INTO body (checksum, json) VALUES (?1, ?2)")
        .map_err(store_error)?;
    let mut places = tx
        .connection
        .prepare_cached(
            "INSERT INTO entry (queue, sequence, state, due_at, expires_at, visible_at, posted_at,
                 ttl, claim_count, client, body)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, 0, ?9, ?10)",
        )
        .map_err(store_error)?;
    let mut ids = Vec::with_capacity(messages.len());
    for message in messages {
        let (expires_at, visible_at) = (now.plus(message.ttl), now.plus(message.delay));
        let delayed = visible_at > now;
        let due_at = if delayed { visible_at.min(expires_at) } else { expires_at };
        row.last_sequence += 1;
        let body = bodies
            .insert(params![message.checksum, message.body.as_bytes()])
            .map_err(store_error)?;
        places
            .execute(params![
                row.id,
                row.last_sequence,
                if delayed { DELAYED } else { READY },
                due_at.as_millis(),
                expires_at.as_millis(),
                visible_at.as_millis(),
                now.as_millis(),
                whole_seconds(message.ttl),
                client.as_str(),
                body,
            ])
            .map_err(store_error)?;
        if delayed {
            row.delayed += 1;
        } else {
            row.ready += 1;
        }
        row.due(due_at.as_millis());
        let sequence = Sequence::new(row.last_sequence)
            .ok_or_else(|| unexpected("the queue has used up its sequence"))?;
        ids.push(MessageId { incarnation: queue.incarnation, sequence });
    }
    tx.put(row);
    Ok(ids)
}

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
    // Each state lies in order by itself: the page is the merge of those that are asked for.
    let states = [
        (READY, row.ready, true),
        (DELAYED, row.delayed, spec.include_delayed),
        (CLAIMED, row.claimed, spec.include_claimed),
    ];
    let after = spec.after.map_or(0, Sequence::get);
    let hidden = spec.hide_client.as_ref().map(ClientId::as_str);
    let mut found = Vec::new();
    for (state, _, _) in states.iter().filter(|(_, count, wanted)| *wanted && *count > 0) {
        found.extend(entries(
            &snapshot,
            queue.incarnation,
            select_entries!(
                "WHERE e.queue = ?1 AND e.state = ?2 AND e.sequence > ?3
                   AND (?4 IS NULL OR e.client <> ?4)
                 ORDER BY e.sequence LIMIT ?5"
            ),
            params![row.id, state, after, hidden, spec.limit.with_spare()],
        )?);
    }
    found.sort_by_key(Entry::sequence);
    Ok(Progress::Done(Page::cut(found, spec.limit).map(|entry| entry.message)))
}

fn get(
    connection: &mut Connection,
    queue: &QueueRef,
    sequences: &[i64],
    now: Timestamp,
) -> Result<Vec<Message>> {
    let snapshot = connection.transaction().map_err(store_error)?;
    let Some(row) = read_queue_row(&snapshot, queue.incarnation)? else {
        return Ok(Vec::new());
    };
    let mut found = Vec::with_capacity(sequences.len());
    for sequence in sequences {
        found.extend(entries(
            &snapshot,
            queue.incarnation,
            select_entries!("WHERE e.queue = ?1 AND e.sequence = ?2 AND e.expires_at > ?3"),
            params![row.id, sequence, now.as_millis()],
        )?);
    }
    Ok(found.into_iter().map(|entry| entry.message).collect())
}

/// What deciding on a deletion takes.
struct Target {
    state: i64,
    body: i64,
    /// The live claim that holds it.
    holder: Option<ClaimId>,
}

fn target(tx: &Tx<'_>, queue: i64, sequence: i64, now: Timestamp) -> Result<Option<Target>> {
    tx.connection
        .prepare_cached(
            "SELECT state, body, due_at, claim FROM entry
             WHERE queue = ?1 AND sequence = ?2 AND expires_at > ?3",
        )
        .and_then(|mut statement| {
            statement
                .query_row([queue, sequence, now.as_millis()], |row| {
                    let state = row.get(0)?;
                    let held = state == CLAIMED && row.get::<_, i64>(2)? > now.as_millis();
                    let claim = row.get::<_, Option<[u8; 16]>>(3)?.map(ClaimId::from_bytes);
                    Ok(Target { state, body: row.get(1)?, holder: claim.filter(|_| held) })
                })
                .optional()
        })
        .map_err(store_error)
}

fn delete(
    tx: &mut Tx<'_>,
    queue: &QueueRef,
    id: MessageId,
    claim: Option<ClaimId>,
    now: Timestamp,
) -> Result<DeleteOutcome> {
    let Some(mut row) =
        tx.queue(queue.incarnation)?.filter(|_| id.incarnation == queue.incarnation)
    else {
        return Ok(DeleteOutcome::Missing);
    };
    let Some(found) = target(tx, row.id, id.sequence.get(), now)? else {
        return Ok(DeleteOutcome::Missing);
    };
    let refusal = match (claim, found.holder) {
        (None, None) => None,
        (None, Some(_)) => Some(DeleteRefusal::Claimed),
        (Some(claim), _) if !is_alive(tx, row.id, claim, now)? => Some(DeleteRefusal::UnknownClaim),
        (Some(_), None) => Some(DeleteRefusal::NotClaimed),
        (Some(claim), Some(holder)) => (claim != holder).then_some(DeleteRefusal::ClaimedByOther),
    };
    if let Some(refusal) = refusal {
        return Ok(DeleteOutcome::Refused(refusal));
    }
    remove(tx, &mut row, id.sequence.get(), found.state, found.body)?;
    tx.put(row);
    Ok(DeleteOutcome::Deleted)
}

fn delete_many(
    tx: &mut Tx<'_>,
    queue: &QueueRef,
    sequences: &[i64],
    claims: &[ClaimId],
    now: Timestamp,
) -> Result<Option<u64>> {
    let Some(mut row) = tx.queue(queue.incarnation)? else {
        return Ok(claims.is_empty().then_some(0));
    };
    let mut targets = Vec::with_capacity(sequences.len());
    for sequence in sequences {
        if let Some(found) = target(tx, row.id, *sequence, now)? {
            targets.push((*sequence, found));
        }
    }
    let holds = |claim: &ClaimId| targets.iter().any(|(_, found)| found.holder == Some(*claim));
    if !claims.iter().all(holds) {
        return Ok(None);
    }
    targets.sort_by_key(|(sequence, _)| *sequence);
    targets.dedup_by_key(|(sequence, _)| *sequence);
    for (sequence, found) in &targets {
        remove(tx, &mut row, *sequence, found.state, found.body)?;
    }
    tx.put(row);
    Ok(Some(targets.len() as u64))
}
