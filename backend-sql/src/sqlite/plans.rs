//! Tests that no statement scans a table, sorts, builds an automatic index or is parsed twice, by
//! the counters that SQLite keeps for each statement.

use std::time::Duration;

use rusqlite::Connection;
use storage_traits::{
    Clock as _, Limit, Result, SystemClock,
    catalog::{Catalog, QueueFilter},
    domain::{
        AckOutcome, AckResult, Acknowledgement, Body, ClaimId, ClaimSpec, ClaimTerms, ClientId,
        DeadLetter, Deduplication, Delivery, GroupName, Metadata, NewMessage, QueueKey, QueueRef,
        StartPoint, Timestamp,
    },
    pool::{ListSpec, MessagePool, RedriveSpec, WatchFor},
};

use super::{Sqlite, SqliteOptions, error::store_error};

const TTL: Duration = Duration::from_mins(5);

fn message(delay: u64) -> NewMessage {
    let body = Body::from_json("1".into());
    let id = ClaimId::random().to_string().parse().unwrap();
    let deduplication = Some(Deduplication { id, window: TTL });
    let delivery = Delivery::After(Duration::from_secs(delay));
    NewMessage {
        body,
        ttl: TTL,
        delivery,
        ordering_key: None,
        deduplication,
        retained: true,
        checksum: None,
    }
}

/// Returns a message with one of two ordering keys.
fn keyed(delay: u64, n: u32) -> NewMessage {
    let ordering_key = Some(["even", "odd"][n as usize % 2].parse().unwrap());
    NewMessage { ordering_key, ..message(delay) }
}

/// Returns the statements that scanned, sorted, built an index or were parsed twice.
fn costly_statements(connection: &Connection) -> Result<Vec<String>> {
    let counted = "SELECT count(*) FROM sqlite_stmt WHERE run > 0";
    let statements = connection.query_row(counted, (), |row| row.get::<_, i64>(0));
    assert!(statements.map_err(store_error)? > 8, "SQLite did not count the statements");
    connection
        .prepare(
            "SELECT printf('scan %d sort %d index %d parse %d: %s', nscan, nsort, naidx, reprep, sql)
             FROM sqlite_stmt WHERE (nscan > 0 OR nsort > 0 OR naidx > 0 OR reprep > 0)
             AND sql NOT LIKE '%sqlite_stmt%'",
        )
        .and_then(|mut statement| statement.query_map((), |row| row.get(0))?.collect())
        .map_err(store_error)
}

/// Returns the statements that select the messages of a claim without the index on the claim.
fn plans_without_claim_index(connection: &Connection) -> Result<Vec<String>> {
    // The parameters stay unbound: a plan does not depend on them.
    let read = |sql: &str, column: usize| {
        connection
            .prepare(sql)
            .and_then(|mut s| s.raw_query().mapped(|row| row.get::<_, String>(column)).collect())
            .map_err(store_error)
    };
    let statements = "SELECT sql FROM sqlite_stmt
                      WHERE sql LIKE '%claim_id = ?2%' AND sql NOT LIKE '%sqlite_stmt%'";
    let by_claim: Vec<String> = read(statements, 0)?;
    assert!(!by_claim.is_empty(), "no statement selects by claim");
    let mut others = Vec::new();
    for sql in by_claim {
        let plan: Vec<String> = read(&format!("EXPLAIN QUERY PLAN {sql}"), 3)?;
        if !plan.iter().any(|step| step.contains("message_by_claim (queue_id=? AND claim_id=?")) {
            others.push(format!("{plan:?}: {sql}"));
        }
    }
    Ok(others)
}

async fn queue(catalog: &dyn Catalog, name: &str, now: Timestamp) -> QueueRef {
    let key = QueueKey { project: "p".parse().unwrap(), name: name.parse().unwrap() };
    catalog.create(&key, &Metadata::default(), now).await.unwrap().record.queue
}

