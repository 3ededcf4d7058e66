//! Claims and pops.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension, params};
use storage_traits::{
    Limit, Result, StoreError,
    domain::{
        AckResult, Acknowledgement, Claim, ClaimId, ClaimSpec, ClaimTerms, DeadLetter, Message,
        Origin, QueueRef, Timestamp,
    },
    pool::ClaimStore,
};

use super::{
    Progress, STEP,
    acknowledge::{acknowledge, put_back},
    arrival::{Arrival, append},
    group::group_of,
    line::send_to_end,
    rows::{CLAIMED, Entry, entries, execute, seconds, select_held, whole_seconds},
    settle::{erase_place, place_of, places, remove, settle, take_out},
    side::next_side,
};
use crate::sqlite::{
    Sqlite,
    error::{store_error, unexpected},
    writer::{QueueRow, Tx, read_queue_row},
};

#[async_trait]
impl ClaimStore for Sqlite {
    async fn claim(
        &self,
        queue: &QueueRef,
        spec: &ClaimSpec,
        now: Timestamp,
    ) -> Result<Option<Claim>> {
        let (queue, spec) = (queue.clone(), spec.clone());
        self.write_until_done(move |tx| claim(tx, &queue, &spec, now)).await
    }

    async fn get_claim(
        &self,
        queue: &QueueRef,
        id: ClaimId,
        now: Timestamp,
    ) -> Result<Option<Claim>> {
        let queue = queue.clone();
        self.file.read(move |connection| get_claim(connection, &queue, id, now)).await
    }

    async fn renew(
        &self,
        queue: &QueueRef,
        id: ClaimId,
        terms: ClaimTerms,
        now: Timestamp,
    ) -> Result<()> {
        let queue = queue.clone();
        self.file.write(move |tx| renew(tx, &queue, id, terms, now)).await
    }

    async fn release(&self, queue: &QueueRef, id: ClaimId, now: Timestamp) -> Result<()> {
        let queue = queue.clone();
        self.file.write(move |tx| release(tx, &queue, id, now)).await
    }

    async fn acknowledge(
        &self,
        queue: &QueueRef,
        id: ClaimId,
        acknowledgements: &[Acknowledgement],
        now: Timestamp,
    ) -> Result<Vec<AckResult>> {
        let queue = queue.clone();
        let said: Arc<[Acknowledgement]> = acknowledgements.into();
        self.file.write(move |tx| acknowledge(tx, &queue, id, &said, now)).await
    }

    async fn pop(&self, queue: &QueueRef, limit: Limit, now: Timestamp) -> Result<Vec<Message>> {
        let queue = queue.clone();
        self.write_until_done(move |tx| pop(tx, &queue, limit, now)).await
    }
}

/// Whether a claim holds at `now`.
pub(super) fn is_alive(tx: &Tx<'_>, queue: i64, id: ClaimId, now: Timestamp) -> Result<bool> {
    tx.connection
        .prepare_cached("SELECT 1 FROM claim WHERE queue = ?1 AND id = ?2 AND expires_at > ?3")
        .and_then(|mut statement| statement.exists(params![queue, id.to_bytes(), now.as_millis()]))
        .map_err(store_error)
}

/// The queue's row, settled; `None` if the pool does not know the queue.
pub(super) fn settled(
    tx: &mut Tx<'_>,
    queue: &QueueRef,
    now: Timestamp,
) -> Result<Option<Progress<QueueRow>>> {
    let Some(mut row) = tx.queue(queue.incarnation)? else { return Ok(None) };
    let step = settle(tx, &mut row, now)?;
    Ok(Some(if step.done { Progress::Done(row) } else { Progress::Again }))
}

