//! What is done at the desk of a queue, for [`Posts`].

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use mongodb::{
    bson::{Document, RawDocumentBuf, doc, oid::ObjectId},
    options::ReturnDocument,
};
use storage_traits::{Result, random::random_i64};

use super::{
    apply::placement_updates,
    bucket::{Bucket, CAPACITY, CAPACITY_BYTES, NEVER},
    collections::{Collections, Query},
    commit::journal_update,
    events::{EventSink, PostedBatch},
    indexes::{BUCKETS, BY_ID, QUEUES, hint},
    post_queue::{Answer, Committed, Desks, Post, Shape},
    queue_document::{JournalEntry, Placement},
    stored_message::{State, StoredMessage, to_i64},
};
use crate::error::{unavailable, unexpected};

/// How many bytes of bodies are stored together; a post of more goes by itself.
const MOST_BYTES: usize = 4 << 20;
/// How many messages are stored together.
const MOST_MESSAGES: usize = 2_000;
/// How often to ask what became of a batch whose commit was not answered, and after which pauses.
const FIND_OUT: u32 = 60;
const FIND_OUT_PAUSE: Duration = Duration::from_secs(1);
/// How long buckets go without their places.
const PLACE_AFTER: Duration = Duration::from_millis(100);

fn delayed_of(messages: &[&(StoredMessage, Vec<u8>)]) -> i64 {
    to_i64(messages.iter().filter(|(message, _)| message.state == State::Delayed).count())
}

#[expect(clippy::disallowed_methods, reason = "what is to be done together has to gather")]
async fn pause(pause: Duration) {
    tokio::time::sleep(pause).await;
}

/// How many posts fit into a batch beside others.
fn fitting(posts: &[Post], others: &[Post]) -> usize {
    let mut bytes: usize = others.iter().map(|post| post.bytes).sum();
    let mut messages: usize = others.iter().map(|post| post.messages.len()).sum();
    let fits = |post: &&Post| {
        bytes += post.bytes;
        messages += post.messages.len();
        bytes <= MOST_BYTES && messages <= MOST_MESSAGES
    };
    posts.iter().take_while(fits).count()
}

/// Stores what gathers for one queue.
#[derive(Clone)]
pub(super) struct Clerk {
    pub(super) desks: Arc<Desks>,
    pub(super) events: Arc<EventSink>,
    pub(super) collections: Collections,
    pub(super) queue_id: i64,
}

/// What is stored together, for one reading after the other.
struct Batch {
    commit_id: i64,
    count: i64,
    buckets: Vec<Bucket>,
    documents: Vec<Document>,
    placed: Vec<Placement>,
    ready: i64,
    delayed: i64,
    due: i64,
}

impl Batch {
    fn new() -> Self {
        Self {
            commit_id: random_i64(),
            count: 0,
            buckets: Vec::new(),
            documents: Vec::new(),
            placed: Vec::new(),
            ready: 0,
            delayed: 0,
            due: NEVER,
        }
    }
}

impl Clerk {
    /// Stores what has gathered, until nothing has.
    pub(super) async fn run(self) {
        while let Some(mut posts) = self.next() {
            let answer = self.batch(&mut posts).await;
            let mut first = match &answer {
                Ok(first) => *first,
                Err(_) => None,
            };
            for post in posts {
                let own = match &answer {
                    Ok(_) => Ok(first),
                    Err(error) => Err(error.to_shared_copy()),
                };
                first = first.map(|first| first + to_i64(post.messages.len()));
                drop(post.reply.send(own)); // who posted may have gone
            }
        }
    }

    /// The next posts that go together; none if all are under way.
    fn next(&self) -> Option<Vec<Post>> {
        let mut desks = self.desks.lock();
        let desk = desks.get_mut(&self.queue_id)?;
        desk.waiting.retain(|post| !post.reply.is_closed());
        if desk.waiting.is_empty() {
            desk.under_way -= 1;
            return None;
        }
        let count = fitting(&desk.waiting, &[]).max(1);
        Some(desk.waiting.drain(..count).collect())
    }

