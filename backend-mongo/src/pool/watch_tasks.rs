//! The background tasks behind watches.
//!
//! A node publishes its own commits to its watches directly. Commits of other nodes show in the
//! queue's document: a replica set pushes its changes through a change stream. Without a replica
//! set the documents of the watched queues are polled, with one query for all.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use async_trait::async_trait;
use futures_util::StreamExt as _;
use mongodb::{
    bson::{Document, doc},
    change_stream::{ChangeStream, event::ChangeStreamEvent},
};
use storage_traits::{Result, domain::Timestamp, support::WatchDriver};
use tokio::time::timeout;

use super::{
    bodies::Final,
    events::QueueProgress,
    indexes::QUEUES,
    operation::Operation,
    shared::Shared,
    unit_of_work::{Progress, UnitOfWork},
};
use crate::server::Topology;

const POLL_INTERVAL: Duration = WatchDriver::<i64>::POLL_INTERVAL;
/// How many watched groups are checked at a time.
const CONCURRENT_CHECKS: usize = 64;

/// Applies what is due in a watched group, and notifies its watches if messages can be claimed.
pub(super) async fn observe(
    shared: &Shared,
    queue_id: i64,
    group_id: i64,
    now: Timestamp,
) -> Result<()> {
    let Some(observation) = shared.run(queue_id, Observe { group_id, now }).await? else {
        shared.events.notify_dropped(group_id);
        return Ok(());
    };
    shared.events.record_progress(queue_id, observation.progress);
    let claimable = usize::try_from(observation.claimable).unwrap_or(usize::MAX);
    shared.events.notify_claimable(group_id, claimable);
    shared.events.schedule_no_later_than(group_id, observation.due);
    Ok(())
}

struct Observe {
    group_id: i64,
    now: Timestamp,
}

struct Observation {
    claimable: i64,
    /// When the next message is due.
    due: i64,
    progress: QueueProgress,
}

#[async_trait]
impl Operation for Observe {
    type Reply = Final<Option<Observation>>;

    async fn run(&self, unit: &mut UnitOfWork<'_>) -> Result<Progress<Self::Reply>> {
        let Self { group_id, now } = *self;
        if !unit.has_group(group_id) {
            return Ok(Progress::done(None));
        }
        if !unit.apply_due(group_id, now).await?.done {
            return Ok(Progress::Again);
        }
        let group = unit.group(group_id)?;
        let ready_keyed = if group.available_keys > 0 { group.ready_keyed } else { 0 };
        let claimable = group.ready + ready_keyed;
        let known = unit.cache.loaded_up_to.due.get(&group_id).copied().unwrap_or(i64::MIN);
        let due = unit.cache.next_due(group_id).min(known.saturating_add(1));
        let document = unit.document()?;
        let progress = QueueProgress { revision: document.revision, tail: document.tail };
        Ok(Progress::done(Some(Observation { claimable, due, progress })))
    }
}

/// Starts the tasks. They end when the pool is closed or dropped.
pub(super) fn start(shared: &Arc<Shared>) {
    shared.collections.server.spawn(check_due_groups(Arc::downgrade(shared)));
    shared.collections.server.spawn(follow_other_nodes(Arc::downgrade(shared)));
}

/// Checks watched groups when a message in them is due.
async fn check_due_groups(weak: Weak<Shared>) {
    while let Some(shared) = weak.upgrade() {
        let events = Arc::clone(&shared.events);
        if events.watches.is_stopped() {
            return;
        }
        events.watches.untrack_idle();
        let now = events.watches.now();
        let checks = events.take_due().into_iter().map(|(queue_id, group_id)| {
            let shared = &shared;
            async move { observe_or_retry(shared, queue_id, group_id, now).await }
        });
        let checks = futures_util::stream::iter(checks);
        checks.buffer_unordered(CONCURRENT_CHECKS).collect::<()>().await;
        // The pool can be dropped while this task waits.
        drop(shared);
        events.watches.wait(POLL_INTERVAL).await;
    }
}

async fn observe_or_retry(shared: &Shared, queue_id: i64, group_id: i64, now: Timestamp) {
    if let Err(error) = observe(shared, queue_id, group_id, now).await {
        let error = &error as &dyn std::error::Error;
        tracing::debug!(error, queue.id = queue_id, "cannot read a watched queue; will retry");
        shared.events.schedule_retry(group_id);
    }
}

