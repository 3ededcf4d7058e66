//! Dead letters that go back.

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
    Progress,
    arrival::{Arrival, put},
    claim::settled,
    group::find_reading,
    line::is_open,
    rows::{READY, execute, whole_seconds},
    settle::{Place, forget_letter, place_of, take_out},
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

/// How many letters are looked at to find some that are free.
const LOOK_AHEAD: u32 = 1_024;

struct Letter {
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
    let mut done = Redriven { moved: 0, orphaned: 0, more: false, last_visible_at: now };
    let mut row = match settled(tx, queue, now)? {
        None => return Ok(Progress::Done(done)),
        Some(Progress::Again) => return Ok(Progress::Again),
        Some(Progress::Done(row)) => row,
    };
    let found = letters(tx, &row, spec.limit)?;
    done.more = found.more;
    let before = Timestamp::from_millis(row.next_redrive);
    let schedule = RedriveSchedule::new(spec.rate, before, now);
    for letter in found.items {
        let visible_at = schedule.visible_at(done.moved);
        if go_back(tx, &mut row, &letter, visible_at, now)? {
            done.moved += 1;
            done.last_visible_at = visible_at;
        } else {
            strand(tx, &mut row, &letter.place)?;
            done.orphaned += 1;
        }
    }
    row.next_redrive = schedule.next_free(done.moved, before).as_millis();
    tx.put(row);
    Ok(Progress::Done(done))
}

/// The first free messages with an origin.
fn letters(tx: &Tx<'_>, row: &QueueRow, limit: Limit) -> Result<Page<Letter>> {
    let read = |sql: &str, limit: u32| -> Result<Vec<Letter>> {
        tx.connection
            .prepare_cached(sql)
            .and_then(|mut statement| {
                statement
                    .query_map(params![row.id, limit], |row| {
                        let origin = Origin::from_text(row.get_ref(6)?.as_str()?);
                        Ok(Letter { place: Place::read(row)?, client: row.get(5)?, origin })
                    })?
                    .collect()
            })
            .map_err(store_error)
    };
    // Where none is held back, the first ones can all be moved.
    let held_back = row.claimed > 0 || row.delayed > 0 || row.lines > row.open_lines;
    let window = if held_back { LOOK_AHEAD.max(limit.with_spare()) } else { limit.with_spare() };
    let mut found = read(
        concat!(
            "SELECT ",
            place_of!(ready),
            ", client, origin FROM ready JOIN (
                 SELECT sequence AS letter FROM dead_letter WHERE queue = ?1
                 ORDER BY sequence LIMIT ?2)
             WHERE queue = ?1 AND sequence = letter"
        ),
        window,
    )?;
    let in_line = read(
        concat!(
            "SELECT ",
            place_of!(held),
            ", client, origin FROM held JOIN (
                 SELECT sequence AS letter FROM dead_letter WHERE queue = ?1
                 ORDER BY sequence LIMIT ?2)
             WHERE queue = ?1 AND state = 3 AND sequence = letter"
        ),
        window,
    )?;
    let hides = held_back && row.dead_letters > i64::from(window);
    let mut open = HashMap::new();
    for letter in in_line {
        let Some(key) = &letter.place.key else { continue };
        let is_open = match open.get(key) {
            Some(is_open) => *is_open,
            None => *open.entry(key.clone()).or_insert(is_open(tx, row, key)?),
        };
        if is_open {
            found.push(letter);
        }
    }
    found.sort_by_key(|letter| letter.place.sequence);
    let mut page = Page::cut(found, limit);
    page.more |= hides;
    Ok(page)
}

/// Moves a dead letter to the end of where it comes from; `false` if that is gone.
fn go_back(
    tx: &mut Tx<'_>,
    row: &mut QueueRow,
    letter: &Letter,
    visible_at: Timestamp,
    now: Timestamp,
) -> Result<bool> {
    let Some(origin) = &letter.origin else { return Ok(false) };
    let Some((mut source, mut reading)) = home(tx, origin)? else { return Ok(false) };
    let place = &letter.place;
    take_out(tx, row, place)?;
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
fn strand(tx: &Tx<'_>, row: &mut QueueRow, place: &Place) -> Result<()> {
    let (queue, sequence, state) = (row.id, place.sequence, place.state);
    forget_letter(tx, row, sequence)?;
    if state == READY {
        let sql = "UPDATE ready SET origin = NULL WHERE queue = ?1 AND sequence = ?2";
        execute(tx.connection, sql, [queue, sequence])?;
    } else {
        let sql = "UPDATE held SET origin = NULL WHERE queue = ?1 AND state = ?2 AND sequence = ?3";
        execute(tx.connection, sql, [queue, state, sequence])?;
    }
    Ok(())
}