    /// What waits and can be stored together with these posts.
    fn gathered(&self, posts: &[Post]) -> Vec<Post> {
        let mut desks = self.desks.lock();
        let Some(desk) = desks.get_mut(&self.queue_id) else { return Vec::new() };
        desk.waiting.retain(|post| !post.reply.is_closed());
        let count = fitting(&desk.waiting, posts);
        desk.waiting.drain(..count).collect()
    }

    async fn shape(&self) -> Result<Option<Shape>> {
        if let Some(desk) = self.desks.lock().get(&self.queue_id)
            && let Some(shape) = &desk.shape
        {
            return Ok(Some(shape.clone()));
        }
        let Some(record) = self.collections.read_committed(self.queue_id).await? else {
            return Ok(None);
        };
        let shape =
            Shape { number: record.groups_version, group_ids: record.receiving_groups().into() };
        if let Some(desk) = self.desks.lock().get_mut(&self.queue_id) {
            desk.shape = Some(shape.clone());
        }
        Ok(Some(shape))
    }

    fn forget_shape(&self) {
        if let Some(desk) = self.desks.lock().get_mut(&self.queue_id) {
            desk.shape = None;
        }
    }

    /// Stores posts; answers the first position.
    async fn batch(&self, posts: &mut Vec<Post>) -> Answer {
        loop {
            let Some(shape) = self.shape().await? else { return Ok(None) };
            let mut batch = Batch::new();
            self.pack(posts, &shape, &mut batch)?;
            let mut term = self.collections.insert_on_primary(BUCKETS, &batch.documents).await?;
            // What has gathered meanwhile shares the commit: that is what takes long.
            let late = self.gathered(posts);
            if !late.is_empty() {
                let before = batch.documents.len();
                self.pack(&late, &shape, &mut batch)?;
                posts.extend(late);
                let late_term =
                    self.collections.insert_on_primary(BUCKETS, &batch.documents[before..]).await?;
                term = term.filter(|term| Some(*term) == late_term);
            }
            let committed = match self.commit(&batch, &shape).await {
                Ok(committed) => committed,
                Err(error) => {
                    // It may be committed all the same: then its messages have to be there.
                    self.collections.server.spawn(self.clone().find_out(batch));
                    return Err(error);
                }
            };
            let Some(committed) = committed else {
                // The queue is gone, or a group has come or gone.
                self.forget_shape();
                let gone = batch.buckets.iter().map(|bucket| {
                    doc! {
                        "q": { "_id": bucket.id, "queue_id": self.queue_id },
                        "limit": 1,
                        "hint": BY_ID,
                    }
                });
                self.collections.delete(BUCKETS, gone.collect(), false).await?;
                continue;
            };
            let first = committed.entry.first_position;
            if let Err(error) = self.see_to(&batch, committed, term).await {
                self.collections.server.spawn(self.clone().find_out(batch));
                return Err(error);
            }
            let Batch { count, ready, due, .. } = batch;
            let posted = PostedBatch { first, count, ready, due };
            self.events.publish_posts(self.queue_id, &shape.group_ids, posted);
            return Ok(Some(first));
        }
    }

    /// Puts messages into buckets.
    fn pack(&self, posts: &[Post], shape: &Shape, batch: &mut Batch) -> Result<()> {
        let messages: Vec<&(StoredMessage, Vec<u8>)> =
            posts.iter().flat_map(|post| &post.messages).collect();
        let (count, delayed) = (to_i64(messages.len()), delayed_of(&messages));
        let due =
            messages.iter().map(|(message, _)| message.next_transition()).min().unwrap_or(NEVER);
        let before = batch.count;
        batch.count += count;
        batch.ready += count - delayed;
        batch.delayed += delayed;
        batch.due = batch.due.min(due);
        for group_id in shape.group_ids.iter() {
            let mut offset = before;
            let mut rest = &messages[..];
            while !rest.is_empty() {
                let mut bytes = 0;
                let fits = |(_, body): &&&(StoredMessage, Vec<u8>)| {
                    bytes += body.len();
                    bytes <= CAPACITY_BYTES
                };
                let taken = rest.iter().take(CAPACITY).take_while(fits).count().max(1);
                let (own, others) = rest.split_at(taken);
                rest = others;
                let mut bucket = Bucket::new(self.queue_id, *group_id, 0);
                for (message, _) in own {
                    bucket.push(message.clone());
                }
                let bodies = own.iter().map(|(_, body)| body.clone()).collect();
                batch.documents.push(bucket.document(bodies)?);
                batch.placed.push(Placement {
                    bucket: bucket.id,
                    group_id: *group_id,
                    offset,
                    span: to_i64(taken),
                    delayed: delayed_of(own),
                    absolute: false,
                });
                offset += to_i64(taken);
                batch.buckets.push(bucket);
            }
        }
        Ok(())
    }

