//! Dead letters that go back.

use async_trait::async_trait;
use rusqlite::params;
use storage_traits::{
    Result,
    domain::{Origin, QueueRef, Timestamp},
    pool::{DeadLetterStore, Pace, RedriveSpec, Redriven},
};

use super::{
    Progress,
    arrival::{Arrival, put},
    claim::settled,
    group::find_reading,
    rows::{READY, execute, whole_seconds},
    settle::{Place, erase_place, leave, place_of},
};
use crate::sqlite::{
    Sqlite,
    error::store_error,
    writer::{QueueRow, Tx},
};

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

struct DeadLetter {
    place: Place,
    client: String,
    /// `None` if it cannot be read.
    origin: Option<Origin>,
}

fn redrive(
    tx: &mut Tx<'_>,
    queue: &QueueRef,
    spec: RedriveSpec,
    now: Timestamp,
) -> Result<Progress<Redriven>> {
    let mut done = Redriven { moved: 0, stranded: 0, more: false, until: now };
    let mut row = match settled(tx, queue, now)? {
        None => return Ok(Progress::Done(done)),
        Some(Progress::Again) => return Ok(Progress::Again),
        Some(Progress::Done(row)) => row,
    };
    let mut found = dead_letters(tx, row.id, spec.limit.with_spare())?;
    done.more = found.len() > spec.limit.get();
    found.truncate(spec.limit.get());
    let before = Timestamp::from_millis(row.next_redrive);
    let pace = Pace::new(spec.rate, before, now);
    for letter in found {
        let visible_at = pace.moment(done.moved);
        if go_back(tx, &mut row, &letter, visible_at, now)? {
            done.moved += 1;
            done.until = visible_at;
        } else {
            strand(tx, row.id, &letter.place)?;
            done.stranded += 1;
        }
    }
    row.next_redrive = pace.next(done.moved, before).as_millis();
    tx.put(row);
    Ok(Progress::Done(done))
}

/// The first free messages with an origin.
fn dead_letters(tx: &Tx<'_>, queue: i64, limit: u32) -> Result<Vec<DeadLetter>> {
    let read = |row: &rusqlite::Row<'_>| {
        let origin = Origin::from_text(row.get_ref(6)?.as_str()?);
        Ok(DeadLetter { place: Place::read(row)?, client: row.get(5)?, origin })
    };
    let mut found: Vec<DeadLetter> = Vec::new();
    for sql in [
        concat!(
            "SELECT ",
            place_of!(ready),
            ", client, origin FROM ready INDEXED BY ready_origin
             WHERE queue = ?1 AND origin IS NOT NULL ORDER BY sequence LIMIT ?2"
        ),
        concat!(
            "SELECT ",
            place_of!(held),
            ", client, origin FROM held INDEXED BY held_origin
             WHERE queue = ?1 AND state = 3 AND origin IS NOT NULL ORDER BY sequence LIMIT ?2"
        ),
    ] {
        let some: Vec<_> = tx
            .connection
            .prepare_cached(sql)
            .and_then(|mut statement| statement.query_map(params![queue, limit], read)?.collect())
            .map_err(store_error)?;
        found.extend(some);
    }
    found.sort_by_key(|letter| letter.place.sequence);
    found.truncate(limit as usize);
    Ok(found)
}

/// Moves a dead letter to the end of where it comes from; `false` if that is gone.
fn go_back(
    tx: &mut Tx<'_>,
    row: &mut QueueRow,
    letter: &DeadLetter,
    visible_at: Timestamp,
    now: Timestamp,
) -> Result<bool> {
    let Some(origin) = &letter.origin else { return Ok(false) };
    let Some((mut source, mut reading)) = home(tx, origin)? else { return Ok(false) };
    let place = &letter.place;
    leave(tx, row, place)?;
    erase_place(tx, row.id, place)?;
    // The queue gives it its position, whoever reads it.
    source.last_sequence += 1;
    let arrival = Arrival {
        sequence: source.last_sequence,
        expires_at: visible_at.plus(origin.ttl).as_millis(),
        visible_at: visible_at.as_millis(),
        posted_at: now.as_millis(),
        ttl: whole_seconds(origin.ttl),
        client: &letter.client,
        key: place.key.as_deref(),
        origin: None,
        body: place.body,
    };
    // If they are one, the reading's row is the one that counts.
    tx.put(source);
    put(tx, &mut reading, &arrival, now)?;
    tx.put(reading);
    Ok(true)
}

/// The queue of an origin, and the reading of it that gave the message up.
fn home(tx: &mut Tx<'_>, origin: &Origin) -> Result<Option<(QueueRow, QueueRow)>> {
    let Some(source) = tx.queue(origin.queue)? else { return Ok(None) };
    let Some(group) = &origin.group else { return Ok(Some((source, source))) };
    let Some(reading) = find_reading(tx, source.incarnation, group)? else { return Ok(None) };
    Ok(tx.queue(reading)?.map(|reading| (source, reading)))
}

/// Makes a dead letter whose origin is gone a message like any.
fn strand(tx: &Tx<'_>, queue: i64, place: &Place) -> Result<()> {
    let Place { sequence, state, .. } = *place;
    if state == READY {
        let sql = "UPDATE ready SET origin = NULL WHERE queue = ?1 AND sequence = ?2";
        execute(tx.connection, sql, [queue, sequence])?;
    } else {
        let sql = "UPDATE held SET origin = NULL WHERE queue = ?1 AND state = ?2 AND sequence = ?3";
        execute(tx.connection, sql, [queue, state, sequence])?;
    }
    Ok(())
}
