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
use storage_traits::Result;

use super::{
    Side,
    apply::placed,
    bucket::{Bucket, CAPACITY, CAPACITY_BYTES, NEVER},
    commit::journal,
    posts::{Answer, Post, Posts, Shape},
    record::{Entry, Placed},
    slot::{Slot, State, number},
    stores::{BUCKETS, BY_ID, QUEUES, Query, Stores, hint},
};
use crate::{
    chance,
    error::{again, unavailable, unexpected},
};

/// How many bytes of bodies are stored together; a post of more goes by itself.
const MOST_BYTES: usize = 4 << 20;
/// How many messages are stored together.
const MOST_MESSAGES: usize = 2_000;
/// How often to ask what became of a batch whose commit was not answered, and after which pauses.
const FIND_OUT: u32 = 60;
const FIND_OUT_PAUSE: Duration = Duration::from_secs(1);
/// How long buckets go without their places.
const PLACE_AFTER: Duration = Duration::from_millis(100);

fn delayed_of(slots: &[&(Slot, Vec<u8>)]) -> i64 {
    number(slots.iter().filter(|(slot, _)| slot.state == State::Delayed).count())
}

#[expect(clippy::disallowed_methods, reason = "what is to be done together has to gather")]
async fn pause(pause: Duration) {
    tokio::time::sleep(pause).await;
}

/// How many posts fit into a batch beside others.
fn fitting(posts: &[Post], others: &[Post]) -> usize {
    let mut bytes: usize = others.iter().map(|post| post.bytes).sum();
    let mut messages: usize = others.iter().map(|post| post.slots.len()).sum();
    let fits = |post: &&Post| {
        bytes += post.bytes;
        messages += post.slots.len();
        bytes <= MOST_BYTES && messages <= MOST_MESSAGES
    };
    posts.iter().take_while(fits).count()
}

/// A batch that has its positions.
pub(super) struct Committed {
    pub(super) entry: Entry,
    /// Whether one command was sent for it. If there were more, one that is late may still come,
    /// and must find the entry in the journal; it goes when it is stale.
    pub(super) once: bool,
}

/// Stores what gathers for one queue.
#[derive(Clone)]
pub(super) struct Clerk {
    pub(super) posts: Arc<Posts>,
    pub(super) side: Arc<Side>,
    pub(super) stores: Stores,
    pub(super) home: i64,
}

/// What is stored together, for one reading after the other.
struct Batch {
    token: i64,
    count: i64,
    buckets: Vec<Bucket>,
    documents: Vec<Document>,
    placed: Vec<Placed>,
    ready: i64,
    delayed: i64,
    due: i64,
}

