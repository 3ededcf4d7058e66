//! The commit of a unit of work: one conditional update of the queue's document.
//!
//! Its filter names the revision that the unit of work was computed from (optimistic concurrency):
//! if another node has committed since, nothing is changed and the operations run again.

use std::collections::HashSet;

use mongodb::{
    bson::{
        Bson, Document, RawDocumentBuf, deserialize_from_slice, doc, oid::ObjectId,
        serialize_to_bson, serialize_to_document,
    },
    options::ReturnDocument,
};
use storage_traits::{Result, random::random_i64};

use super::{
    apply::{Replace, replace_older},
    collections::Collections,
    indexes::{BUCKETS, BY_ID, CLAIMS, GARBAGE, QUEUES, TRANSFERS, hint},
    queue_document::{AT_END, GroupState, JournalEntry, Placement, QueueDocument},
    side_documents::ClaimRecord,
    unit_of_work::UnitOfWork,
};
use crate::error::unexpected;

/// The outcome of a commit.
pub(super) enum CommitOutcome {
    /// The queue as it is now, and the journal entry that is to be applied.
    Committed(Box<(QueueDocument, JournalEntry)>),
    /// Another node has committed since the queue was read; nothing was changed.
    Conflict,
}

/// The update of the queue's document.
struct Commit {
    filter: Document,
    pipeline: Vec<Document>,
    id: i64,
}

/// Commits a unit of work, and removes the entries `truncated` from the journal.
pub(super) async fn commit(unit: &mut UnitOfWork<'_>, truncated: &[i64]) -> Result<CommitOutcome> {
    let entry = build_entry(unit, truncated)?;
    let commit = build_commit(unit, &entry, truncated)?;
    insert_referenced(unit).await?;
    let mut claims = Vec::with_capacity(unit.new_claims.len());
    for claim in &unit.new_claims {
        let claim = serialize_to_document(claim).map_err(unexpected)?;
        // An attempt that lost may have stored the claim with the same revision.
        claims.push(replace_older(unit.queue_id, claim, entry.revision, Replace::SameRevision)?);
    }
    // A claim that is stored without a commit is harmless: no message names it. A claim that is
    // committed but not stored is not returned to the caller.
    let (committed, stored) = tokio::join!(
        execute(&unit.collections, unit.queue_id, &commit),
        unit.collections.update(CLAIMS, claims, true)
    );
    let Some(document) = committed? else { return Ok(CommitOutcome::Conflict) };
    stored?;
    let own = document.journal.iter().find(|it| it.commit_id == entry.commit_id).cloned();
    let own = own.ok_or_else(|| unexpected("an entry is missing from the journal"))?;
    Ok(CommitOutcome::Committed(Box::new((document, own))))
}

/// Inserts the documents that the commit refers to. They are not visible before the commit.
async fn insert_referenced(unit: &UnitOfWork<'_>) -> Result<()> {
    let mut buckets = Vec::with_capacity(unit.new_buckets.len());
    for new in &unit.new_buckets {
        buckets.push(new.bucket.document(new.bodies.clone())?);
    }
    let queue_id = unit.queue_id;
    let garbage = unit.deleted_groups.iter().map(|group_id| {
        doc! { "_id": ObjectId::new(), "queue_id": queue_id, "group_id": group_id, "due": 0_i64 }
    });
    let garbage: Vec<_> = garbage.collect();
    tokio::try_join!(
        unit.collections.insert(BUCKETS, &buckets, true),
        unit.collections.insert(TRANSFERS, &unit.transfers, true),
        unit.collections.insert(GARBAGE, &garbage, true),
    )?;
    Ok(())
}

