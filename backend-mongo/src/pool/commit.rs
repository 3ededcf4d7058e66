//! The commit of a step: one change of the queue's document, if nobody else has changed it since.

use std::collections::HashSet;

use mongodb::{
    bson::{
        Bson, Document, RawDocumentBuf, deserialize_from_slice, doc, oid::ObjectId,
        serialize_to_bson,
    },
    options::ReturnDocument,
};
use storage_traits::Result;

use super::{
    apply::replace,
    group::AT_END,
    record::{Entry, Placed, Reading, Record},
    step::Step,
    stores::{BUCKETS, BY_ID, CLAIMS, PARCELS, QUEUES, REFUSE, Stores, hint},
};
use crate::{chance, error::unexpected};

/// How a commit ended.
pub(super) enum Committed {
    /// The queue as it is now, and what is to be carried out.
    Yes(Box<(Record, Entry)>),
    /// Somebody else was faster: nothing was changed.
    No,
}

/// What a commit does.
pub(super) struct Commit {
    filter: Document,
    pipeline: Vec<Document>,
    token: i64,
}

/// Commits a step; `cleared` are the entries that can go from the journal.
pub(super) async fn commit(step: &mut Step<'_>, cleared: &[i64]) -> Result<Committed> {
    let entry = entry(step, cleared)?;
    let commit = build(step, &entry, cleared)?;
    prepare(step).await?;
    let mut claims = Vec::with_capacity(step.claims.len());
    for claim in &step.claims {
        let claim = mongodb::bson::serialize_to_document(claim).map_err(unexpected)?;
        // What an attempt that came to nothing has written is replaced.
        claims.push(replace(step.home, claim, entry.version, true)?);
    }
    // A claim that is written down for nothing is nobody's; one that is not is not answered.
    let (committed, written) = tokio::join!(
        run(&step.stores, step.home, &commit),
        step.stores.update(CLAIMS, claims, true)
    );
    let Some(record) = committed? else { return Ok(Committed::No) };
    written?;
    let own = record.journal.iter().find(|it| it.token == entry.token).cloned();
    let own = own.ok_or_else(|| unexpected("the journal has lost an entry"))?;
    Ok(Committed::Yes(Box::new((record, own))))
}

/// Stores what the commit refers to.
async fn prepare(step: &Step<'_>) -> Result<()> {
    let mut buckets = Vec::with_capacity(step.new.len());
    for new in &step.new {
        buckets.push(new.bucket.document(new.bodies.clone(), false)?);
    }
    let home = step.home;
    let refuse = step.ended.iter().map(|reading| {
        doc! { "_id": ObjectId::new(), "home": home, "reading": reading, "due": 0_i64 }
    });
    let refuse: Vec<_> = refuse.collect();
    tokio::try_join!(
        step.stores.insert(BUCKETS, &buckets, true),
        step.stores.insert(PARCELS, &step.parcels, true),
        step.stores.insert(REFUSE, &refuse, true),
    )?;
    Ok(())
}

/// What is to be carried out when the step is committed.
fn entry(step: &mut Step<'_>, cleared: &[i64]) -> Result<Entry> {
    let base = step.base.as_ref().ok_or_else(|| unexpected("an unknown queue was changed"))?;
    let first = base.tail + 1;
    let stays = base.journal.iter().filter(|entry| !cleared.contains(&entry.token));
    let named: HashSet<ObjectId> =
        stays.flat_map(|entry| entry.placed.iter().map(|it| it.bucket)).collect();
    let mut entry = Entry { token: chance::stamp(), version: base.epoch + 1, ..Entry::default() };
    for new in &step.new {
        let bucket = &new.bucket;
        entry.placed.push(Placed {
            bucket: bucket.id,
            reading: bucket.reading,
            offset: if new.fixed { bucket.first } else { bucket.first - first },
            span: i64::from(bucket.span),
            delayed: 0,
            fixed: new.fixed,
        });
    }
    for id in std::mem::take(&mut step.changed) {
        let Some(bucket) = step.shelf.bucket_mut(id) else { continue };
        let stays = !bucket.slots.is_empty() || named.contains(&id);
        if stays && bucket.is_changed() {
            entry.changed.push(bucket.take_change()?);
        }
    }
    // One that the journal still names is kept until it does not: who posted it may look for it.
    entry.emptied = step.shelf.empty().filter(|id| !named.contains(id)).collect();
    for place in &step.lines {
        if let Some(Some(line)) = step.shelf.lines.get(place) {
            entry.lines.push(line.document()?);
        }
    }
    for name in &step.windows {
        if let Some(Some(window)) = step.shelf.windows.get(name) {
            let mut document = mongodb::bson::serialize_to_document(window).map_err(unexpected)?;
            document.remove("sequence");
            document.insert("offset", window.sequence - first);
            entry.windows.push(document);
        }
    }
    entry.claims = step.changed_claims.iter().map(super::beside::ClaimRecord::change).collect();
    Ok(entry)
}