type Stream = ChangeStream<ChangeStreamEvent<Document>>;

/// Notifies the watches of this node of what other nodes commit.
async fn follow_other_nodes(weak: Weak<Shared>) {
    let mut stream: Option<Stream> = None;
    loop {
        let Some(shared) = weak.upgrade() else { return };
        if shared.events.watches.is_stopped() || shared.collections.server.is_closed() {
            return;
        }
        let has_watches = !shared.events.watched_queues().is_empty();
        if !has_watches {
            stream = None;
        } else if stream.is_none() && shared.collections.server.topology() != Topology::Standalone {
            stream = open_stream(&shared).await;
            // The stream contains only later changes.
            poll(&shared).await;
        }
        let Some(changes) = &mut stream else {
            if has_watches {
                poll(&shared).await;
            }
            drop(shared);
            wait_for_next_poll().await;
            continue;
        };
        drop(shared);
        let event = timeout(POLL_INTERVAL, changes.next()).await;
        let Some(shared) = weak.upgrade() else { return };
        match event {
            Err(_) => {}
            Ok(Some(Ok(event))) => on_event(&shared, &event).await,
            Ok(Some(Err(_)) | None) => {
                stream = None;
                poll(&shared).await;
            }
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "a server without a change stream is polled")]
async fn wait_for_next_poll() {
    tokio::time::sleep(POLL_INTERVAL).await;
}

async fn open_stream(shared: &Shared) -> Option<Stream> {
    let pipeline = [
        doc! { "$match": { "operationType": { "$in": ["update", "replace", "delete"] } } },
        doc! { "$project": {
            "operationType": 1, "ns": 1, "documentKey": 1,
            "updateDescription.updatedFields.revision": 1,
            "updateDescription.updatedFields.tail": 1,
            "updateDescription.updatedFields.dropped": 1,
            "updateDescription.removedFields": { "$literal": [] },
        } },
    ];
    let server = &shared.collections.server;
    let queues = server.for_change_stream::<Document>(QUEUES);
    match timeout(server.timeout(), queues.watch().pipeline(pipeline)).await {
        Ok(Ok(stream)) => Some(stream),
        Ok(Err(error)) => {
            let error = &error as &dyn std::error::Error;
            tracing::debug!(error, "cannot open a change stream; will retry");
            None
        }
        Err(_) => None,
    }
}

async fn on_event(shared: &Shared, event: &ChangeStreamEvent<Document>) {
    let queue_id = event.document_key.as_ref().and_then(|key| key.get_i64("_id").ok());
    let Some(queue_id) = queue_id else { return };
    let fields = event.update_description.as_ref().map(|it| &it.updated_fields);
    let number = |name| fields.and_then(|fields| fields.get_i64(name).ok());
    on_progress(shared, queue_id, number("revision"), number("tail")).await;
}

/// Notifies the watches of a queue, if another node has committed to it.
async fn on_progress(shared: &Shared, queue_id: i64, revision: Option<i64>, tail: Option<i64>) {
    let groups = shared.events.watched_groups(queue_id);
    if groups.is_empty() {
        return;
    }
    let observed = shared.events.observe_progress(queue_id, revision, tail);
    if !observed.changed {
        return;
    }
    let now = shared.events.watches.now();
    for group_id in groups {
        if observed.posted {
            shared.events.notify_posted(group_id);
        }
        observe_or_retry(shared, queue_id, group_id, now).await;
    }
}

/// Reads the progress of all watched queues.
async fn poll(shared: &Shared) {
    let queue_ids = shared.events.watched_queues();
    if queue_ids.is_empty() {
        return;
    }
    let found = match shared.collections.read_progress(&queue_ids).await {
        Ok(found) => found,
        Err(error) => {
            let error = &error as &dyn std::error::Error;
            tracing::debug!(error, "cannot read the watched queues; will retry");
            return;
        }
    };
    let mut existing = Vec::new();
    for raw in &found {
        let number = |name| raw.get_i64(name).ok();
        let Some(queue_id) = number("_id") else { continue };
        existing.push(queue_id);
        on_progress(shared, queue_id, number("revision"), number("tail")).await;
    }
    for queue_id in queue_ids.into_iter().filter(|queue_id| !existing.contains(queue_id)) {
        let groups = shared.events.watched_groups(queue_id);
        for group_id in groups {
            shared.events.notify_dropped(group_id);
        }
    }
}