    /// Gives a batch its positions; `None` if the queue is not as it was.
    async fn commit(&self, batch: &Batch, shape: &Shape) -> Result<Option<Committed>> {
        let cleared = {
            let mut desks = self.desks.lock();
            desks.get_mut(&self.queue_id).map(|desk| desk.done.clone()).unwrap_or_default()
        };
        let entry = JournalEntry {
            commit_id: batch.commit_id,
            placements: batch.placed.clone(),
            ..JournalEntry::default()
        };
        let mut set = doc! {
            "tail": { "$add": ["$tail", batch.count] },
            "journal": journal_update(&entry, &cleared)?,
        };
        for group_id in shape.group_ids.iter() {
            for (field, count) in [("ready", batch.ready), ("delayed", batch.delayed)] {
                if count > 0 {
                    let path = format!("groups.{group_id}.{field}");
                    set.insert(&path, doc! { "$add": [format!("${path}"), count] });
                }
            }
        }
        let filter = doc! {
            "_id": self.queue_id,
            "groups_version": shape.number,
            "dropped": { "$exists": false },
            "journal.commit_id": { "$ne": batch.commit_id },
        };
        let pipeline = vec![doc! { "$set": set }];
        let attempts = AtomicU32::new(0);
        let changed = self
            .collections
            .server
            .retry(async || {
                attempts.fetch_add(1, Ordering::Relaxed);
                let queues = self.collections.server.acked_durably::<RawDocumentBuf>(QUEUES);
                queues
                    .find_one_and_update(filter.clone(), pipeline.clone())
                    .return_document(ReturnDocument::Before)
                    .projection(doc! { "tail": 1 })
                    .hint(hint(BY_ID))
                    .await
            })
            .await?;
        if let Some(before) = changed {
            let first = before.get_i64("tail").map_err(unexpected)? + 1;
            if let Some(desk) = self.desks.lock().get_mut(&self.queue_id) {
                desk.done.retain(|commit_id| !cleared.contains(commit_id));
            }
            let once = attempts.into_inner() == 1;
            return Ok(Some(Committed {
                entry: JournalEntry { first_position: first, ..entry },
                once,
            }));
        }
        // It may have been committed by an attempt whose outcome was not known.
        self.committed(batch).await
    }

    /// What a batch was committed with, if it was.
    async fn committed(&self, batch: &Batch) -> Result<Option<Committed>> {
        let record = self.collections.read_latest_durable(self.queue_id).await?;
        let journal = record.map(|record| record.journal).unwrap_or_default();
        let entry = journal.into_iter().find(|it| it.commit_id == batch.commit_id);
        Ok(entry.map(|entry| Committed { entry, once: false }))
    }

    /// Sees to it that what was committed unknown to us can be read.
    async fn find_out(self, batch: Batch) {
        for _ in 0..FIND_OUT {
            if self.collections.server.is_closed() {
                return;
            }
            let found = match self.committed(&batch).await {
                Ok(Some(committed)) => self.see_to(&batch, committed, None).await.is_ok(),
                // A command that is late may still come.
                Ok(None) | Err(_) => false,
            };
            if found {
                return;
            }
            pause(FIND_OUT_PAUSE).await;
        }
    }

