//! Lanes: the operations on one queue that a node has to do, one step after the other. What gathers
//! while a step is under way is the next one.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use mongodb::bson::oid::ObjectId;
use storage_traits::{Result, StoreError};
use tokio::{sync::Notify, time::timeout};

use super::{
    Side,
    apply::{Applier, carry_out},
    body::Bodies,
    commit::{Committed, commit},
    group::FillUp,
    operation::{End, Operation, Waiting, waiting},
    record::{Entry, Record},
    shelf::Shelf,
    step::Step,
    stores::Stores,
};
use crate::{
    chance,
    error::{again, overloaded, unavailable, unexpected},
};

/// How many operations share a step at the most.
const MOST_TOGETHER: usize = 64;
/// How many operations may wait for one queue.
const MOST_WAITING: usize = 4_096;
/// How long a lane that has nothing to do remembers its queue.
const LINGER: Duration = Duration::from_secs(1);
/// How much a lane remembers.
const MOST_REMEMBERED: usize = 512;
/// How far carrying out may lag behind committing.
const MOST_LEFT: usize = 32;
/// How long to wait, at the most, when somebody else was faster.
const PAUSE: Duration = Duration::from_millis(4);
const MAX_PAUSE: Duration = Duration::from_millis(100);

/// The lanes of a node.
#[derive(Default)]
pub(super) struct Lanes(Mutex<HashMap<i64, Arc<Lane>>>);

/// What waits for one queue.
#[derive(Default)]
struct Lane {
    waiting: Mutex<VecDeque<Box<dyn Waiting>>>,
    comes: Notify,
    applier: std::sync::OnceLock<Applier>,
}

impl Lane {
    fn waiting(&self) -> MutexGuard<'_, VecDeque<Box<dyn Waiting>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next operations that can share a step: those that append do not mix with others, since
    /// what they append is not to be found before they are committed.
    fn take(&self) -> Vec<Box<dyn Waiting>> {
        let mut waiting = self.waiting();
        waiting.retain(|operation| !operation.is_given_up());
        let Some(appends) = waiting.front().map(|first| first.appends()) else { return Vec::new() };
        let alike = waiting.iter().take_while(|it| it.appends() == appends);
        let count = alike.take(MOST_TOGETHER).count();
        waiting.drain(..count).collect()
    }

    /// Those that have to go on come first again.
    fn put_back(&self, operations: Vec<Box<dyn Waiting>>) {
        let mut waiting = self.waiting();
        operations.into_iter().rev().for_each(|operation| waiting.push_front(operation));
    }
}

impl Lanes {
    fn lanes(&self) -> MutexGuard<'_, HashMap<i64, Arc<Lane>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does an operation when its turn comes.
    pub(super) async fn run<O: Operation>(
        self: &Arc<Self>,
        side: &Arc<Side>,
        stores: &Stores,
        home: i64,
        operation: O,
    ) -> Result<O::Answer> {
        if stores.0.is_closed() {
            return Err(unavailable("the pool is closed"));
        }
        let (operation, answer) = waiting(operation);
        if !self.push(side, stores, home, operation) {
            return Err(overloaded());
        }
        // A step ends in that time, but it may have to be made again.
        match timeout(stores.0.timeout() * 2, answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(unavailable("the pool is closed")),
            Err(_) => Err(unavailable("no answer in time")),
        }
    }

    fn push(
        self: &Arc<Self>,
        side: &Arc<Side>,
        stores: &Stores,
        home: i64,
        operation: Box<dyn Waiting>,
    ) -> bool {
        let mut lanes = self.lanes();
        if let Some(lane) = lanes.get(&home) {
            let mut waiting = lane.waiting();
            if waiting.len() >= MOST_WAITING {
                return false;
            }
            waiting.push_back(operation);
            drop(waiting);
            lane.comes.notify_one();
            return true;
        }
        let lane = Arc::<Lane>::default();
        lane.waiting().push_back(operation);
        lanes.insert(home, Arc::clone(&lane));
        let worker = Worker {
            lanes: Arc::clone(self),
            side: Arc::clone(side),
            stores: stores.clone(),
            home,
            lane,
            shelf: Shelf::default(),
            epoch: None,
            tail: 0,
            own: 0,
            stale: Vec::new(),
            lost: Vec::new(),
        };
        tokio::spawn(worker.run());
        true
    }