fn claim(
    tx: &mut Tx<'_>,
    queue: &QueueRef,
    spec: &ClaimSpec,
    now: Timestamp,
) -> Result<Progress<Option<Claim>>> {
    let mut row = match settled(tx, queue, now)? {
        None => return Ok(Progress::Done(None)),
        Some(Progress::Again) => return Ok(Progress::Again),
        Some(Progress::Done(row)) => row,
    };
    let own = [row.incarnation, row.ids()];
    let rule = spec.dead_letter.as_ref().filter(|rule| !own.contains(&rule.queue.incarnation));
    if let Some(rule) = rule
        && tx.queue(rule.queue.incarnation)?.is_none()
    {
        return Err(StoreError::not_found("queue", &rule.queue.key));
    }
    let mut taken = Vec::new();
    let (mut moved, mut after) = (0, 0);
    while taken.len() < spec.limit.get() {
        let Some(side) = next_side(tx, &row, after)? else { break };
        let entries = side.entries(tx, &row, after, spec.limit.get() - taken.len())?;
        let before = (taken.len(), moved);
        for mut entry in entries {
            after = if side.key.is_none() { entry.sequence() } else { after };
            let dead = rule.filter(|rule| entry.message.claim_count >= rule.max_claim_count);
            if let Some(rule) = dead {
                moved += move_to_dead_letters(tx, &mut row, &entry, rule, now)?;
                tx.tally.dead_lettered += 1;
            } else {
                take(tx, &mut row, &mut entry, spec, now)?;
                taken.push(entry.message);
            }
        }
        if before == (taken.len(), moved) {
            // Nothing is left on a side that was said to have something.
            return Err(unexpected("the queue's counters are wrong"));
        }
        side.close(tx, &mut row, taken.len() - before.0)?;
        if moved >= STEP {
            tx.put(row);
            if taken.is_empty() {
                return Ok(Progress::Again);
            }
            break;
        }
    }
    tx.put(row);
    taken.sort_by_key(|message| message.id);
    if taken.is_empty() {
        return Ok(Progress::Done(None));
    }
    let expires_at = now.plus(spec.terms.ttl).as_millis();
    execute(
        tx.connection,
        "INSERT INTO claim (queue, id, renewed_at, ttl, expires_at) VALUES (?1, ?2, ?3, ?4, ?5)",
        params![
            row.id,
            spec.id.to_bytes(),
            now.as_millis(),
            whole_seconds(spec.terms.ttl),
            expires_at
        ],
    )?;
    row.due(expires_at);
    tx.put(row);
    Ok(Progress::Done(Some(Claim {
        id: spec.id,
        renewed_at: now,
        ttl: spec.terms.ttl,
        messages: taken,
    })))
}

/// Puts a free message under the claim.
fn take(
    tx: &Tx<'_>,
    row: &mut QueueRow,
    entry: &mut Entry,
    spec: &ClaimSpec,
    now: Timestamp,
) -> Result<()> {
    let place = entry.place();
    let message = &mut entry.message;
    hold(message, spec.id, spec.terms, now);
    message.claim_count = message.claim_count.saturating_add(1);
    row.claimed += 1;
    let due_at = now.plus(spec.terms.ttl).min(message.expires_at).as_millis();
    row.due(due_at);
    if place.key.is_some() {
        execute(
            tx.connection,
            "UPDATE held SET state = ?4, due_at = ?5, expires_at = ?6, ttl = ?7, claim = ?8,
                 claim_count = ?9
             WHERE queue = ?1 AND state = ?2 AND sequence = ?3",
            params![
                row.id,
                place.state,
                place.sequence,
                CLAIMED,
                due_at,
                message.expires_at.as_millis(),
                whole_seconds(message.ttl),
                spec.id.to_bytes(),
                message.claim_count,
            ],
        )?;
        return Ok(());
    }
    row.ready -= 1;
    erase_place(tx, row.id, &place)?;
    execute(
        tx.connection,
        "INSERT INTO held (queue, state, sequence, due_at, expires_at, visible_at, posted_at, ttl,
             claim, claim_count, client, body, origin)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)",
        params![
            row.id,
            CLAIMED,
            place.sequence,
            due_at,
            message.expires_at.as_millis(),
            message.visible_at.as_millis(),
            message.posted_at.as_millis(),
            whole_seconds(message.ttl),
            spec.id.to_bytes(),
            message.claim_count,
            message.client.as_str(),
            place.body,
            message.origin.as_ref().map(Origin::to_text),
        ],
    )?;
    Ok(())
}

