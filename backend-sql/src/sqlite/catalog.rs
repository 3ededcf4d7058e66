//! The catalog: queues, their metadata and the change feed.

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension, Row, params};
use storage_traits::{
    Page, Result, StoreError,
    catalog::{
        Catalog, ChangeFeed, ChangeToken, Changed, Changes, Created, QueueCatalog, QueueFilter,
    },
    domain::{
        Incarnation, Metadata, ProjectId, QueueKey, QueueName, QueueRecord, QueueRef, Timestamp,
    },
};

use super::{
    error::{store_error, unexpected},
    store::Sqlite,
};

/// Changes that the feed keeps.
const CHANGES_KEPT: i64 = 10_000;
/// Changes that one read of the feed returns at most.
const MAX_CHANGES_READ: i64 = 1_000;
/// Rows that a list reads at a time.
const LIST_CHUNK: i64 = 200;

#[async_trait]
impl QueueCatalog for Sqlite {
    async fn create(&self, key: &QueueKey, metadata: &Metadata, now: Timestamp) -> Result<Created> {
        let (key, text) = (key.clone(), metadata.to_json());
        self.file
            .write(move |tx| {
                if let Some(record) = find(tx.connection, &key)? {
                    return Ok(Created { record, new: false });
                }
                // The insert does nothing if the incarnation is in use: then another is generated.
                let mut new = false;
                while !new {
                    new = tx
                        .connection
                        .prepare_cached(
                            "INSERT INTO queue
                             (project, name, incarnation, metadata, version, created_at)
                             VALUES (?1, ?2, ?3, ?4, 1, ?5) ON CONFLICT DO NOTHING",
                        )
                        .and_then(|mut statement| {
                            statement.execute(params![
                                key.project.as_str(),
                                key.name.as_str(),
                                Incarnation::generate(now).get(),
                                text,
                                now.as_millis()
                            ])
                        })
                        .map_err(store_error)?
                        > 0;
                }
                let record = find(tx.connection, &key)?.ok_or_else(|| missing(&key))?;
                Ok(Created { record, new })
            })
            .await
    }

    async fn get(&self, key: &QueueKey) -> Result<Option<QueueRecord>> {
        let key = key.clone();
        self.file.read(move |connection| find(connection, &key)).await
    }

    async fn list(&self, project: &ProjectId, filter: &QueueFilter) -> Result<Page<QueueRecord>> {
        let mut found = Vec::new();
        let mut after = filter.after.clone().unwrap_or_default();
        // A filter may skip any number of queues. Other operations run between the chunks.
        loop {
            let (project, after_name) = (project.clone(), std::mem::take(&mut after));
            let read =
                move |connection: &mut Connection| read_chunk(connection, &project, &after_name);
            let records = self.file.read(read).await?;
            let Some(last) = records.last() else { return Ok(Page::cut(found, filter.limit)) };
            last.queue.key.name.as_str().clone_into(&mut after);
            let passes =
                |record: &QueueRecord| filter.matches(&record.queue.key.name, &record.metadata);
            found.extend(records.into_iter().filter(passes));
            if found.len() > filter.limit.get() {
                return Ok(Page::cut(found, filter.limit));
            }
        }
    }

    async fn count(&self, project: &ProjectId) -> Result<u64> {
        let project = project.clone();
        self.file
            .read(move |connection| {
                connection
                    .prepare_cached("SELECT count(*) FROM queue WHERE project = ?1")
                    .and_then(|mut statement| {
                        statement.query_row([project.as_str()], |row| row.get(0))
                    })
                    .map_err(store_error)
            })
            .await
    }

    async fn update(
        &self,
        read: &QueueRecord,
        metadata: &Metadata,
        _now: Timestamp,
    ) -> Result<QueueRecord> {
        let (read, metadata) = (read.clone(), metadata.clone());
        self.file
            .write(move |tx| {
                let key = &read.queue.key;
                let updated = tx
                    .connection
                    .prepare_cached(
                        "UPDATE queue SET metadata = ?4, version = version + 1
                         WHERE project = ?1 AND name = ?2 AND incarnation = ?3 AND version = ?5",
                    )
                    .and_then(|mut statement| {
                        statement.execute(params![
                            key.project.as_str(),
                            key.name.as_str(),
                            read.queue.incarnation.get(),
                            metadata.to_json(),
                            read.version
                        ])
                    })
                    .map_err(store_error)?;
                let present = find(tx.connection, key)?.filter(|record| record.queue == read.queue);
                match present {
                    Some(record) if updated > 0 => {
                        record_change(tx.connection, key)?;
                        Ok(record)
                    }
                    Some(_) => Err(StoreError::Conflict { kind: "queue", key: key.to_string() }),
                    None => Err(missing(key)),
                }
            })
            .await
    }

    async fn delete(&self, key: &QueueKey, _now: Timestamp) -> Result<Option<QueueRef>> {
        let key = key.clone();
        self.file
            .write(move |tx| {
                let Some(record) = find(tx.connection, &key)? else {
                    return Ok(None);
                };
                tx.connection
                    .prepare_cached("DELETE FROM queue WHERE project = ?1 AND name = ?2")
                    .and_then(|mut statement| {
                        statement.execute([key.project.as_str(), key.name.as_str()])
                    })
                    .map_err(store_error)?;
                record_change(tx.connection, &key)?;
                Ok(Some(record.queue))
            })
            .await
    }
}

