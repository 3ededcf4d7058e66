//! Carrying out what was committed. All of it may be done twice and late, and by anybody: a change
//! looks whether a later one was there before it, and nothing is ever inserted that was deleted.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use mongodb::bson::{Document, doc, oid::ObjectId};
use storage_traits::Result;
use tokio::sync::{mpsc, watch};

use super::{
    bucket::{Change, place},
    record::Entry,
    stores::{BUCKETS, BY_ID, CLAIMS, LINES, Stores, WINDOWS},
};
use crate::error::unexpected;

/// How many entries are carried out together.
const TOGETHER: usize = 32;
/// How long to wait after a failure.
const PAUSE: Duration = Duration::from_millis(500);

/// Carries out entries of a journal, in order.
pub(super) async fn carry_out(
    stores: &Stores,
    home: i64,
    entries: &[Entry],
    durable: bool,
) -> Result<()> {
    let mut buckets: Vec<Document> = Vec::new();
    let mut emptied = Vec::new();
    let (mut claims, mut lines, mut windows) = (Vec::new(), Vec::new(), Vec::new());
    let (mut changes, mut last) = (Changes::default(), None);
    for entry in entries {
        buckets.extend(placed(home, entry));
        // What is missing between two entries was carried out already, and may have changed what the
        // first one did.
        if !entry.is_post()
            && last.replace(entry.version).is_some_and(|last| last + 1 != entry.version)
        {
            buckets.extend(std::mem::take(&mut changes).updates(home));
        }
        entry.changed.iter().for_each(|change| changes.add(change, entry.version));
        entry.emptied.iter().for_each(|id| changes.forget(*id));
        let gone = |id| doc! { "q": { "_id": id, "home": home }, "limit": 1, "hint": BY_ID };
        emptied.extend(entry.emptied.iter().map(gone));
        for claim in &entry.claims {
            let mut set = claim.clone();
            let id = set.remove("_id");
            set.insert("version", entry.version);
            let query = doc! { "_id": id, "home": home, "version": { "$lt": entry.version } };
            claims.push(doc! { "q": query, "u": { "$set": set }, "hint": BY_ID });
        }
        for line in &entry.lines {
            lines.push(replace(home, line.clone(), entry.version, false)?);
        }
        for window in &entry.windows {
            let mut window = window.clone();
            let offset = window.get_i64("offset").map_err(unexpected)?;
            window.remove("offset");
            window.insert("sequence", entry.first + offset);
            windows.push(replace(home, window, entry.version, false)?);
        }
    }
    buckets.extend(changes.updates(home));
    let in_buckets = async {
        stores.update(BUCKETS, buckets, durable).await?;
        stores.delete(BUCKETS, emptied, durable).await
    };
    tokio::try_join!(
        in_buckets,
        stores.update(CLAIMS, claims, durable),
        stores.update(LINES, lines, durable),
        stores.update(WINDOWS, windows, durable),
    )?;
    Ok(())
}

/// What is to be done to buckets: several changes of one come to one.
#[derive(Default)]
struct Changes {
    order: Vec<ObjectId>,
    changes: HashMap<ObjectId, (Document, Document, i64)>,
}

impl Changes {
    fn add(&mut self, change: &Change, version: i64) {
        let (set, unset, last) = self.changes.entry(change.bucket).or_insert_with(|| {
            self.order.push(change.bucket);
            Default::default()
        });
        for (field, value) in &change.set {
            unset.remove(field);
            set.insert(field, value.clone());
        }
        for field in &change.unset {
            set.remove(field);
            unset.insert(field, "");
        }
        *last = version;
    }

    fn forget(&mut self, bucket: ObjectId) {
        self.changes.remove(&bucket);
    }

