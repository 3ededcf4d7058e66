//! Consumer groups.

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension, Row, params};
use storage_traits::{
    Limit, Page, Result, StoreError,
    domain::{Group, GroupName, Incarnation, Metadata, QueueRef, StartPoint, Timestamp},
    pool::GroupStore,
};

use super::{
    STEP,
    arrival::{Arrival, put, share},
    maintenance::forget_reading,
    rows::{CLAIMED, DELAYED, IN_LINE, READY, RETAINED, execute},
};
use crate::sqlite::{
    Sqlite,
    error::{store_error, unexpected},
    writer::{Fill, QueueRow, Tx},
};

#[async_trait]
impl GroupStore for Sqlite {
    async fn create_group(
        &self,
        queue: &QueueRef,
        name: &GroupName,
        start: StartPoint,
        settings: &Metadata,
        now: Timestamp,
    ) -> Result<(Group, bool)> {
        let (of, name, settings) = (queue.clone(), name.clone(), settings.clone());
        let step = move |tx: &mut Tx<'_>| create(tx, &of, &name, start, &settings, now);
        let (group, new) = self.file.write(step).await?;
        self.settle_all(&group.as_queue, now).await?;
        Ok((group, new))
    }

    async fn get_group(&self, queue: &QueueRef, name: &GroupName) -> Result<Option<Group>> {
        let (queue, name) = (queue.clone(), name.clone());
        self.file.read(move |connection| find(connection, &queue, &name)).await
    }

    async fn list_groups(
        &self,
        queue: &QueueRef,
        after: Option<&GroupName>,
        limit: Limit,
    ) -> Result<Page<Group>> {
        let queue = queue.clone();
        let after = after.map_or_else(String::new, |after| after.as_str().to_owned());
        self.file.read(move |connection| list(connection, &queue, &after, limit)).await
    }

    async fn seek_group(
        &self,
        queue: &QueueRef,
        name: &GroupName,
        to: StartPoint,
        now: Timestamp,
    ) -> Result<Option<Group>> {
        let (of, name) = (queue.clone(), name.clone());
        let group = self.file.write(move |tx| seek(tx, &of, &name, to)).await?;
        if let Some(group) = &group {
            self.settle_all(&group.as_queue, now).await?;
        }
        Ok(group)
    }

    async fn delete_group(&self, queue: &QueueRef, name: &GroupName) -> Result<bool> {
        let (queue, name) = (queue.clone(), name.clone());
        self.file.write(move |tx| delete(tx, &queue, &name)).await
    }
}

fn read_group(queue: &QueueRef, row: &Row<'_>) -> rusqlite::Result<Group> {
    let wrong = |column, error: Box<dyn std::error::Error + Send + Sync>| {
        rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, error)
    };
    let reading = row.get(1)?;
    Ok(Group {
        name: row.get_ref(0)?.as_str()?.parse::<GroupName>().map_err(|e| wrong(0, e.into()))?,
        as_queue: QueueRef {
            key: queue.key.clone(),
            incarnation: Incarnation::new(reading)
                .ok_or(rusqlite::Error::IntegralValueOutOfRange(1, reading))?,
        },
        settings: Metadata::from_json(row.get_ref(2)?.as_str()?).map_err(|e| wrong(2, e.into()))?,
        created_at: Timestamp::from_millis(row.get(3)?),
    })
}

fn find(connection: &Connection, queue: &QueueRef, name: &GroupName) -> Result<Option<Group>> {
    connection
        .prepare_cached(
            "SELECT name, as_queue: reading, settings, created_at FROM pool_group
             WHERE queue = ?1 AND name = ?2",
        )
        .and_then(|mut statement| {
            let place = params![queue.incarnation.get(), name.as_str()];
            statement.query_row(place, |row| read_group(queue, row)).optional()
        })
        .map_err(store_error)
}

/// The reading of a group, by name.
pub(super) fn find_reading(
    tx: &Tx<'_>,
    queue: Incarnation,
    name: &GroupName,
) -> Result<Option<Incarnation>> {
    let reading: Option<i64> = tx
        .connection
        .prepare_cached("SELECT reading FROM pool_group WHERE queue = ?1 AND name = ?2")
        .and_then(|mut statement| {
            statement.query_row(params![queue.get(), name.as_str()], |row| row.get(0)).optional()
        })
        .map_err(store_error)?;
    Ok(reading.and_then(Incarnation::new))
}