#[tokio::test]
async fn every_statement_uses_an_index() {
    let folder = tempfile::tempdir().unwrap();
    let mut options = SqliteOptions::new(folder.path().join("plans.db"));
    options.readers = std::num::NonZeroUsize::MIN; // the reader that counts its statements
    let store = Sqlite::open(&options).unwrap();
    // The counters of a statement are lost when it is evicted from the cache.
    let keep_all = |connection: &Connection| {
        connection.set_prepared_statement_cache_capacity(1_000);
        Ok(())
    };
    store.file.write(move |tx| keep_all(tx.connection)).await.unwrap();
    store.file.read(move |connection| keep_all(connection)).await.unwrap();
    let now = SystemClock.now();
    exercise_catalog(&store, now).await;
    exercise_pool(&store, &store, now).await;

    assert_eq!(
        store.file.write(|tx| plans_without_claim_index(tx.connection)).await.unwrap(),
        Vec::<String>::new()
    );
    assert_eq!(
        store.file.read(|c| plans_without_claim_index(c)).await.unwrap(),
        Vec::<String>::new()
    );
    let written = store.file.write(|tx| costly_statements(tx.connection)).await.unwrap();
    assert_eq!(written, Vec::<String>::new());
    let read = store.file.read(|connection| costly_statements(connection)).await.unwrap();
    assert_eq!(read, Vec::<String>::new());
    // Everything has expired or was dropped, and every row of a message was deleted.
    assert_eq!(store.file.read(|connection| leftovers(connection)).await.unwrap(), 0);
}

async fn exercise_catalog(store: &dyn Catalog, now: Timestamp) {
    let limit = Limit::new(2).unwrap();
    for name in ["a", "b", "c"] {
        queue(store, name, now).await;
    }
    let key = queue(store, "b", now).await.key;
    let start = store.changes(None).await.unwrap().next;
    let record = store.get(&key).await.unwrap().unwrap();
    store.update(&record, &Metadata::default(), now).await.unwrap();
    let filter = QueueFilter {
        after: Some("a".into()),
        limit,
        name_contains: Some("b".into()),
        metadata: Vec::new(),
    };
    assert_eq!(store.list(&key.project, &filter).await.unwrap().items.len(), 1);
    assert_eq!(store.count(&key.project).await.unwrap(), 3);
    store.delete(&key, now).await.unwrap();
    store.changes(Some(start)).await.unwrap();
}

