//! The work in a lane: one step after the other.

use std::{collections::HashMap, sync::Arc, time::Duration};

use mongodb::bson::oid::ObjectId;
use storage_traits::{Result, StoreError};
use tokio::time::timeout;

use super::{
    Side,
    apply::{Applier, carry_out},
    body::Bodies,
    commit::{Committed, commit},
    group::FillUp,
    lane::{Lane, Lanes},
    operation::{End, Waiting, waiting},
    record::{Entry, Placed, Record},
    shelf::{Known, Shelf},
    step::Step,
    stores::Stores,
};
use crate::{
    chance,
    error::{again, unavailable, unexpected},
};

/// How long a lane that has nothing to do remembers its queue.
const LINGER: Duration = Duration::from_secs(1);
/// How much a lane remembers.
const MOST_REMEMBERED: usize = 512;
/// How far carrying out may lag behind committing.
const MOST_LEFT: usize = 8;
/// After how many changed messages a step takes no more operations.
const MOST_TOUCHED: usize = 2_000;
/// How long to wait, at the most, when somebody else was faster.
const PAUSE: Duration = Duration::from_millis(4);
const MAX_PAUSE: Duration = Duration::from_millis(100);

/// Works in one lane.
pub(super) struct Worker {
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
    /// Whether the last step filled a group.
    fills: bool,
}

impl Worker {
    pub(super) fn new(
        lanes: &Arc<Lanes>,
        side: &Arc<Side>,
        stores: &Stores,
        home: i64,
        lane: &Arc<Lane>,
    ) -> Self {
        Self {
            lanes: Arc::clone(lanes),
            side: Arc::clone(side),
            stores: stores.clone(),
            home,
            lane: Arc::clone(lane),
            shelf: Shelf::default(),
            epoch: None,
            tail: 0,
            own: 0,
            stale: Vec::new(),
            lost: Vec::new(),
            fills: false,
        }
    }

