//! Named consumer groups. Each has a row of `pool_queue` for its delivery state, and rows of its
//! own for the messages.

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension, Row, params};
use storage_traits::{
    Limit, Page, Result, StoreError,
    domain::{Group, GroupName, Incarnation, Metadata, QueueRef, StartPoint, Timestamp},
    pool::GroupStore,
};

use super::rows::execute;
use crate::sqlite::{
    error::{store_error, unexpected},
    queue_row::{DUE_NOW, QueueRow},
    store::Sqlite,
    transaction::Tx,
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
        let create = move |tx: &mut Tx<'_>| create(tx, &of, &name, start, &settings, now);
        let (group, new) = self.file.write(create).await?;
        // Copies the messages that the group starts with.
        self.apply_all_due(&group.as_queue, now).await?;
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
            self.apply_all_due(&group.as_queue, now).await?;
        }
        Ok(group)
    }

    async fn delete_group(&self, queue: &QueueRef, name: &GroupName) -> Result<bool> {
        let (queue, name) = (queue.clone(), name.clone());
        self.file.write(move |tx| delete(tx, &queue, &name)).await
    }
}

fn read_group(queue: &QueueRef, row: &Row<'_>) -> rusqlite::Result<Group> {
    let malformed = |column, error: Box<dyn std::error::Error + Send + Sync>| {
        rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, error)
    };
    let incarnation = row.get(1)?;
    Ok(Group {
        name: row.get_ref(0)?.as_str()?.parse::<GroupName>().map_err(|e| malformed(0, e.into()))?,
        as_queue: QueueRef {
            key: queue.key.clone(),
            incarnation: Incarnation::new(incarnation)
                .ok_or(rusqlite::Error::IntegralValueOutOfRange(1, incarnation))?,
        },
        settings: Metadata::from_json(row.get_ref(2)?.as_str()?)
            .map_err(|e| malformed(2, e.into()))?,
        created_at: Timestamp::from_millis(row.get(3)?),
    })
}

fn find(connection: &Connection, queue: &QueueRef, name: &GroupName) -> Result<Option<Group>> {
    connection
        .prepare_cached(
            "SELECT name, incarnation, settings, created_at FROM pool_group
             WHERE queue_incarnation = ?1 AND name = ?2",
        )
        .and_then(|mut statement| {
            let key = params![queue.incarnation.get(), name.as_str()];
            statement.query_row(key, |row| read_group(queue, row)).optional()
        })
        .map_err(store_error)
}

/// Returns the incarnation of a group, by name.
pub(super) fn group_incarnation(
    tx: &Tx<'_>,
    queue: Incarnation,
    name: &GroupName,
) -> Result<Option<Incarnation>> {
    let group: Option<i64> = tx
        .connection
        .prepare_cached(
            "SELECT incarnation FROM pool_group WHERE queue_incarnation = ?1 AND name = ?2",
        )
        .and_then(|mut statement| {
            statement.query_row(params![queue.get(), name.as_str()], |row| row.get(0)).optional()
        })
        .map_err(store_error)?;
    Ok(group.and_then(Incarnation::new))
}

/// Returns the name of a group, by incarnation.
pub(super) fn group_name(
    tx: &Tx<'_>,
    queue: Incarnation,
    group: Incarnation,
) -> Result<Option<GroupName>> {
    let name: Option<String> = tx
        .connection
        .prepare_cached(
            "SELECT name FROM pool_group WHERE queue_incarnation = ?1 AND incarnation = ?2",
        )
        .and_then(|mut statement| {
            statement.query_row([queue.get(), group.get()], |row| row.get(0)).optional()
        })
        .map_err(store_error)?;
    name.map(|name| name.parse().map_err(|_| unexpected("a group has a malformed name")))
        .transpose()
}

fn list(
    connection: &Connection,
    queue: &QueueRef,
    after: &str,
    limit: Limit,
) -> Result<Page<Group>> {
    let found = connection
        .prepare_cached(
            "SELECT name, incarnation, settings, created_at FROM pool_group
             WHERE queue_incarnation = ?1 AND name > ?2 ORDER BY name LIMIT ?3",
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
    // A group has no groups.
    let source = tx.queue(queue.incarnation)?.filter(|row| row.source_queue.is_none());
    let Some(mut source) = source else {
        return Err(StoreError::not_found("queue", &queue.key));
    };
    if let Some(group) = find(tx.connection, queue, name)? {
        return Ok((group, false));
    }
    let as_queue = insert_group_row(tx, queue, &source, start)?;
    execute(
        tx.connection,
        "INSERT INTO pool_group (queue_incarnation, name, incarnation, settings, created_at)
         VALUES (?1, ?2, ?3, ?4, ?5)",
        params![
            queue.incarnation.get(),
            name.as_str(),
            as_queue.incarnation.get(),
            settings.to_json(),
            now.as_millis()
        ],
    )?;
    source.group_count += 1;
    tx.save(source);
    tx.invalidate_groups(queue.incarnation);
    let settings = settings.clone();
    Ok((Group { name: name.clone(), as_queue, settings, created_at: now }, true))
}

/// Inserts the row of a group into `pool_queue`, with a new incarnation. The messages from the
/// starting point on are due to be copied.
fn insert_group_row(
    tx: &Tx<'_>,
    queue: &QueueRef,
    source: &QueueRow,
    start: StartPoint,
) -> Result<QueueRef> {
    let (after, since) = match start {
        StartPoint::Start => (0, i64::MIN),
        StartPoint::End => (source.last_sequence, i64::MIN),
        StartPoint::Time(time) => (0, time.as_millis()),
        StartPoint::Sequence(sequence) => (sequence.get().saturating_sub(1), i64::MIN),
    };
    let incarnation = Incarnation::generate_for_group();
    execute(
        tx.connection,
        "INSERT INTO pool_queue (incarnation, project, name, last_sequence, next_due, source_queue,
             backfill_after, backfill_up_to, backfill_since)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?4, ?8)",
        params![
            incarnation.get(),
            queue.key.project.as_str(),
            queue.key.name.as_str(),
            source.last_sequence,
            DUE_NOW,
            queue.incarnation.get(),
            after,
            since
        ],
    )?;
    Ok(QueueRef { key: queue.key.clone(), incarnation })
}

/// Moves a group to another point: gives it a new row and drops the old one.
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
    tx.mark_dropped(group.as_queue.incarnation)?;
    group.as_queue = insert_group_row(tx, queue, &source, to)?;
    execute(
        tx.connection,
        "UPDATE pool_group SET incarnation = ?3 WHERE queue_incarnation = ?1 AND name = ?2",
        params![queue.incarnation.get(), name.as_str(), group.as_queue.incarnation.get()],
    )?;
    tx.invalidate_groups(queue.incarnation);
    Ok(Some(group))
}

fn delete(tx: &mut Tx<'_>, queue: &QueueRef, name: &GroupName) -> Result<bool> {
    let (Some(mut source), Some(group)) =
        (tx.queue(queue.incarnation)?, find(tx.connection, queue, name)?)
    else {
        return Ok(false);
    };
    tx.mark_dropped(group.as_queue.incarnation)?;
    execute(
        tx.connection,
        "DELETE FROM pool_group WHERE queue_incarnation = ?1 AND name = ?2",
        params![queue.incarnation.get(), name.as_str()],
    )?;
    source.group_count -= 1;
    tx.save(source);
    tx.invalidate_groups(queue.incarnation);
    Ok(true)
}
