//! Messages: post them, look at them, delete them.

use std::sync::Arc;

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension, params};
use storage_traits::{
    Page, Result, StoreError,
    domain::{
        ClaimId, ClientId, Deduplication, Message, MessageId, NewMessage, OrderingKey, Posted,
        QueueRef, Sequence, Timestamp,
    },
    pool::{DeleteOutcome, DeleteRefusal, ListSpec, MessageStore, Rescheduled},
};

use super::{
    Progress,
    arrival::{Arrival, append, retained},
    claim::is_alive,
    rows::{
        CLAIMED, DELAYED, Entry, IN_LINE, entries, execute, own_sequences, select_held,
        select_ready, whole_seconds,
    },
    settle::{Place, free, place_of, remove},
};
use crate::sqlite::{
    Sqlite,
    error::{store_error, unexpected},
    writer::{QueueRow, Tx, read_queue_row},
};

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

fn post(
    tx: &mut Tx<'_>,
    queue: &QueueRef,
    client: &ClientId,
    messages: &[NewMessage],
    now: Timestamp,
) -> Result<Vec<Posted>> {
    let known = tx.queue(queue.incarnation)?.filter(|row| row.mirrors.is_none());
    let Some(mut row) = known else {
        return Err(StoreError::not_found("queue", &queue.key));
    };
    let mut posted = Vec::with_capacity(messages.len());
    for message in messages {
        if let Some(deduplication) = &message.deduplication {
            let next = row.last_sequence + 1;
            if let Some(first) = seen(tx, &mut row, deduplication, next, now)? {
                posted.push(Posted { id: message_id(queue, first)?, duplicate: true });
                continue;
            }
        }
        let (visible_at, expires_at) = message.lifetime(now);
        let body = tx
            .connection
            .prepare_cached("INSERT INTO body (checksum, json) VALUES (?1, ?2)")
            .and_then(|mut bodies| {
                bodies.insert(params![message.checksum, message.body.as_bytes()])
            })
            .map_err(store_error)?;
        let arrival = Arrival {
            sequence: row.last_sequence + 1,
            expires_at: expires_at.as_millis(),
            visible_at: visible_at.as_millis(),
            posted_at: now.as_millis(),
            ttl: whole_seconds(message.ttl),
            client: client.as_str(),
            key: message.ordering_key.as_ref().map(OrderingKey::as_str),
            origin: None,
            body,
        };
        append(tx, &mut row, &arrival, message.retained, now)?;
        posted.push(Posted { id: message_id(queue, row.last_sequence)?, duplicate: false });
    }
    tx.put(row);
    Ok(posted)
}

fn message_id(queue: &QueueRef, sequence: i64) -> Result<MessageId> {
    let sequence =
        Sequence::new(sequence).ok_or_else(|| unexpected("the queue has used up its sequence"))?;
    Ok(MessageId { incarnation: queue.incarnation, sequence })
}

/// The position of the message that was stored with this deduplication id, if its window is open;
/// otherwise opens one for the message that is about to be stored in position `next`.
fn seen(
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
            "SELECT sequence FROM deduplication WHERE queue = ?1 AND id = ?2 AND expires_at > ?3",
        )
        .and_then(|mut statement| {
            statement.query_row(params![row.id, id, now.as_millis()], |row| row.get(0)).optional()
        })
        .map_err(store_error)?;
    if first.is_none() {
        execute(
            tx.connection,
            "INSERT OR REPLACE INTO deduplication (queue, id, sequence, expires_at)
             VALUES (?1, ?2, ?3, ?4)",
            params![row.id, id, next, expires_at],
        )?;
        row.due(expires_at);
    }
    Ok(first)
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
    let after = spec.after.map_or(0, Sequence::get);
    let hidden = spec.hide_client.as_ref().map(ClientId::as_str);
    let spare = spec.limit.with_spare();
    let mut found = Vec::new();
    if spec.include_free {
        found = entries(
            &snapshot,
            row.ids(),
            select_ready!(
                "WHERE m.queue = ?1 AND m.sequence > ?2 AND (?3 IS NULL OR m.client <> ?3)
                 ORDER BY m.sequence LIMIT ?4"
            ),
            params![row.id, after, hidden, spare],
        )?;
    }
    for (state, count, wanted) in [
        (DELAYED, row.delayed, spec.include_delayed),
        (CLAIMED, row.claimed, spec.include_claimed),
        (IN_LINE, row.in_line, spec.include_free),
    ] {
        if wanted && count > 0 {
            found.extend(entries(
                &snapshot,
                row.ids(),
                select_held!(
                    "WHERE m.queue = ?1 AND m.state = ?2 AND m.sequence > ?3
                       AND (?4 IS NULL OR m.client <> ?4)
                     ORDER BY m.sequence LIMIT ?5"
                ),
                params![row.id, state, after, hidden, spare],
            )?);
        }
    }
    found.sort_by_key(Entry::sequence);
    Ok(Progress::Done(Page::cut(found, spec.limit).map(|entry| entry.message)))
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
    let mut found = Vec::with_capacity(ids.len());
    for sequence in own_sequences(&row, ids) {
        let place = params![row.id, sequence, now.as_millis()];
        let ready = select_ready!("WHERE m.queue = ?1 AND m.sequence = ?2 AND m.expires_at > ?3");
        let held = select_held!(
            "WHERE m.queue = ?1 AND m.state IN (1, 2, 3) AND m.sequence = ?2 AND m.expires_at > ?3"
        );
        let before = found.len();
        found.extend(entries(&snapshot, row.ids(), ready, place)?);
        if found.len() == before {
            found.extend(entries(&snapshot, row.ids(), held, place)?);
        }
    }
    Ok(found.into_iter().map(|entry| entry.message).collect())
}