    /// Waits until all that was committed here is carried out.
    pub(super) async fn flush(&self, home: i64) {
        let lane = self.lanes().get(&home).cloned();
        if let Some(applier) = lane.as_ref().and_then(|lane| lane.applier.get()) {
            applier.until(0).await;
        }
    }

    /// Waits until all lanes have come to rest.
    pub(super) async fn flush_all(&self) {
        let homes: Vec<i64> = self.lanes().keys().copied().collect();
        for home in homes {
            self.flush(home).await;
        }
    }
}

/// Works in one lane.
struct Worker {
    lanes: Arc<Lanes>,
    side: Arc<Side>,
    stores: Stores,
    home: i64,
    lane: Arc<Lane>,
    shelf: Shelf,
    /// The epoch in which the shelf is true.
    epoch: Option<i64>,
    /// Up to which position all that was posted is known.
    tail: i64,
    /// How many positions were given out here since.
    own: i64,
    /// Entries of others that were carried out here for good, and can go from the journal.
    stale: Vec<i64>,
    /// Messages of theirs that were never stored: in which reading, and how many of them are
    /// delayed, of how many.
    lost: Vec<(i64, i64, i64)>,
}

impl Worker {
    async fn run(mut self) {
        loop {
            let operations = self.lane.take();
            if !operations.is_empty() {
                self.steps(operations).await;
                continue;
            }
            if timeout(LINGER, self.lane.comes.notified()).await.is_ok() {
                continue;
            }
            self.tidy().await;
            let mut lanes = self.lanes.lanes();
            if self.lane.waiting().is_empty() {
                lanes.remove(&self.home);
                return;
            }
        }
    }

    fn applier(&self) -> &Applier {
        self.lane.applier.get_or_init(|| Applier::start(&self.stores, self.home))
    }