/// Returns the journal entry of a unit of work.
fn build_entry(unit: &mut UnitOfWork<'_>, truncated: &[i64]) -> Result<JournalEntry> {
    let base = unit.base.as_ref();
    let base = base.ok_or_else(|| unexpected("a queue that does not exist was changed"))?;
    let first = base.tail + 1;
    let remaining = base.journal.iter().filter(|entry| !truncated.contains(&entry.commit_id));
    let named: HashSet<ObjectId> =
        remaining.flat_map(|entry| entry.placements.iter().map(|it| it.bucket)).collect();
    let mut entry = JournalEntry {
        commit_id: random_i64(),
        revision: base.revision + 1,
        ..JournalEntry::default()
    };
    for new in &unit.new_buckets {
        let bucket = &new.bucket;
        entry.placements.push(Placement {
            bucket: bucket.id,
            group_id: bucket.group_id,
            offset: if new.absolute { bucket.first } else { bucket.first - first },
            span: i64::from(bucket.span),
            delayed: 0,
            absolute: new.absolute,
        });
    }
    for id in std::mem::take(&mut unit.changed_buckets) {
        let Some(bucket) = unit.cache.bucket_mut(id) else { continue };
        let is_kept = !bucket.messages.is_empty() || named.contains(&id);
        if is_kept && bucket.is_changed() {
            entry.changes.push(bucket.take_change()?);
        }
    }
    // An empty bucket is kept as long as the journal names it: the node that posted it may check
    // whether it exists.
    entry.emptied_buckets = unit.cache.empty_buckets().filter(|id| !named.contains(id)).collect();
    for key in &unit.changed_keys {
        if let Some(Some(state)) = unit.cache.keys.get(key) {
            entry.keys.push(state.document()?);
        }
    }
    for id in &unit.dedup_records {
        if let Some(Some(record)) = unit.cache.dedup_records.get(id) {
            let mut document = serialize_to_document(record).map_err(unexpected)?;
            document.remove("sequence");
            document.insert("offset", record.sequence - first);
            entry.dedup_records.push(document);
        }
    }
    entry.claims = unit.changed_claims.iter().map(ClaimRecord::change).collect();
    Ok(entry)
}

fn build_commit(unit: &UnitOfWork<'_>, entry: &JournalEntry, truncated: &[i64]) -> Result<Commit> {
    let (Some(base), Some(document)) = (&unit.base, &unit.document) else {
        return Err(unexpected("a queue that does not exist was changed"));
    };
    let mut set = doc! { "revision": entry.revision };
    let mut unset = Vec::new();
    if document.tail != base.tail {
        set.insert("tail", doc! { "$add": ["$tail", document.tail - base.tail] });
    }
    for (id, group) in &document.groups {
        match base.groups.get(id) {
            Some(before) if before == group => {}
            Some(before) => change_group(id, before, group, &mut set, &mut unset)?,
            None => drop(set.insert(format!("groups.{id}"), new_group(group)?)),
        }
    }
    let deleted = base.groups.keys().filter(|id| !document.groups.contains_key(*id));
    unset.extend(deleted.map(|id| Bson::from(format!("groups.{id}"))));
    if !document.groups.keys().eq(base.groups.keys()) {
        let ids = document.groups.keys().map(|id| id.parse::<i64>());
        let ids = ids.collect::<std::result::Result<Vec<_>, _>>().map_err(unexpected)?;
        set.insert("group_ids", ids);
        set.insert("groups_version", base.groups_version + 1);
    }
    if document.outgoing_transfers != base.outgoing_transfers {
        let transfers = serialize_to_bson(&document.outgoing_transfers).map_err(unexpected)?;
        set.insert("outgoing_transfers", doc! { "$literal": transfers });
    }
    for (from, number) in &document.last_transfer_from {
        if base.last_transfer_from.get(from) != Some(number) {
            set.insert(format!("last_transfer_from.{from}"), *number);
        }
    }
    set.insert("journal", journal_update(entry, truncated)?);
    let mut pipeline = vec![doc! { "$set": set }];
    if !unset.is_empty() {
        pipeline.push(doc! { "$unset": unset });
    }
    let filter = doc! {
        "_id": unit.queue_id, "revision": base.revision, "dropped": { "$exists": false },
    };
    Ok(Commit { filter, pipeline, id: entry.commit_id })
}