/// What deciding on a message takes.
pub(super) struct Target {
    pub(super) place: Place,
    /// The live claim that holds it.
    pub(super) holder: Option<ClaimId>,
    /// Whether it is not visible yet and nobody has ever claimed it.
    scheduled: bool,
}

/// Looks for an unexpired message.
pub(super) fn target(
    tx: &Tx<'_>,
    queue: i64,
    sequence: i64,
    now: Timestamp,
) -> Result<Option<Target>> {
    let look = |sql: &str| {
        tx.connection
            .prepare_cached(sql)
            .and_then(|mut statement| {
                statement
                    .query_row([queue, sequence, now.as_millis()], |row| {
                        let place = Place::read(row)?;
                        let held =
                            place.state == CLAIMED && row.get::<_, i64>(5)? > now.as_millis();
                        let claim = row.get::<_, Option<[u8; 16]>>(6)?.map(ClaimId::from_bytes);
                        // The queue may not be settled: its state may be that of a while ago.
                        let scheduled = place.state == DELAYED
                            && !place.tried
                            && row.get::<_, i64>(7)? > now.as_millis();
                        Ok(Target { place, holder: claim.filter(|_| held), scheduled })
                    })
                    .optional()
            })
            .map_err(store_error)
    };
    let held = look(concat!(
        "SELECT ",
        place_of!(held),
        ", due_at, claim, visible_at FROM held
             WHERE queue = ?1 AND state IN (1, 2, 3) AND sequence = ?2 AND expires_at > ?3"
    ))?;
    match held {
        Some(held) => Ok(Some(held)),
        None => look(concat!(
            "SELECT ",
            place_of!(ready),
            ", expires_at, claim, visible_at FROM ready
                 WHERE queue = ?1 AND sequence = ?2 AND expires_at > ?3"
        )),
    }
}

fn delete(
    tx: &mut Tx<'_>,
    queue: &QueueRef,
    id: MessageId,
    claim: Option<ClaimId>,
    now: Timestamp,
) -> Result<DeleteOutcome> {
    let Some(mut row) = tx.queue(queue.incarnation)?.filter(|row| id.incarnation == row.ids())
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
    remove_everywhere(tx, &mut row, &found, now)?;
    row.completed.add(1, now);
    tx.put(row);
    Ok(DeleteOutcome::Deleted)
}

fn reschedule(
    tx: &mut Tx<'_>,
    queue: &QueueRef,
    id: MessageId,
    visible_at: Timestamp,
    now: Timestamp,
) -> Result<Rescheduled> {
    let Some(mut row) = tx.queue(queue.incarnation)?.filter(|row| id.incarnation == row.ids())
    else {
        return Ok(Rescheduled::Missing);
    };
    let Some(found) = target(tx, row.id, id.sequence.get(), now)? else {
        return Ok(Rescheduled::Missing);
    };
    if !move_delayed(tx, &mut row, &found.place, visible_at, now)? {
        return Ok(Rescheduled::Visible);
    }
    tx.put(row);
    for (mut reading, place) in scheduled_copies(tx, &row, &found, now)? {
        move_delayed(tx, &mut reading, &place, visible_at, now)?;
        tx.put(reading);
    }
    if found.scheduled {
        move_retained(tx, &row, found.place.sequence, visible_at.max(now))?;
    }
    Ok(Rescheduled::Moved)
}