    fn updates(mut self, home: i64) -> Vec<Document> {
        let mut updates = Vec::with_capacity(self.changes.len());
        for bucket in self.order {
            let Some((mut set, unset, version)) = self.changes.remove(&bucket) else { continue };
            set.insert("version", version);
            let mut update = doc! { "$set": set };
            if !unset.is_empty() {
                update.insert("$unset", unset);
            }
            let query = doc! { "_id": bucket, "home": home, "version": { "$lt": version } };
            updates.push(doc! { "q": query, "u": update, "hint": BY_ID });
        }
        updates
    }
}

/// Gives the buckets of an entry their places.
pub(super) fn placed(home: i64, entry: &Entry) -> Vec<Document> {
    let update = |it: &super::record::Placed| {
        let span = u32::try_from(it.span).unwrap_or(0);
        doc! {
            "q": { "_id": it.bucket, "home": home, "first": { "$exists": false } },
            "u": { "$set": place(it.reading, it.first(entry), span) },
            "hint": BY_ID,
        }
    };
    entry.placed.iter().map(update).collect()
}

/// Puts a document where none is, or an older one, or one of the same version if that is `anew`.
pub(super) fn replace(
    home: i64,
    mut document: Document,
    version: i64,
    anew: bool,
) -> Result<Document> {
    let id = document.get("_id").cloned().ok_or_else(|| unexpected("a document has no name"))?;
    document.insert("version", version);
    let before = if anew { "$lte" } else { "$lt" };
    let query = doc! { "_id": id, "home": home, "version": { before: version } };
    Ok(doc! { "q": query, "u": document, "upsert": true, "hint": BY_ID })
}

/// Carries out the entries of one lane in the background, so that nobody waits for it.
pub(super) struct Applier {
    entries: mpsc::UnboundedSender<Entry>,
    /// How many are not carried out yet.
    left: watch::Sender<usize>,
    /// Those that are, for good, and can go from the journal.
    done: Arc<Mutex<Vec<i64>>>,
}

impl Applier {
    pub(super) fn start(stores: &Stores, home: i64) -> Self {
        let (entries, received) = mpsc::unbounded_channel();
        let applier = Self { entries, left: watch::Sender::new(0), done: Arc::default() };
        let (left, done) = (applier.left.clone(), Arc::clone(&applier.done));
        stores.0.spawn(run(stores.clone(), home, received, left, done));
        applier
    }

    pub(super) fn send(&self, entry: Entry) {
        self.left.send_modify(|left| *left += 1);
        // It ends with the lane, or with the pool.
        if self.entries.send(entry).is_err() {
            self.left.send_modify(|left| *left -= 1);
        }
    }

    /// Waits until no more than so many are left.
    pub(super) async fn until(&self, most: usize) {
        // The sender lives as long as this.
        let _ = self.left.subscribe().wait_for(|left| *left <= most).await;
    }

    /// What can go from the journal.
    pub(super) fn done(&self) -> Vec<i64> {
        self.done.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// It has gone.
    pub(super) fn forget(&self, tokens: &[i64]) {
        let mut done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        done.retain(|token| !tokens.contains(token));
    }
}

#[expect(clippy::disallowed_methods, reason = "what was refused may be taken a little later")]
async fn pause() {
    tokio::time::sleep(PAUSE).await;
}

async fn run(
    stores: Stores,
    home: i64,
    mut received: mpsc::UnboundedReceiver<Entry>,
    left: watch::Sender<usize>,
    done: Arc<Mutex<Vec<i64>>>,
) {
    let mut entries = Vec::new();
    while received.recv_many(&mut entries, TOGETHER).await > 0 {
        while let Err(error) = carry_out(&stores, home, &entries, true).await {
            if stores.0.is_closed() {
                break;
            }
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                queue = home,
                "what was committed is still to be carried out"
            );
            pause().await;
        }
        let tokens = entries.iter().map(|entry| entry.token);
        if !stores.0.is_closed() {
            done.lock().unwrap_or_else(PoisonError::into_inner).extend(tokens);
        }
        left.send_modify(|left| *left -= entries.len());
        entries.clear();
    }
}