async fn exercise_pool(catalog: &dyn Catalog, store: &dyn MessagePool, now: Timestamp) {
    let (limit, client) = (Limit::new(2).unwrap(), ClientId::new("plans"));
    let terms = ClaimTerms { ttl: Duration::from_mins(1), grace: Duration::from_mins(1) };
    let (work, dead) = (queue(catalog, "work", now).await, queue(catalog, "dead", now).await);
    store.open_queue(&work).await.unwrap();
    store.open_queue(&dead).await.unwrap();
    let mut messages: Vec<_> = (0..20).map(|_| message(0)).collect();
    messages.extend((0..5).map(|_| message(30)));
    let posted = store.post(&work, &client, messages, now).await.unwrap();
    let ids: Vec<_> = posted.into_iter().map(|posted| posted.id).collect();
    store.watch(&work, WatchFor::Claimable, now).await.unwrap();
    store.reschedule(&work, ids[24], now.plus(TTL / 2), now).await.unwrap();
    store.reschedule(&work, ids[23], now, now).await.unwrap();
    store.delete(&work, ids[22], None, now).await.unwrap();
    let rule = DeadLetter { queue: dead.clone(), max_claim_count: 1, ttl: None, retained: true };
    let spec = |id| ClaimSpec { id, terms, limit, dead_letter: Some(rule.clone()) };

    let claim = store.claim(&work, &spec(ClaimId::random()), now).await.unwrap().unwrap();
    for (hide_client, both) in [(None, true), (Some(client.clone()), true), (None, false)] {
        let list = ListSpec {
            after: None,
            limit,
            hide_client,
            include_free: true,
            include_claimed: both,
            include_delayed: both,
        };
        store.list(&work, &list, now).await.unwrap();
    }
    assert_eq!(store.get(&work, &ids, now).await.unwrap().len(), ids.len() - 1);
    store.get_claim(&work, claim.id, now).await.unwrap().unwrap();
    store.renew(&work, claim.id, terms, now).await.unwrap();
    store.delete(&work, claim.messages[0].id, Some(claim.id), now).await.unwrap();
    let claim = store.claim(&work, &spec(ClaimId::random()), now).await.unwrap().unwrap();
    let outcomes = [AckOutcome::Ack, AckOutcome::Nack { delay: TTL / 2 }];
    let acknowledgements = claim.messages.iter().zip(outcomes);
    let acknowledgements: Vec<_> =
        acknowledgements.map(|(m, outcome)| Acknowledgement { id: m.id, outcome }).collect();
    let taken = store.acknowledge(&work, claim.id, &acknowledgements, now).await.unwrap();
    assert_eq!(taken, [AckResult::Applied; 2]);
    let claim = store.claim(&work, &spec(ClaimId::random()), now).await.unwrap().unwrap();
    let outcome = AckOutcome::Nack { delay: Duration::ZERO };
    let acknowledgement = Acknowledgement { id: claim.messages[0].id, outcome };
    store.acknowledge(&work, claim.id, &[acknowledgement], now).await.unwrap();
    store.delete_many(&work, &ids[10..12], &[], now).await.unwrap();
    store.stats(&work, now).await.unwrap();
    store.release(&work, claim.id, now).await.unwrap();
    store.claim(&work, &spec(ClaimId::random()), now).await.unwrap().unwrap(); // dead-letters two
    assert_eq!(store.counters().dead_lettered, 2);
    store.pop(&work, limit, now).await.unwrap();

    exercise_keys(store, &dead, now).await;
    exercise_groups(store, &work, &dead, now).await;

    // Delays and the claim end, and all other messages expire.
    for minutes in [2, 6] {
        let later = now.plus(Duration::from_mins(minutes));
        store.stats(&work, later).await.unwrap();
        while store.sweep(later).await.unwrap().more {}
    }
    store.post(&work, &client, vec![message(0), message(30)], now).await.unwrap();
    store.purge(&work, now).await.unwrap();
    store.post(&work, &client, vec![message(0), message(30)], now).await.unwrap();
    store.drop_queue(&work).await.unwrap();
    for minutes in [1, 30] {
        while store.sweep(now.plus(Duration::from_mins(minutes))).await.unwrap().more {}
    }
    store.check().await.unwrap();
}

/// Uses ordering keys, on a queue that dead letters with a key are moved to too.
async fn exercise_keys(store: &dyn MessagePool, queue: &QueueRef, now: Timestamp) {
    let client = ClientId::new("plans");
    let terms = ClaimTerms { ttl: Duration::from_mins(1), grace: Duration::from_mins(1) };
    let mut messages: Vec<_> = (0..20).map(|n| keyed(0, n)).collect();
    messages.extend((0..4).map(|n| keyed(30, n)));
    store.post(queue, &client, messages, now).await.unwrap();
    let claim = async |limit| {
        let limit = Limit::new(limit).unwrap();
        let spec = ClaimSpec { id: ClaimId::random(), terms, limit, dead_letter: None };
        store.claim(queue, &spec, now).await.unwrap().unwrap()
    };
    for delay in [Duration::ZERO, TTL / 2] {
        let claim = claim(2).await;
        let outcome = AckOutcome::Nack { delay };
        let acknowledgements = [Acknowledgement { id: claim.messages[0].id, outcome }];
        store.acknowledge(queue, claim.id, &acknowledgements, now).await.unwrap();
        store.release(queue, claim.id, now).await.unwrap();
    }
    let claimed = claim(2).await;
    store.delete(queue, claimed.messages[0].id, Some(claimed.id), now).await.unwrap();
    store.pop(queue, Limit::new(1).unwrap(), now).await.unwrap_or_default();
    let list = ListSpec {
        after: None,
        limit: Limit::new(5).unwrap(),
        hide_client: None,
        include_free: true,
        include_claimed: true,
        include_delayed: true,
    };
    assert_eq!(store.list(queue, &list, now).await.unwrap().items.len(), 5);
    store.stats(queue, now).await.unwrap();
}