/// Moves a message that is not visible yet; `false` if it is.
fn move_delayed(
    tx: &Tx<'_>,
    row: &mut QueueRow,
    place: &Place,
    visible_at: Timestamp,
    now: Timestamp,
) -> Result<bool> {
    let expires_at: Option<i64> = tx
        .connection
        .prepare_cached(
            "UPDATE held SET due_at = ?5, visible_at = ?5, expires_at = ?5 + 1000 * ttl
             WHERE queue = ?1 AND state = ?2 AND sequence = ?3 AND visible_at > ?4
             RETURNING expires_at",
        )
        .and_then(|mut statement| {
            let visible_at = visible_at.max(now).as_millis();
            let moved = [row.id, DELAYED, place.sequence, now.as_millis(), visible_at];
            statement.query_row(moved, |row| row.get(0)).optional()
        })
        .map_err(store_error)?;
    let Some(expires_at) = expires_at else { return Ok(false) };
    if visible_at > now {
        row.due(visible_at.as_millis());
    } else {
        free(tx, row, place)?;
        row.due(expires_at);
    }
    Ok(true)
}

/// Moves what a queue retains of a message along with it.
fn move_retained(
    tx: &mut Tx<'_>,
    queue: &QueueRow,
    sequence: i64,
    visible_at: Timestamp,
) -> Result<()> {
    let Some((mut log, place)) = retained(tx, queue, sequence)? else { return Ok(()) };
    let expires_at = tx
        .connection
        .prepare_cached(
            "UPDATE held SET visible_at = ?4, expires_at = ?4 + 1000 * ttl, due_at = ?4 + 1000 * ttl
             WHERE queue = ?1 AND state = ?2 AND sequence = ?3 RETURNING expires_at",
        )
        .and_then(|mut statement| {
            let moved = [log.id, place.state, place.sequence, visible_at.as_millis()];
            statement.query_row(moved, |row| row.get(0))
        })
        .map_err(store_error)?;
    log.due(expires_at);
    tx.put(log);
    Ok(())
}

/// The copies that groups have of a message which nobody has seen yet: what its producer does with
/// it counts for them as well.
fn scheduled_copies(
    tx: &mut Tx<'_>,
    queue: &QueueRow,
    found: &Target,
    now: Timestamp,
) -> Result<Vec<(QueueRow, Place)>> {
    let mut copies = Vec::new();
    if queue.groups == 0 || !found.scheduled {
        return Ok(copies);
    }
    for reading in tx.readings(queue.incarnation)?.iter() {
        let Some(row) = tx.queue(*reading)? else { continue };
        let copy = target(tx, row.id, found.place.sequence, now)?;
        copies.extend(copy.filter(|copy| copy.scheduled).map(|copy| (row, copy.place)));
    }
    Ok(copies)
}

/// Removes a message, and with it the copies of groups if nobody has seen it yet.
fn remove_everywhere(
    tx: &mut Tx<'_>,
    row: &mut QueueRow,
    found: &Target,
    now: Timestamp,
) -> Result<()> {
    let place = &found.place;
    for (mut reading, copy) in scheduled_copies(tx, row, found, now)? {
        remove(tx, &mut reading, &copy)?;
        tx.put(reading);
    }
    if found.scheduled
        && let Some((mut log, copy)) = retained(tx, row, place.sequence)?
    {
        remove(tx, &mut log, &copy)?;
    }
    remove(tx, row, place)
}

fn delete_many(
    tx: &mut Tx<'_>,
    queue: &QueueRef,
    ids: &[MessageId],
    claims: &[ClaimId],
    now: Timestamp,
) -> Result<Option<u64>> {
    let Some(mut row) = tx.queue(queue.incarnation)? else {
        return Ok(claims.is_empty().then_some(0));
    };
    let mut targets = Vec::with_capacity(ids.len());
    for sequence in own_sequences(&row, ids) {
        targets.extend(target(tx, row.id, sequence, now)?);
    }
    let holds = |claim: &ClaimId| targets.iter().any(|found| found.holder == Some(*claim));
    if !claims.iter().all(holds) {
        return Ok(None);
    }
    targets.sort_by_key(|found| found.place.sequence);
    targets.dedup_by_key(|found| found.place.sequence);
    for found in &targets {
        remove_everywhere(tx, &mut row, found, now)?;
    }
    row.completed.add(targets.len() as u64, now);
    tx.put(row);
    Ok(Some(targets.len() as u64))
}