    /// Does what waits, until nothing has come for a while.
    pub(super) async fn run(mut self) {
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
            if self.lanes.close_lane(self.home, &self.lane) {
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
        let Err((failure, operations)) = self.step(operations).await else { return };
        let one_failed = operations.len() > 1 && !failure.was_sent;
        if one_failed && matches!(failure.error, StoreError::Unexpected { .. }) {
            for operation in operations {
                if let Err((failure, alone)) = self.step(vec![operation]).await {
                    for operation in alone {
                        operation.fail(again(&failure.error));
                    }
                }
            }
            return;
        }
        for operation in operations {
            operation.fail(again(&failure.error));
        }
    }

    /// Makes a step, again until nobody else is faster.
    async fn step(
        &mut self,
        mut operations: Vec<Box<dyn Waiting>>,
    ) -> std::result::Result<(), (Failure, Vec<Box<dyn Waiting>>)> {
        let mut pause = PAUSE;
        let deadline = tokio::time::Instant::now() + self.stores.0.timeout();
        loop {
            let failure = match self.attempt(&mut operations).await {
                Ok(true) => return Ok(()),
                Ok(false) if tokio::time::Instant::now() < deadline => None,
                Ok(false) => Some(unavailable("others are always faster").into()),
                Err(failure) => Some(failure),
            };
            self.forget();
            for operation in &mut operations {
                operation.reset();
            }
            if let Some(failure) = failure {
                return Err((failure, operations));
            }
            pause_for(pause.mul_f64(chance::fraction())).await;
            pause = MAX_PAUSE.min(pause * 2);
        }
    }

    fn forget(&mut self) {
        self.shelf = Shelf::default();
        self.epoch = None;
        self.stale.clear();
        self.lost.clear();
    }

    /// Works operations out and commits them; `false` if somebody else was faster.
    async fn attempt(
        &mut self,
        operations: &mut Vec<Box<dyn Waiting>>,
    ) -> std::result::Result<bool, Failure> {
        self.applier().until(MOST_LEFT).await;
        if self.shelf.len() > MOST_REMEMBERED {
            self.applier().until(0).await;
            self.shelf = Shelf::default();
        }
        let record = self.stores.record(self.home).await?;
        let hole = self.catch_up(record.as_ref()).await?;
        let fills = record.iter().flat_map(|record| &record.readings);
        let mut fills =
            fills.filter_map(|(number, reading)| Some((number.parse().ok()?, reading.fill?)));
        // A group that is being filled takes turns with what else there is to do.
        self.fills = !self.fills;
        if self.fills
            && let Some((reading, fill)) = fills.next()
        {
            if hole.is_some_and(|hole| hole <= fill.up_to) {
                return Ok(false);
            }
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
    ) -> std::result::Result<bool, Failure> {
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
            step.shelf.known = Known::default();
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
        if let (Some(bodies), false) = (&bodies, step.dirty) {
            self.answer(operations, &wanted, bodies, (i64::MAX, 0));
            return Ok(true);
        }
        let applier = self.lane.applier.get_or_init(|| Applier::start(&self.stores, self.home));
        let mut cleared = applier.done();
        cleared.append(&mut self.stale);
        let (committed, bodies) = if let Some(bodies) = bodies {
            (commit(&mut step, &cleared).await, Ok(bodies))
        } else {
            tokio::join!(commit(&mut step, &cleared), self.stores.bodies(&wanted))
        };
        let Committed::Yes(committed) = committed.map_err(Failure::sent)? else {
            return Ok(false);
        };
        let (record, entry) = *committed;
        applier.forget(&cleared);
        let shift = settle_in(&mut step, &record, &entry);
        self.own += step.given_out();
        self.side.count(step.tally);
        self.side.tell(&step, entry.version);
        entry.emptied.iter().for_each(|id| self.shelf.let_go(*id));
        self.epoch = Some(entry.version);
        applier.send(entry);
        let bodies = bodies.map_err(Failure::sent)?;
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
        let (come, missing) = self.take_in(record).await?;
        // Messages that others have posted and given their places are to be looked for.
        if record.tail - self.tail != come + self.own {
            self.shelf.known.due.clear();
        }
        (self.tail, self.own) = (record.tail, 0);
        self.clean_up(record, &missing).await?;
        let first = |(token, placed): &(i64, Placed)| {
            let lost = self.stale.contains(token);
            let entry = record.journal.iter().find(|entry| entry.token == *token);
            entry.filter(|_| !lost).map(|entry| placed.first(entry))
        };
        Ok(missing.iter().filter_map(first).min())
    }

    /// Takes in what was posted and has no place yet; answers how many positions of the queue that
    /// is, and what is not to be found.
    async fn take_in(&mut self, record: &Record) -> Result<(i64, Vec<(i64, Placed)>)> {
        let (mut come, mut missing) = (0, Vec::new());
        let unknown = |placed: &&Placed| {
            // With a reading its buckets go.
            !self.shelf.has(placed.bucket) && record.reading(placed.reading).is_some()
        };
        let named: Vec<ObjectId> = record
            .journal
            .iter()
            .flat_map(|entry| entry.placed.iter().filter(unknown).map(|placed| placed.bucket))
            .collect();
        if named.is_empty() {
            return Ok((come, missing));
        }
        let loaded = Step::new(&self.stores, self.home, None, &mut self.shelf, None)
            .load_named(&named)
            .await?;
        let mut loaded: HashMap<_, _> =
            loaded.into_iter().map(|bucket| (bucket.id, bucket)).collect();
        for entry in &record.journal {
            for placed in entry.placed.iter().filter(|placed| named.contains(&placed.bucket)) {
                let Some(mut bucket) = loaded.remove(&placed.bucket) else {
                    missing.push((entry.token, *placed));
                    continue;
                };
                (bucket.reading, bucket.first) = (placed.reading, placed.first(entry));
                come += if placed.reading == self.home { placed.span } else { 0 };
                self.shelf.add(bucket);
            }
        }
        Ok((come, missing))
    }

    /// Sees to entries whose node has gone: what they place gets its place, and what was never stored
    /// is given up.
    async fn clean_up(&mut self, record: &Record, missing: &[(i64, Placed)]) -> Result<()> {
        (self.stale, self.lost) = (Vec::new(), Vec::new());
        let time =
            if missing.is_empty() { record.newest() } else { Some(self.stores.0.time().await?) };
        let stale = time.map(|time| record.stale(time)).unwrap_or_default();
        if stale.is_empty() {
            return Ok(());
        }
        carry_out(&self.stores, self.home, &stale, true).await?;
        for entry in stale {
            let mut is_whole = true;
            for (_, placed) in missing.iter().filter(|(token, _)| *token == entry.token) {
                if self.stores.bury(self.home, placed.bucket).await? {
                    self.lost.push((placed.reading, placed.delayed, placed.span));
                } else {
                    // It has come after all.
                    is_whole = false;
                }
            }
            if is_whole {
                self.stale.push(entry.token);
            }
        }
        Ok(())
    }
}

/// Works operations out; answers the bodies that they want, unless they can be read while the step is
/// committed. Those of messages that it takes off anybody may remove as soon as it is.
async fn work_out(
    step: &mut Step<'_>,
    operations: &mut [Box<dyn Waiting>],
) -> Result<Option<Bodies>> {
    for operation in operations {
        operation.run(step).await?;
        if step.touched > MOST_TOUCHED {
            // The rest is for the next step.
            break;
        }
    }
    if step.dirty && !step.takes_off {
        return Ok(None);
    }
    let bodies = step.stores.bodies(&step.wanted).await?;
    let are_here = step.wanted.iter().all(|place| bodies.contains_key(place));
    if are_here { Ok(Some(bodies)) } else { Err(unexpected("a body is missing")) }
}

/// Why a step was not made.
struct Failure {
    error: StoreError,
    /// Whether it may have been committed all the same.
    was_sent: bool,
}

impl Failure {
    fn sent(error: StoreError) -> Self {
        Self { error, was_sent: true }
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self { error, was_sent: false }
    }
}

/// Puts what a step has made onto the shelf, in the positions that it got; answers from which
/// position on, and by how much, these are others than was thought.
fn settle_in(step: &mut Step<'_>, record: &Record, entry: &Entry) -> (i64, i64) {
    let assumed = step.base.as_ref().map_or(0, |record| record.tail) + 1;
    let by = entry.first - assumed;
    for mut new in std::mem::take(&mut step.new) {
        step.posted.insert(new.bucket.reading);
        if !new.fixed {
            new.bucket.first += by;
        }
        step.shelf.add(new.bucket);
    }
    for name in &step.windows {
        if let Some(Some(window)) = step.shelf.windows.get_mut(name)
            && window.sequence >= assumed
        {
            window.sequence += by;
        }
    }
    debug_assert!(record.epoch >= entry.version, "a commit raises the epoch");
    (assumed, by)
}

#[expect(clippy::disallowed_methods, reason = "others are given the time to end their step")]
async fn pause_for(pause: Duration) {
    tokio::time::sleep(pause).await;
}