#[async_trait]
impl ChangeFeed for Sqlite {
    async fn changes(&self, after: Option<ChangeToken>) -> Result<Changes> {
        self.file.read(move |connection| changes(connection, after)).await
    }
}

#[async_trait]
impl Catalog for Sqlite {
    async fn check(&self) -> Result<()> {
        self.file.read(|connection| changes(connection, None).map(drop)).await
    }

    async fn close(&self) {
        self.file.close().await;
    }
}

fn missing(key: &QueueKey) -> StoreError {
    StoreError::not_found("queue", key)
}

const COLUMNS: &str = "name, incarnation, metadata, version, created_at";

fn find(connection: &Connection, key: &QueueKey) -> Result<Option<QueueRecord>> {
    connection
        .prepare_cached(&format!("SELECT {COLUMNS} FROM queue WHERE project = ?1 AND name = ?2"))
        .and_then(|mut statement| {
            statement
                .query_row([key.project.as_str(), key.name.as_str()], |row| {
                    Ok(record(&key.project, row))
                })
                .optional()
        })
        .map_err(store_error)?
        .transpose()
}

fn record(project: &ProjectId, row: &Row<'_>) -> Result<QueueRecord> {
    let text = |column| row.get_ref(column)?.as_str().map_err(rusqlite::Error::from);
    let name: QueueName = text(0).map_err(store_error)?.parse().map_err(unexpected)?;
    let incarnation = row.get(1).map_err(store_error)?;
    Ok(QueueRecord {
        queue: QueueRef {
            key: QueueKey { project: project.clone(), name },
            incarnation: Incarnation::new(incarnation)
                .ok_or_else(|| unexpected("an incarnation is not positive"))?,
        },
        metadata: Metadata::from_json(text(2).map_err(store_error)?).map_err(unexpected)?,
        version: row.get(3).map_err(store_error)?,
        created_at: Timestamp::from_millis(row.get(4).map_err(store_error)?),
    })
}

/// Returns the next records after a name.
fn read_chunk(
    connection: &Connection,
    project: &ProjectId,
    after: &str,
) -> Result<Vec<QueueRecord>> {
    connection
        .prepare_cached(&format!(
            "SELECT {COLUMNS} FROM queue WHERE project = ?1 AND name > ?2 ORDER BY name LIMIT ?3"
        ))
        .and_then(|mut statement| {
            statement
                .query_map(params![project.as_str(), after, LIST_CHUNK], |row| {
                    Ok(record(project, row))
                })?
                .collect::<rusqlite::Result<Vec<_>>>()
        })
        .map_err(store_error)?
        .into_iter()
        .collect()
}

/// Appends a change to the feed and deletes those that are too old.
fn record_change(connection: &Connection, key: &QueueKey) -> Result<()> {
    connection
        .prepare_cached("INSERT INTO queue_change (project, name) VALUES (?1, ?2)")
        .and_then(|mut statement| statement.insert([key.project.as_str(), key.name.as_str()]))
        .and_then(|position| {
            connection
                .prepare_cached("DELETE FROM queue_change WHERE position <= ?1")?
                .execute([position - CHANGES_KEPT])
        })
        .map_err(store_error)?;
    Ok(())
}

/// Reads the changes after a token; without a token, only the newest position.
fn changes(connection: &mut Connection, after: Option<ChangeToken>) -> Result<Changes> {
    let tx = connection.transaction().map_err(store_error)?;
    let newest: i64 = tx
        .prepare_cached("SELECT coalesce(max(position), 0) FROM queue_change")
        .and_then(|mut statement| statement.query_row((), |row| row.get(0)))
        .map_err(store_error)?;
    let Some(after) = after else {
        return Ok(Changes {
            changed: Changed::Queues(Vec::new()),
            next: ChangeToken::new(newest),
        });
    };
    // The token is older than the feed, or comes from another file.
    if after.get() < newest - CHANGES_KEPT || after.get() > newest {
        return Ok(Changes { changed: Changed::Everything, next: ChangeToken::new(newest) });
    }
    let rows = tx
        .prepare_cached(
            "SELECT position, project, name FROM queue_change
             WHERE position > ?1 ORDER BY position LIMIT ?2",
        )
        .and_then(|mut statement| {
            statement
                .query_map([after.get(), MAX_CHANGES_READ], |row| {
                    Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?, row.get::<_, String>(2)?))
                })?
                .collect::<rusqlite::Result<Vec<_>>>()
        })
        .map_err(store_error)?;
    let next = rows.last().map_or(after, |(position, ..)| ChangeToken::new(*position));
    let keys = rows
        .into_iter()
        .map(|(_, project, name)| {
            Ok(QueueKey {
                project: ProjectId::from_store(&project).map_err(unexpected)?,
                name: name.parse().map_err(unexpected)?,
            })
        })
        .collect::<Result<_>>()?;
    Ok(Changes { changed: Changed::Queues(keys), next })
}