/// Writes the claim on the message, which lives on with it if it would expire before.
fn hold(message: &mut Message, claim: ClaimId, terms: ClaimTerms, now: Timestamp) {
    message.claim = Some(claim);
    if message.expires_at < now.plus(terms.ttl) {
        message.ttl = terms.ttl.saturating_add(terms.grace);
        message.expires_at = now.plus(message.ttl);
    }
}

/// Moves a free message to the end of the dead-letter queue, where it starts anew; answers how many
/// messages that makes, those of groups counted.
fn move_to_dead_letters(
    tx: &mut Tx<'_>,
    row: &mut QueueRow,
    entry: &Entry,
    rule: &DeadLetter,
    now: Timestamp,
) -> Result<usize> {
    let Some(mut target) = tx.queue(rule.queue.incarnation)? else {
        return Err(StoreError::not_found("queue", &rule.queue.key));
    };
    let ttl = rule.ttl.unwrap_or(entry.message.ttl);
    let expires_at = now.plus(ttl).as_millis();
    let place = entry.place();
    let arrival = Arrival {
        sequence: target.last_sequence + 1,
        expires_at,
        visible_at: now.as_millis(),
        posted_at: now.as_millis(),
        ttl: whole_seconds(ttl),
        client: entry.message.client.as_str(),
        key: place.key.as_deref(),
        origin: Some(&origin(tx, row, entry.message.ttl)?),
        body: place.body,
    };
    append(tx, &mut target, &arrival, rule.retained, now)?;
    let made = 1 + usize::from(rule.retained) + usize::try_from(target.groups).unwrap_or(0);
    tx.put(target);
    take_out(tx, row, &place)?;
    tx.put(*row);
    Ok(made)
}

/// Where a dead letter of this reading comes from, in the form that is stored.
fn origin(tx: &Tx<'_>, row: &QueueRow, ttl: Duration) -> Result<String> {
    let group = match row.mirrors {
        None => None,
        Some(queue) => group_of(tx, queue, row.incarnation)?,
    };
    Ok(Origin { queue: row.ids(), group, ttl }.to_text())
}

fn get_claim(
    connection: &mut Connection,
    queue: &QueueRef,
    id: ClaimId,
    now: Timestamp,
) -> Result<Option<Claim>> {
    let snapshot = connection.transaction().map_err(store_error)?;
    let Some(row) = read_queue_row(&snapshot, queue.incarnation)? else { return Ok(None) };
    let record = snapshot
        .prepare_cached(
            "SELECT renewed_at, ttl FROM claim WHERE queue = ?1 AND id = ?2 AND expires_at > ?3",
        )
        .and_then(|mut statement| {
            statement
                .query_row(params![row.id, id.to_bytes(), now.as_millis()], |row| {
                    Ok((Timestamp::from_millis(row.get(0)?), seconds(row.get(1)?)))
                })
                .optional()
        })
        .map_err(store_error)?;
    let Some((renewed_at, ttl)) = record else { return Ok(None) };
    let held = held_entries(&snapshot, &row, id, now)?;
    let messages = held.into_iter().map(|entry| entry.message).collect();
    Ok(Some(Claim { id, renewed_at, ttl, messages }))
}

fn held_entries(
    connection: &Connection,
    row: &QueueRow,
    id: ClaimId,
    now: Timestamp,
) -> Result<Vec<Entry>> {
    entries(
        connection,
        row.ids(),
        select_held!(
            "held_claim",
            "WHERE m.queue = ?1 AND m.claim = ?2 AND m.state = 2 AND m.expires_at > ?3
             ORDER BY m.sequence"
        ),
        params![row.id, id.to_bytes(), now.as_millis()],
    )
}