fn build(step: &Step<'_>, entry: &Entry, cleared: &[i64]) -> Result<Commit> {
    let (Some(base), Some(record)) = (&step.base, &step.record) else {
        return Err(unexpected("an unknown queue was changed"));
    };
    let mut set = doc! { "epoch": entry.version };
    let mut unset = Vec::new();
    if record.tail != base.tail {
        set.insert("tail", doc! { "$add": ["$tail", record.tail - base.tail] });
    }
    for (number, reading) in &record.readings {
        match base.readings.get(number) {
            Some(before) if before == reading => {}
            Some(before) => changed(number, before, reading, &mut set, &mut unset)?,
            None => drop(set.insert(format!("readings.{number}"), begun(reading)?)),
        }
    }
    let ended = base.readings.keys().filter(|number| !record.readings.contains_key(*number));
    unset.extend(ended.map(|number| Bson::from(format!("readings.{number}"))));
    if !record.readings.keys().eq(base.readings.keys()) {
        let numbers = record.readings.keys().map(|number| number.parse::<i64>());
        let numbers = numbers.collect::<std::result::Result<Vec<_>, _>>().map_err(unexpected)?;
        set.insert("reading_ids", numbers);
        set.insert("shape", base.shape + 1);
    }
    if record.leaving != base.leaving {
        let leaving = serialize_to_bson(&record.leaving).map_err(unexpected)?;
        set.insert("leaving", doc! { "$literal": leaving });
    }
    for (from, number) in &record.letters_from {
        if base.letters_from.get(from) != Some(number) {
            set.insert(format!("letters_from.{from}"), *number);
        }
    }
    set.insert("journal", journal(entry, cleared)?);
    let mut pipeline = vec![doc! { "$set": set }];
    if !unset.is_empty() {
        pipeline.push(doc! { "$unset": unset });
    }
    let filter = doc! { "_id": step.home, "epoch": base.epoch, "gone": { "$exists": false } };
    Ok(Commit { filter, pipeline, token: entry.token })
}

/// The journal with one entry more, and without those that can go.
pub(super) fn journal(entry: &Entry, cleared: &[i64]) -> Result<Document> {
    let entry = serialize_to_bson(entry).map_err(unexpected)?;
    let rest: Bson = if cleared.is_empty() {
        "$journal".into()
    } else {
        let stays = doc! { "$not": [{ "$in": ["$$entry.token", cleared] }] };
        doc! { "$filter": { "input": "$journal", "as": "entry", "cond": stays } }.into()
    };
    let placed = doc! { "first": { "$add": ["$tail", 1_i64] }, "at": "$$NOW" };
    Ok(doc! {
        "$concatArrays": [rest, [{ "$mergeObjects": [{ "$literal": entry }, placed] }]]
    })
}

/// What has changed in a reading. Posts add to some of its counters at the same time.
fn changed(
    number: &str,
    before: &Reading,
    reading: &Reading,
    set: &mut Document,
    unset: &mut Vec<Bson>,
) -> Result<()> {
    let fields = |reading| mongodb::bson::serialize_to_document(reading).map_err(unexpected);
    let (before, after) = (fields(before)?, fields(reading)?);
    for (field, value) in &after {
        let path = format!("readings.{number}.{field}");
        match (field.as_str(), before.get(field), value) {
            (_, Some(before), after) if before == after => {}
            ("ready" | "delayed", Some(Bson::Int64(before)), Bson::Int64(after)) => {
                set.insert(&path, doc! { "$add": [format!("${path}"), after - before] });
            }
            _ => drop(set.insert(path, doc! { "$literal": value })),
        }
    }
    let gone = before.keys().filter(|field| !after.contains_key(field));
    unset.extend(gone.map(|field| Bson::from(format!("readings.{number}.{field}"))));
    Ok(())
}

/// A reading that begins: with all that was posted before it is committed.
fn begun(reading: &Reading) -> Result<Document> {
    let literal = serialize_to_bson(reading).map_err(unexpected)?;
    let mut parts = vec![doc! { "$literal": literal }];
    if let Some(fill) = reading.fill {
        let after: Bson = if fill.after == AT_END { "$tail".into() } else { fill.after.into() };
        let fill = serialize_to_bson(&fill).map_err(unexpected)?;
        let ends = doc! { "after": after, "up_to": "$tail" };
        parts.push(doc! { "fill": { "$mergeObjects": [{ "$literal": fill }, ends] } });
    }
    Ok(doc! { "$mergeObjects": parts })
}

/// Makes the change; `None` if the queue is not as it was. One whose outcome is not known is made
/// again, and is known by its token.
async fn run(stores: &Stores, home: i64, commit: &Commit) -> Result<Option<Record>> {
    let changed: Option<RawDocumentBuf> = stores
        .0
        .retry(async || {
            let queues = stores.0.durable::<RawDocumentBuf>(QUEUES);
            queues
                .find_one_and_update(commit.filter.clone(), commit.pipeline.clone())
                .return_document(ReturnDocument::After)
                .hint(hint(BY_ID))
                .await
        })
        .await?;
    if let Some(raw) = changed {
        return deserialize_from_slice(raw.as_bytes()).map(Some).map_err(unexpected);
    }
    let record = stores.latest(home).await?;
    Ok(record.filter(|record| record.journal.iter().any(|it| it.token == commit.token)))
}