/// Returns the expression that appends an entry to the journal and removes those `truncated`.
pub(super) fn journal_update(entry: &JournalEntry, truncated: &[i64]) -> Result<Document> {
    let entry = serialize_to_bson(entry).map_err(unexpected)?;
    let rest: Bson = if truncated.is_empty() {
        "$journal".into()
    } else {
        let remains = doc! { "$not": [{ "$in": ["$$entry.commit_id", truncated] }] };
        doc! { "$filter": { "input": "$journal", "as": "entry", "cond": remains } }.into()
    };
    let of_commit = doc! {
        "first_position": { "$add": ["$tail", 1_i64] }, "committed_at": "$$NOW",
    };
    Ok(doc! {
        "$concatArrays": [rest, [{ "$mergeObjects": [{ "$literal": entry }, of_commit] }]]
    })
}

/// Adds the changes of a group. `ready` and `delayed` are changed by addition, since concurrent
/// posts add to them without raising the revision.
fn change_group(
    id: &str,
    before: &GroupState,
    after: &GroupState,
    set: &mut Document,
    unset: &mut Vec<Bson>,
) -> Result<()> {
    let fields = |group| serialize_to_document(group).map_err(unexpected);
    let (before, after) = (fields(before)?, fields(after)?);
    for (field, value) in &after {
        let path = format!("groups.{id}.{field}");
        match (field.as_str(), before.get(field), value) {
            (_, Some(before), after) if before == after => {}
            ("ready" | "delayed", Some(Bson::Int64(before)), Bson::Int64(after)) => {
                set.insert(&path, doc! { "$add": [format!("${path}"), after - before] });
            }
            _ => drop(set.insert(path, doc! { "$literal": value })),
        }
    }
    let removed = before.keys().filter(|field| !after.contains_key(field));
    unset.extend(removed.map(|field| Bson::from(format!("groups.{id}.{field}"))));
    Ok(())
}

/// Returns the expression for a new group. Its backfill ends at the last position at the time of
/// the commit, so that no concurrent post is missed or copied twice.
fn new_group(group: &GroupState) -> Result<Document> {
    let literal = serialize_to_bson(group).map_err(unexpected)?;
    let mut parts = vec![doc! { "$literal": literal }];
    if let Some(backfill) = group.backfill {
        let after: Bson =
            if backfill.after == AT_END { "$tail".into() } else { backfill.after.into() };
        let backfill = serialize_to_bson(&backfill).map_err(unexpected)?;
        let range = doc! { "after": after, "up_to": "$tail" };
        parts.push(doc! { "backfill": { "$mergeObjects": [{ "$literal": backfill }, range] } });
    }
    Ok(doc! { "$mergeObjects": parts })
}

/// Updates the queue's document; returns `None` if its revision has changed. If the outcome of an
/// attempt is unknown, the update is sent again, and the commit id in the journal shows whether an
/// attempt succeeded.
async fn execute(
    collections: &Collections,
    queue_id: i64,
    commit: &Commit,
) -> Result<Option<QueueDocument>> {
    let updated: Option<RawDocumentBuf> = collections
        .server
        .retry(async || {
            let queues = collections.server.acked_durably::<RawDocumentBuf>(QUEUES);
            queues
                .find_one_and_update(commit.filter.clone(), commit.pipeline.clone())
                .return_document(ReturnDocument::After)
                .hint(hint(BY_ID))
                .await
        })
        .await?;
    if let Some(raw) = updated {
        return deserialize_from_slice(raw.as_bytes()).map(Some).map_err(unexpected);
    }
    let document = collections.read_latest_durable(queue_id).await?;
    Ok(document.filter(|it| it.journal.iter().any(|entry| entry.commit_id == commit.id)))
}