/// The name of the group that has this reading of a queue.
pub(super) fn group_of(
    tx: &Tx<'_>,
    queue: Incarnation,
    reading: Incarnation,
) -> Result<Option<GroupName>> {
    let name: Option<String> = tx
        .connection
        .prepare_cached("SELECT name FROM pool_group WHERE queue = ?1 AND reading = ?2")
        .and_then(|mut statement| {
            statement.query_row([queue.get(), reading.get()], |row| row.get(0)).optional()
        })
        .map_err(store_error)?;
    name.map(|name| name.parse().map_err(|_| unexpected("a group has a wrong name"))).transpose()
}

fn list(
    connection: &Connection,
    queue: &QueueRef,
    after: &str,
    limit: Limit,
) -> Result<Page<Group>> {
    let found = connection
        .prepare_cached(
            "SELECT name, as_queue: reading, settings, created_at FROM pool_group
             WHERE queue = ?1 AND name > ?2 ORDER BY name LIMIT ?3",
        )
        .and_then(|mut statement| {
            let range = params![queue.incarnation.get(), after, limit.with_spare()];
            statement.query_map(range, |row| read_group(queue, row))?.collect()
        })
        .map_err(store_error)?;
    Ok(Page::cut(found, limit))
}

fn create(
    tx: &mut Tx<'_>,
    queue: &QueueRef,
    name: &GroupName,
    start: StartPoint,
    settings: &Metadata,
    now: Timestamp,
) -> Result<(Group, bool)> {
    let source = tx.queue(queue.incarnation)?.filter(|row| row.mirrors.is_none());
    let Some(mut source) = source else {
        return Err(StoreError::not_found("queue", &queue.key));
    };
    if let Some(group) = find(tx.connection, queue, name)? {
        return Ok((group, false));
    }
    let reading = begin(tx, queue, &source, start)?;
    execute(
        tx.connection,
        "INSERT INTO pool_group (queue, name, as_queue: reading, settings, created_at)
         VALUES (?1, ?2, ?3, ?4, ?5)",
        params![
            queue.incarnation.get(),
            name.as_str(),
            reading.incarnation.get(),
            settings.to_json(),
            now.as_millis()
        ],
    )?;
    source.groups += 1;
    tx.put(source);
    tx.forget_readings(queue.incarnation);
    let settings = settings.clone();
    Ok((Group { name: name.clone(), as_queue: reading, settings, created_at: now }, true))
}

/// A new reading of a queue. What it begins with is copied when it is settled.
fn begin(tx: &Tx<'_>, queue: &QueueRef, source: &QueueRow, start: StartPoint) -> Result<QueueRef> {
    let (after, since) = match start {
        StartPoint::Start => (0, i64::MIN),
        StartPoint::End => (source.last_sequence, i64::MIN),
        StartPoint::Time(time) => (0, time.as_millis()),
        StartPoint::Sequence(sequence) => (sequence.get().saturating_sub(1), i64::MIN),
    };
    let incarnation = Incarnation::generate_for_group();
    execute(
        tx.connection,
        "INSERT INTO pool_queue (incarnation, project, name, last_sequence, ready, delayed, claimed,
             next_due, mirrors, fill_after, fill_up_to, fill_since)
         VALUES (?1, ?2, ?3, ?4, 0, 0, 0, 0, ?5, ?6, ?4, ?7)",
        params![
            incarnation.get(),
            queue.key.project.as_str(),
            queue.key.name.as_str(),
            source.last_sequence,
            queue.incarnation.get(),
            after,
            since
        ],
    )?;
    Ok(QueueRef { key: queue.key.clone(), incarnation })
}

fn seek(
    tx: &mut Tx<'_>,
    queue: &QueueRef,
    name: &GroupName,
    to: StartPoint,
) -> Result<Option<Group>> {
    let (Some(source), Some(mut group)) =
        (tx.queue(queue.incarnation)?, find(tx.connection, queue, name)?)
    else {
        return Ok(None);
    };
    forget_reading(tx, group.as_queue.incarnation)?;
    group.as_queue = begin(tx, queue, &source, to)?;
    execute(
        tx.connection,
        "UPDATE pool_group SET reading = ?3 WHERE queue = ?1 AND name = ?2",
        params![queue.incarnation.get(), name.as_str(), group.as_queue.incarnation.get()],
    )?;
    tx.forget_readings(queue.incarnation);
    Ok(Some(group))
}