impl Batch {
    fn new() -> Self {
        Self {
            token: chance::stamp(),
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
                    Err(error) => Err(again(error)),
                };
                first = first.map(|first| first + number(post.slots.len()));
                drop(post.reply.send(own)); // who posted may have gone
            }
        }
    }

    /// The next posts that go together; none if all are under way.
    fn next(&self) -> Option<Vec<Post>> {
        let mut desks = self.posts.desks();
        let desk = desks.get_mut(&self.home)?;
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
        let mut desks = self.posts.desks();
        let Some(desk) = desks.get_mut(&self.home) else { return Vec::new() };
        desk.waiting.retain(|post| !post.reply.is_closed());
        let count = fitting(&desk.waiting, posts);
        desk.waiting.drain(..count).collect()
    }

    async fn shape(&self) -> Result<Option<Shape>> {
        if let Some(desk) = self.posts.desks().get(&self.home)
            && let Some(shape) = &desk.shape
        {
            return Ok(Some(shape.clone()));
        }
        let Some(record) = self.stores.record(self.home).await? else { return Ok(None) };
        let shape = Shape { number: record.shape, readings: record.open_readings().into() };
        if let Some(desk) = self.posts.desks().get_mut(&self.home) {
            desk.shape = Some(shape.clone());
        }
        Ok(Some(shape))
    }

    fn forget_shape(&self) {
        if let Some(desk) = self.posts.desks().get_mut(&self.home) {
            desk.shape = None;
        }
    }

    /// Stores posts; answers the first position.
    async fn batch(&self, posts: &mut Vec<Post>) -> Answer {
        loop {
            let Some(shape) = self.shape().await? else { return Ok(None) };
            let mut batch = Batch::new();
            self.pack(posts, &shape, &mut batch)?;
            let mut term = self.stores.insert_in_term(BUCKETS, &batch.documents).await?;
            // What has gathered meanwhile shares the commit: that is what takes long.
            let late = self.gathered(posts);
            if !late.is_empty() {
                let before = batch.documents.len();
                self.pack(&late, &shape, &mut batch)?;
                posts.extend(late);
                let late_term =
                    self.stores.insert_in_term(BUCKETS, &batch.documents[before..]).await?;
                term = term.filter(|term| Some(*term) == late_term);
            }
            let committed = match self.commit(&batch, &shape).await {
                Ok(committed) => committed,
                Err(error) => {
                    // It may be committed all the same: then its messages have to be there.
                    self.stores.0.spawn(self.clone().find_out(batch));
                    return Err(error);
                }
            };
            let Some(committed) = committed else {
                // The queue is gone, or a group has come or gone.
                self.forget_shape();
                let gone = batch.buckets.iter().map(|bucket| {
                    doc! {
                        "q": { "_id": bucket.id, "home": self.home },
                        "limit": 1,
                        "hint": BY_ID,
                    }
                });
                self.stores.delete(BUCKETS, gone.collect(), false).await?;
                continue;
            };
            let first = committed.entry.first;
            if let Err(error) = self.see_to(&batch, committed, term).await {
                self.stores.0.spawn(self.clone().find_out(batch));
                return Err(error);
            }
            let Batch { count, ready, due, .. } = batch;
            let posted = super::Posted { first, count, ready, due };
            self.side.posted(self.home, &shape.readings, posted);
            return Ok(Some(first));
        }
    }

    /// Puts messages into buckets.
    fn pack(&self, posts: &[Post], shape: &Shape, batch: &mut Batch) -> Result<()> {
        let slots: Vec<&(Slot, Vec<u8>)> = posts.iter().flat_map(|post| &post.slots).collect();
        let (count, delayed) = (number(slots.len()), delayed_of(&slots));
        let due = slots.iter().map(|(slot, _)| slot.due()).min().unwrap_or(NEVER);
        let before = batch.count;
        batch.count += count;
        batch.ready += count - delayed;
        batch.delayed += delayed;
        batch.due = batch.due.min(due);
        for reading in shape.readings.iter() {
            let mut offset = before;
            let mut rest = &slots[..];
            while !rest.is_empty() {
                let mut bytes = 0;
                let fits = |(_, body): &&&(Slot, Vec<u8>)| {
                    bytes += body.len();
                    bytes <= CAPACITY_BYTES
                };
                let taken = rest.iter().take(CAPACITY).take_while(fits).count().max(1);
                let (own, others) = rest.split_at(taken);
                rest = others;
                let mut bucket = Bucket::new(self.home, *reading, 0);
                for (slot, _) in own {
                    bucket.push(slot.clone());
                }
                let bodies = own.iter().map(|(_, body)| body.clone()).collect();
                batch.documents.push(bucket.document(bodies, false)?);
                batch.placed.push(Placed {
                    bucket: bucket.id,
                    reading: *reading,
                    offset,
                    span: number(taken),
                    delayed: delayed_of(own),
                    fixed: false,
                });
                offset += number(taken);
                batch.buckets.push(bucket);
            }
        }
        Ok(())
    }

    /// Gives a batch its positions; `None` if the queue is not as it was.
    async fn commit(&self, batch: &Batch, shape: &Shape) -> Result<Option<Committed>> {
        let cleared = {
            let mut desks = self.posts.desks();
            desks.get_mut(&self.home).map(|desk| desk.done.clone()).unwrap_or_default()
        };
        let entry = Entry { token: batch.token, placed: batch.placed.clone(), ..Entry::default() };
        let mut set = doc! {
            "tail": { "$add": ["$tail", batch.count] },
            "journal": journal(&entry, &cleared)?,
        };
        for reading in shape.readings.iter() {
            for (field, count) in [("ready", batch.ready), ("delayed", batch.delayed)] {
                if count > 0 {
                    let path = format!("readings.{reading}.{field}");
                    set.insert(&path, doc! { "$add": [format!("${path}"), count] });
                }
            }
        }
        let filter = doc! {
            "_id": self.home,
            "shape": shape.number,
            "gone": { "$exists": false },
            "journal.token": { "$ne": batch.token },
        };
        let pipeline = vec![doc! { "$set": set }];
        let attempts = AtomicU32::new(0);
        let changed = self
            .stores
            .0
            .retry(async || {
                attempts.fetch_add(1, Ordering::Relaxed);
                let queues = self.stores.0.durable::<RawDocumentBuf>(QUEUES);
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
            if let Some(desk) = self.posts.desks().get_mut(&self.home) {
                desk.done.retain(|token| !cleared.contains(token));
            }
            let once = attempts.into_inner() == 1;
            return Ok(Some(Committed { entry: Entry { first, ..entry }, once }));
        }
        // It may have been committed by an attempt whose outcome was not known.
        self.committed(batch).await
    }

    /// What a batch was committed with, if it was.
    async fn committed(&self, batch: &Batch) -> Result<Option<Committed>> {
        let record = self.stores.latest(self.home).await?;
        let journal = record.map(|record| record.journal).unwrap_or_default();
        let entry = journal.into_iter().find(|it| it.token == batch.token);
        Ok(entry.map(|entry| Committed { entry, once: false }))
    }

    /// Sees to it that what was committed unknown to us can be read.
    async fn find_out(self, batch: Batch) {
        for _ in 0..FIND_OUT {
            if self.stores.0.is_closed() {
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
        if !self.stores.0.is_term(term).await? {
            self.restore(batch).await?;
        }
        let mut desks = self.posts.desks();
        let desk = desks.entry(self.home).or_default();
        desk.unplaced.push(committed);
        if !std::mem::replace(&mut desk.is_tended, true) {
            self.stores.0.spawn(self.clone().tend());
        }
        Ok(())
    }

    /// Marks buckets with their places, many at a time, and takes from the journal what is done when
    /// no post that comes does.
    async fn tend(self) {
        loop {
            pause(PLACE_AFTER).await;
            let (entries, done, is_idle) = {
                let mut desks = self.posts.desks();
                let Some(desk) = desks.get_mut(&self.home) else { return };
                let is_idle = desk.under_way == 0 && desk.waiting.is_empty();
                let entries = std::mem::take(&mut desk.unplaced);
                if entries.is_empty() && is_idle && desk.done.is_empty() {
                    desks.remove(&self.home);
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
                self.stores.clear_journal(self.home, &done).await
            } else {
                self.place(&entries).await
            };
            if let Err(error) = tended {
                let error = &error as &dyn std::error::Error;
                tracing::debug!(error, queue = self.home, "posts are still to get their places");
                if self.stores.0.is_closed() {
                    return;
                }
                let mut desks = self.posts.desks();
                let desk = desks.entry(self.home).or_default();
                desk.unplaced.extend(entries);
                desk.done.extend(done);
            }
        }
    }

    /// Marks buckets with their places.
    pub(super) async fn place(&self, batches: &[Committed]) -> Result<()> {
        let updates = batches.iter().flat_map(|batch| placed(self.home, &batch.entry)).collect();
        self.stores.update(BUCKETS, updates, true).await?;
        let tokens = batches.iter().filter(|batch| batch.once).map(|batch| batch.entry.token);
        self.posts.desks().entry(self.home).or_default().done.extend(tokens);
        Ok(())
    }

    /// Stores buckets again that are not there. They get their places as all others do.
    async fn restore(&self, batch: &Batch) -> Result<()> {
        let ids: Vec<_> = batch.placed.iter().map(|it| it.bucket).collect();
        let filter = doc! { "_id": { "$in": &ids } };
        let query = Query { filter, sort: None, index: BY_ID, limit: 0 };
        let there = self.stores.find_parts(BUCKETS, query, Some(doc! { "_id": 1 })).await?;
        let there: Vec<ObjectId> =
            there.iter().filter_map(|raw| raw.get_object_id("_id").ok()).collect();
        // What others took from the journal they have seen in its place, and perhaps consumed.
        let is_awaited = self.committed(batch).await?.is_some();
        if there.len() < ids.len() && is_awaited {
            let both = batch.placed.iter().zip(&batch.documents);
            let missing = both.filter(|(placed, _)| !there.contains(&placed.bucket));
            let missing: Vec<Document> = missing.map(|(_, document)| document.clone()).collect();
            tracing::debug!(queue = self.home, count = missing.len(), "posts are stored again");
            self.stores.insert(BUCKETS, &missing, true).await?;
        } else {
            self.stores.barrier(self.home).await?;
        }
        if self.stores.is_buried(&ids).await? {
            return Err(unavailable("it took too long to store it"));
        }
        Ok(())
    }
}