    /// Makes sure that the buckets of a batch are there, and lets them get their places.
    async fn see_to(
        &self,
        batch: &Batch,
        committed: Committed,
        term: Option<ObjectId>,
    ) -> Result<()> {
        if !self.collections.server.is_same_primary(term).await? {
            self.restore(batch).await?;
        }
        let mut desks = self.desks.lock();
        let desk = desks.entry(self.queue_id).or_default();
        desk.unplaced.push(committed);
        if !std::mem::replace(&mut desk.is_tended, true) {
            self.collections.server.spawn(self.clone().tend());
        }
        Ok(())
    }

    /// Marks buckets with their places, many at a time, and takes from the journal what is done
    /// when no post that comes does.
    async fn tend(self) {
        loop {
            pause(PLACE_AFTER).await;
            let (entries, done, is_idle) = {
                let mut desks = self.desks.lock();
                let Some(desk) = desks.get_mut(&self.queue_id) else { return };
                let is_idle = desk.under_way == 0 && desk.waiting.is_empty();
                let entries = std::mem::take(&mut desk.unplaced);
                if entries.is_empty() && is_idle && desk.done.is_empty() {
                    desks.remove(&self.queue_id);
                    return;
                }
                let is_idle = is_idle && entries.is_empty();
                (
                    entries,
                    if is_idle { std::mem::take(&mut desk.done) } else { Vec::new() },
                    is_idle,
                )
            };
            let tended = if is_idle {
                self.collections.truncate_journal(self.queue_id, &done).await
            } else {
                self.place(&entries).await
            };
            if let Err(error) = tended {
                let error = &error as &dyn std::error::Error;
                tracing::debug!(
                    error,
                    queue.id = self.queue_id,
                    "cannot assign positions to posted messages; will retry"
                );
                if self.collections.server.is_closed() {
                    return;
                }
                let mut desks = self.desks.lock();
                let desk = desks.entry(self.queue_id).or_default();
                desk.unplaced.extend(entries);
                desk.done.extend(done);
            }
        }
    }

    /// Marks buckets with their places.
    pub(super) async fn place(&self, batches: &[Committed]) -> Result<()> {
        let updates = batches
            .iter()
            .flat_map(|batch| placement_updates(self.queue_id, &batch.entry))
            .collect();
        self.collections.update(BUCKETS, updates, true).await?;
        let commit_ids =
            batches.iter().filter(|batch| batch.once).map(|batch| batch.entry.commit_id);
        self.desks.lock().entry(self.queue_id).or_default().done.extend(commit_ids);
        Ok(())
    }

    /// Stores buckets again that are not there. They get their places as all others do.
    async fn restore(&self, batch: &Batch) -> Result<()> {
        let ids: Vec<_> = batch.placed.iter().map(|it| it.bucket).collect();
        let filter = doc! { "_id": { "$in": &ids } };
        let query = Query { filter, sort: None, index: BY_ID, limit: 0 };
        let there =
            self.collections.find_projected(BUCKETS, query, Some(doc! { "_id": 1 })).await?;
        let there: Vec<ObjectId> =
            there.iter().filter_map(|raw| raw.get_object_id("_id").ok()).collect();
        // What others took from the journal they have seen in its place, and perhaps consumed.
        let is_awaited = self.committed(batch).await?.is_some();
        if there.len() < ids.len() && is_awaited {
            let both = batch.placed.iter().zip(&batch.documents);
            let missing = both.filter(|(placed, _)| !there.contains(&placed.bucket));
            let missing: Vec<Document> = missing.map(|(_, document)| document.clone()).collect();
            tracing::debug!(
                queue.id = self.queue_id,
                count = missing.len(),
                "inserting posted messages again"
            );
            self.collections.insert(BUCKETS, &missing, true).await?;
        } else {
            self.collections.majority_barrier(self.queue_id).await?;
        }
        if self.collections.is_tombstoned(&ids).await? {
            return Err(unavailable("it took too long to store it"));
        }
        Ok(())
    }
}