fn delete(tx: &mut Tx<'_>, queue: &QueueRef, name: &GroupName) -> Result<bool> {
    let (Some(mut source), Some(group)) =
        (tx.queue(queue.incarnation)?, find(tx.connection, queue, name)?)
    else {
        return Ok(false);
    };
    forget_reading(tx, group.as_queue.incarnation)?;
    execute(
        tx.connection,
        "DELETE FROM pool_group WHERE queue = ?1 AND name = ?2",
        params![queue.incarnation.get(), name.as_str()],
    )?;
    source.groups -= 1;
    tx.put(source);
    tx.forget_readings(queue.incarnation);
    Ok(true)
}

/// What is copied of a message.
struct Original {
    sequence: i64,
    expires_at: i64,
    visible_at: i64,
    posted_at: i64,
    ttl: i64,
    client: String,
    key: Option<String>,
    origin: Option<String>,
    body: i64,
}

/// Copies some of what a reading begins with from the queue that it mirrors.
pub(super) fn fill(tx: &mut Tx<'_>, row: &mut QueueRow, fill: Fill, now: Timestamp) -> Result<()> {
    let source = row.mirrors.map(|source| tx.queue(source)).transpose()?.flatten();
    // Without a source the reading is about to go as well.
    let Some(source) = source else {
        row.fill = None;
        return Ok(());
    };
    let mut found = Vec::new();
    for state in [READY, DELAYED, CLAIMED, IN_LINE] {
        found.extend(originals(tx, source.id, state, fill)?);
    }
    if let Some(log) = source.log.map(|log| tx.queue(log)).transpose()?.flatten() {
        found.extend(originals(tx, log.id, RETAINED, fill)?);
    }
    // Of a message that the queue has and retains, what it has.
    found.sort_by_key(|original| original.sequence);
    found.dedup_by_key(|original| original.sequence);
    let more = found.len() >= STEP;
    found.truncate(STEP);
    row.fill = found.last().filter(|_| more).map(|last| Fill { after: last.sequence, ..fill });
    for original in found {
        if original.expires_at <= now.as_millis() || original.posted_at < fill.since {
            continue;
        }
        put(
            tx,
            row,
            &Arrival {
                sequence: original.sequence,
                expires_at: original.expires_at,
                visible_at: original.visible_at,
                posted_at: original.posted_at,
                ttl: original.ttl,
                client: &original.client,
                key: original.key.as_deref(),
                origin: original.origin.as_deref(),
                body: original.body,
            },
            now,
        )?;
        share(tx, original.body, 1)?;
    }
    Ok(())
}

/// Messages of a queue in one state, in order. What waits for a retry there is a message like any.
fn originals(tx: &Tx<'_>, queue: i64, state: i64, fill: Fill) -> Result<Vec<Original>> {
    let read = |row: &Row<'_>| {
        Ok(Original {
            sequence: row.get(0)?,
            expires_at: row.get(1)?,
            visible_at: row.get(2)?,
            posted_at: row.get(3)?,
            ttl: row.get(4)?,
            client: row.get(5)?,
            key: row.get(6)?,
            origin: row.get(8)?,
            body: row.get(7)?,
        })
    };
    let sql = if state == READY {
        "SELECT sequence, expires_at, iif(claim_count > 0, posted_at, visible_at), posted_at, ttl,
             client, NULL, body, origin
         FROM ready WHERE queue = ?1 AND ?2 = 0 AND sequence > ?3 AND sequence <= ?4
         ORDER BY sequence LIMIT ?5"
    } else {
        "SELECT sequence, expires_at, iif(claim_count > 0, posted_at, visible_at), posted_at, ttl,
             client, ordering_key, body, origin
         FROM held WHERE queue = ?1 AND state = ?2 AND sequence > ?3 AND sequence <= ?4
         ORDER BY sequence LIMIT ?5"
    };
    tx.connection
        .prepare_cached(sql)
        .and_then(|mut statement| {
            statement
                .query_map(params![queue, state, fill.after, fill.up_to, STEP], read)?
                .collect()
        })
        .map_err(store_error)
}