async fn exercise_groups(
    store: &dyn MessagePool,
    queue: &QueueRef,
    dead: &QueueRef,
    now: Timestamp,
) {
    let (client, limit) = (ClientId::new("plans"), Limit::new(2).unwrap());
    let terms = ClaimTerms { ttl: Duration::from_mins(1), grace: Duration::from_mins(1) };
    let name: GroupName = "group".parse().unwrap();
    let settings = Metadata::default();
    let start = StartPoint::Start;
    store.post(queue, &client, vec![message(0), keyed(0, 1), keyed(30, 1)], now).await.unwrap();
    store.create_group(queue, &name, start, &settings, now).await.unwrap();
    store.post(queue, &client, vec![message(0), keyed(0, 1), keyed(30, 1)], now).await.unwrap();
    let group = store.get_group(queue, &name).await.unwrap().unwrap();
    let spec = ClaimSpec { id: ClaimId::random(), terms, limit, dead_letter: None };
    let claim = store.claim(&group.as_queue, &spec, now).await.unwrap().unwrap();
    let outcome = AckOutcome::Ack;
    let acknowledgements = [Acknowledgement { id: claim.messages[0].id, outcome }];
    let taken = store.acknowledge(&group.as_queue, claim.id, &acknowledgements, now).await.unwrap();
    assert_eq!(taken, [AckResult::Applied]);
    store.stats(&group.as_queue, now).await.unwrap();
    let rule = DeadLetter { queue: dead.clone(), max_claim_count: 0, ttl: None, retained: true };
    let spec = ClaimSpec { id: ClaimId::random(), terms, limit, dead_letter: Some(rule) };
    assert_eq!(store.claim(&group.as_queue, &spec, now).await.unwrap(), None);
    let some = RedriveSpec { limit, rate: None };
    assert_eq!(store.redrive(dead, some, now).await.unwrap().moved, 2);
    assert_eq!(store.claim(&group.as_queue, &spec, now).await.unwrap(), None);
    store.seek_group(queue, &name, StartPoint::Time(now), now).await.unwrap().unwrap();
    let other = "other".parse().unwrap();
    store.create_group(queue, &other, StartPoint::End, &settings, now).await.unwrap();
    assert_eq!(store.list_groups(queue, None, limit).await.unwrap().items.len(), 2);
    assert!(store.delete_group(queue, &other).await.unwrap());
    assert!(store.delete_group(queue, &name).await.unwrap());
    let all = RedriveSpec { limit: Limit::new(100).unwrap(), rate: None };
    assert!(store.redrive(dead, all, now).await.unwrap().orphaned > 2);
}

/// Counts the rows that belong to messages.
fn leftovers(connection: &Connection) -> Result<i64> {
    connection
        .query_row(
            "SELECT (SELECT count(*) FROM body) + (SELECT count(*) FROM body_refs)
                 + (SELECT count(*) FROM ready_message) + (SELECT count(*) FROM message_by_state)
                 + (SELECT count(*) FROM ordering_key) + (SELECT count(*) FROM claim)
                 + (SELECT count(*) FROM deduplication) + (SELECT count(*) FROM pool_group)
                 + (SELECT count(*) FROM dead_letter)",
            (),
            |row| row.get(0),
        )
        .map_err(store_error)
}