fn renew(
    tx: &mut Tx<'_>,
    queue: &QueueRef,
    id: ClaimId,
    terms: ClaimTerms,
    now: Timestamp,
) -> Result<()> {
    let missing = || StoreError::not_found("claim", &id);
    let mut row = tx.queue(queue.incarnation)?.ok_or_else(missing)?;
    let expires_at = now.plus(terms.ttl).as_millis();
    let renewed = execute(
        tx.connection,
        "UPDATE claim SET renewed_at = ?3, ttl = ?4, expires_at = ?5
         WHERE queue = ?1 AND id = ?2 AND expires_at > ?3",
        params![row.id, id.to_bytes(), now.as_millis(), whole_seconds(terms.ttl), expires_at],
    )?;
    if renewed == 0 {
        return Err(missing());
    }
    for mut entry in held_entries(tx.connection, &row, id, now)? {
        let message = &mut entry.message;
        hold(message, id, terms, now);
        let due_at = now.plus(terms.ttl).min(message.expires_at).as_millis();
        row.due(due_at);
        execute(
            tx.connection,
            "UPDATE held SET due_at = ?4, expires_at = ?5, ttl = ?6
             WHERE queue = ?1 AND state = ?2 AND sequence = ?3",
            params![
                row.id,
                CLAIMED,
                message.id.sequence.get(),
                due_at,
                message.expires_at.as_millis(),
                whole_seconds(message.ttl)
            ],
        )?;
    }
    row.due(expires_at);
    tx.put(row);
    Ok(())
}

fn release(tx: &mut Tx<'_>, queue: &QueueRef, id: ClaimId, now: Timestamp) -> Result<()> {
    let Some(mut row) = tx.queue(queue.incarnation)? else { return Ok(()) };
    let released = execute(
        tx.connection,
        "DELETE FROM claim WHERE queue = ?1 AND id = ?2 AND expires_at > ?3",
        params![row.id, id.to_bytes(), now.as_millis()],
    )?;
    if released == 0 {
        return Ok(());
    }
    if row.lines > 0 {
        let keyed = places(
            tx,
            concat!(
                "SELECT ",
                place_of!(held),
                " FROM held INDEXED BY held_claim
                 WHERE queue = ?1 AND claim = ?2 AND state = 2 AND ordering_key IS NOT NULL"
            ),
            params![row.id, id.to_bytes()],
        )?;
        for place in &keyed {
            put_back(tx, &mut row, place, now, now)?;
        }
    }
    let freed = execute(
        tx.connection,
        "INSERT INTO ready (queue, sequence, expires_at, visible_at, posted_at, ttl, claim_count,
             client, body, origin)
         SELECT queue, sequence, expires_at, visible_at, posted_at, ttl, claim_count, client, body,
             origin
         FROM held INDEXED BY held_claim WHERE queue = ?1 AND claim = ?2 AND state = 2",
        params![row.id, id.to_bytes()],
    )?;
    execute(
        tx.connection,
        "DELETE FROM held INDEXED BY held_claim WHERE queue = ?1 AND claim = ?2 AND state = 2",
        params![row.id, id.to_bytes()],
    )?;
    let freed = i64::try_from(freed).unwrap_or(i64::MAX);
    row.claimed -= freed;
    row.ready += freed;
    tx.put(row);
    Ok(())
}

fn pop(
    tx: &mut Tx<'_>,
    queue: &QueueRef,
    limit: Limit,
    now: Timestamp,
) -> Result<Progress<Vec<Message>>> {
    let mut row = match settled(tx, queue, now)? {
        None => return Ok(Progress::Done(Vec::new())),
        Some(Progress::Again) => return Ok(Progress::Again),
        Some(Progress::Done(row)) => row,
    };
    let mut taken: Vec<Message> = Vec::new();
    let mut after = 0;
    while taken.len() < limit.get() {
        let Some(side) = next_side(tx, &row, after)? else { break };
        let entries = side.entries(tx, &row, after, limit.get() - taken.len())?;
        if entries.is_empty() {
            return Err(unexpected("the queue's counters are wrong"));
        }
        for entry in &entries {
            after = if side.key.is_none() { entry.sequence() } else { after };
            remove(tx, &mut row, &entry.place())?;
        }
        row.completed.add(entries.len() as u64, now);
        taken.extend(entries.into_iter().map(|entry| entry.message));
        match &side.key {
            Some(key) => send_to_end(tx, &mut row, key)?,
            None => side.close(tx, &mut row, 0)?,
        }
    }
    tx.put(row);
    taken.sort_by_key(|message| message.id);
    Ok(Progress::Done(taken))
}