    /// Takes what is carried out from the journal.
    async fn tidy(&mut self) {
        let Some(applier) = self.lane.applier.get() else { return };
        applier.until(0).await;
        let done = applier.done();
        if done.is_empty() || self.stores.0.is_closed() {
            return;
        }
        match self.stores.clear_journal(self.home, &done).await {
            Ok(()) => applier.forget(&done),
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::debug!(error, queue = self.home, "the journal is not tidied up");
            }
        }
    }

    /// Makes a step of operations; if one of them makes it fail, each by itself.
    async fn steps(&mut self, operations: Vec<Box<dyn Waiting>>) {
        let Err((error, mut operations)) = self.step(operations).await else { return };
        if operations.len() > 1 && matches!(error, StoreError::Unexpected { .. }) {
            for operation in operations {
                if let Err((error, alone)) = self.step(vec![operation]).await {
                    alone.into_iter().for_each(|operation| operation.fail(again(&error)));
                }
            }
            return;
        }
        operations.drain(..).for_each(|operation| operation.fail(again(&error)));
    }

    /// Makes a step, again until nobody else is faster.
    async fn step(
        &mut self,
        mut operations: Vec<Box<dyn Waiting>>,
    ) -> std::result::Result<(), (StoreError, Vec<Box<dyn Waiting>>)> {
        let mut pause = PAUSE;
        let deadline = tokio::time::Instant::now() + self.stores.0.timeout();
        loop {
            let ended = self.attempt(&mut operations).await;
            match ended {
                Ok(true) => return Ok(()),
                Ok(false) => {
                    self.forget();
                    operations.iter_mut().for_each(|operation| operation.reset());
                    if tokio::time::Instant::now() > deadline {
                        let error = unavailable("others are always faster");
                        return Err((error, operations));
                    }
                    pause_for(pause.mul_f64(chance::fraction())).await;
                    pause = MAX_PAUSE.min(pause * 2);
                }
                Err(error) => {
                    self.forget();
                    operations.iter_mut().for_each(|operation| operation.reset());
                    return Err((error, operations));
                }
            }
        }
    }

    fn forget(&mut self) {
        self.shelf = Shelf::default();
        self.epoch = None;
        self.stale.clear();
        self.lost.clear();
    }

    /// Works operations out and commits them; `false` if somebody else was faster.
    async fn attempt(&mut self, operations: &mut Vec<Box<dyn Waiting>>) -> Result<bool> {
        self.applier().until(MOST_LEFT).await;
        if self.shelf.len() > MOST_REMEMBERED {
            self.applier().until(0).await;
            self.shelf = Shelf::default();
        }
        let record = self.stores.record(self.home).await?;
        let hole = self.catch_up(record.as_ref()).await?;
        let fills = record.iter().flat_map(|record| &record.readings);
        let fill =
            fills.filter_map(|(number, reading)| Some((number.parse().ok()?, reading.fill?)));
        if let Some((reading, fill)) = fill.clone().next() {
            let now = storage_traits::domain::Timestamp::from_millis(fill.now);
            // Nobody waits for the answer but this.
            let (filling, _answer) = waiting(FillUp { reading, now });
            let mut filling = vec![filling];
            if !self.make(record, hole, &mut filling).await? {
                return Ok(false);
            }
            self.lane.put_back(std::mem::take(operations));
            return Ok(true);
        }
        self.make(record, hole, operations).await
    }

    async fn make(
        &mut self,
        record: Option<Record>,
        hole: Option<i64>,
        operations: &mut Vec<Box<dyn Waiting>>,
    ) -> Result<bool> {
        let epoch = record.as_ref().map(|record| record.epoch);
        let mut step = Step::new(&self.stores, self.home, record, &mut self.shelf, hole);
        for (reading, delayed, count) in self.lost.drain(..) {
            if step.knows(reading) {
                let counters = step.reading(reading)?;
                counters.delayed -= delayed;
                counters.ready -= count - delayed;
                step.dirty = true;
            }
        }
        let worked_out = work_out(&mut step, operations).await;
        if hole.is_some() {
            step.shelf.known = super::shelf::Known::default();
        }
        // What others have changed since the queue's document was read may make no sense with it. A
        // commit finds that out by itself.
        let makes_sense = match &worked_out {
            Ok(bodies) => bodies.is_none() || hole.is_none(),
            Err(error) => !matches!(error, StoreError::Unexpected { .. }),
        };
        if !makes_sense && self.stores.epoch(self.home).await? != epoch {
            return Ok(false);
        }
        let bodies = worked_out?;
        let wanted = std::mem::take(&mut step.wanted);
        if let Some(bodies) = bodies {
            self.answer(operations, &wanted, &bodies, (i64::MAX, 0));
            return Ok(true);
        }
        let applier = self.lane.applier.get_or_init(|| Applier::start(&self.stores, self.home));
        let mut cleared = applier.done();
        cleared.append(&mut self.stale);
        let (committed, bodies) =
            tokio::try_join!(commit(&mut step, &cleared), self.stores.bodies(&wanted))?;
        let Committed::Yes(committed) = committed else { return Ok(false) };
        let (record, entry) = *committed;
        applier.forget(&cleared);
        let base = step.base.as_ref().map_or(0, |record| record.tail);
        let shift = (base + 1, entry.first - (base + 1));
        self.side.count(step.tally);
        self.side.tell(&step, &record);
        let own = step.record.as_ref().map_or(0, |record| record.tail) - base;
        for mut new in std::mem::take(&mut step.new) {
            if !new.fixed {
                new.bucket.first += shift.1;
            }
            step.shelf.add(new.bucket);
        }
        for name in &step.windows {
            if let Some(Some(window)) = step.shelf.windows.get_mut(name)
                && window.sequence >= shift.0
            {
                window.sequence += shift.1;
            }
        }
        entry.emptied.iter().for_each(|id| self.shelf.drop_empty(*id));
        self.epoch = Some(entry.version);
        self.own += own;
        applier.send(entry);
        self.answer(operations, &wanted, &bodies, shift);
        Ok(true)
    }

    /// Tells those that are done; the others go on.
    fn answer(
        &self,
        operations: &mut Vec<Box<dyn Waiting>>,
        wanted: &[(ObjectId, u32)],
        bodies: &Bodies,
        shift: (i64, i64),
    ) {
        let end = End { wanted, bodies, shift };
        let left = std::mem::take(operations).into_iter().filter_map(|it| it.finish(&end));
        self.lane.put_back(left.collect());
    }

    /// Sees what others have done since the last step; answers the first position whose message is
    /// not to be found.
    async fn catch_up(&mut self, record: Option<&Record>) -> Result<Option<i64>> {
        let Some(record) = record else {
            self.forget();
            return Ok(None);
        };
        if self.epoch != Some(record.epoch) {
            self.shelf = Shelf::default();
            // What gets a place is found by name; the rest has to be there for good, since what is
            // changed from here on hides it from those who carry it out later.
            let changes = |entry: &&Entry| !entry.is_post();
            let entries: Vec<Entry> = record.journal.iter().filter(changes).cloned().collect();
            carry_out(&self.stores, self.home, &entries, true).await?;
            self.epoch = Some(record.epoch);
            (self.tail, self.own) = (record.tail, 0);
        }
        let stale = record.stale();
        carry_out(&self.stores, self.home, &stale, true).await?;
        self.stale = stale.iter().map(|entry| entry.token).collect();
        self.lost.clear();
        let mut hole: Option<i64> = None;
        let missing = |entry: &Entry| -> Vec<ObjectId> {
            let placed = entry.placed.iter().map(|placed| placed.bucket);
            placed.filter(|bucket| !self.shelf.has(*bucket)).collect()
        };
        let named: Vec<ObjectId> = record.journal.iter().flat_map(missing).collect();
        let mut come = 0;
        if !named.is_empty() {
            let loaded = Step::new(&self.stores, self.home, None, &mut self.shelf, None)
                .load_named(&named)
                .await?;
            let mut loaded: HashMap<_, _> =
                loaded.into_iter().map(|bucket| (bucket.id, bucket)).collect();
            for entry in &record.journal {
                for placed in entry.placed.iter().filter(|placed| named.contains(&placed.bucket)) {
                    let first = placed.first(entry);
                    let Some(mut bucket) = loaded.remove(&placed.bucket) else {
                        if self.stale.contains(&entry.token) {
                            self.lost.push((placed.reading, placed.delayed, placed.span));
                            continue;
                        }
                        hole = Some(hole.map_or(first, |hole| hole.min(first)));
                        continue;
                    };
                    (bucket.reading, bucket.first) = (placed.reading, first);
                    come += if placed.reading == self.home { placed.span } else { 0 };
                    self.shelf.add(bucket);
                }
            }
        }
        // Messages that others have posted and given their places are to be looked for.
        if record.tail - self.tail != come + self.own {
            self.shelf.known.due_to.clear();
        }
        (self.tail, self.own) = (record.tail, 0);
        Ok(hole)
    }
}

/// Works operations out; the bodies that are wanted, if nothing is to be committed.
async fn work_out(
    step: &mut Step<'_>,
    operations: &mut [Box<dyn Waiting>],
) -> Result<Option<Bodies>> {
    for operation in operations {
        operation.run(step).await?;
    }
    if step.dirty {
        return Ok(None);
    }
    let bodies = step.stores.bodies(&step.wanted).await?;
    let are_here = step.wanted.iter().all(|place| bodies.contains_key(place));
    if are_here { Ok(Some(bodies)) } else { Err(unexpected("a body is missing")) }
}

#[expect(clippy::disallowed_methods, reason = "others are given the time to end their step")]
async fn pause_for(pause: Duration) {
    tokio::time::sleep(pause).await;
}
