//! Redrives dead letters to the queues and groups that they came from.

use std::collections::{HashMap, HashSet, hash_map::Entry};

use async_trait::async_trait;
use storage_traits::{
    Limit, Page, Result,
    domain::{Origin, QueueRef, Timestamp},
    pool::{DeadLetterStore, RedriveSpec, Redriven},
    support::RedriveSchedule,
};

use super::{
    MongoPool,
    bodies::Final,
    bucket::MessageLocation,
    letters::{Bundle, restarted, send},
    loading::Scan,
    operation::Operation,
    queue_document::{Audience, QueueDocument},
    stored_message::{State, whole_seconds},
    unit_of_work::{Progress, UnitOfWork},
};

/// How many dead letters one redrive examines to find ready ones.
const MAX_EXAMINED: usize = 1_024;
/// How many buckets one query loads.
const BUCKET_PAGE: usize = 16;

#[async_trait]
impl DeadLetterStore for MongoPool {
    async fn redrive(
        &self,
        queue: &QueueRef,
        spec: RedriveSpec,
        now: Timestamp,
    ) -> Result<Redriven> {
        let nothing = Redriven { moved: 0, orphaned: 0, more: false, last_visible_at: now };
        let Some(queue_id) = self.0.owning_queue(queue).await? else { return Ok(nothing) };
        let redrive = Redrive { group_id: queue.incarnation.get(), spec, now };
        let redriven = self.0.run(queue_id, redrive).await?;
        if redriven.moved > 0
            && let Err(error) = self.deliver_transfers(queue_id).await
        {
            // The move is committed; the next claim or the sweep delivers the messages.
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, queue.id = queue_id, "cannot deliver messages; will retry");
        }
        Ok(redriven)
    }
}

struct Redrive {
    group_id: i64,
    spec: RedriveSpec,
    now: Timestamp,
}

#[async_trait]
impl Operation for Redrive {
    type Reply = Final<Redriven>;

    async fn run(&self, unit: &mut UnitOfWork<'_>) -> Result<Progress<Self::Reply>> {
        let Self { group_id, spec, now } = *self;
        let mut result = Redriven { moved: 0, orphaned: 0, more: false, last_visible_at: now };
        if !unit.has_group(group_id) {
            return Ok(Progress::done(result));
        }
        if !unit.apply_due(group_id, now).await?.done {
            return Ok(Progress::Again);
        }
        let found = ready_dead_letters(unit, group_id, spec.limit).await?;
        result.more = found.more;
        let before = Timestamp::from_millis(unit.group(group_id)?.next_redrive);
        let schedule = RedriveSchedule::new(spec.rate, before, now);
        let mut queues = HashMap::new();
        let mut bundles: Vec<Bundle> = Vec::new();
        for at in found.items {
            let origin = unit.stored(at)?.origin.as_deref().and_then(Origin::from_text);
            let Some(origin) = origin else {
                mark_orphaned(unit, at)?;
                result.orphaned += 1;
                continue;
            };
            if !origin_exists(unit, &mut queues, &origin).await? {
                mark_orphaned(unit, at)?;
                result.orphaned += 1;
                continue;
            }
            let visible_at = schedule.visible_at(result.moved);
            let message = unit.remove_message(at, now).await?;
            let message = restarted(message, None, visible_at, now, whole_seconds(origin.ttl));
            let to = origin.queue.get();
            let audience = match origin.group {
                None => Audience::Queue,
                Some(name) => Audience::Group(name.as_str().to_owned()),
            };
            let body = (at.bucket, at.offset);
            match bundles.iter_mut().find(|it| it.to == to && it.audience == audience) {
                Some(bundle) => bundle.messages.push((message, body)),
                None => bundles.push(Bundle { to, audience, messages: vec![(message, body)] }),
            }
            result.moved += 1;
            result.last_visible_at = visible_at;
        }
        for bundle in bundles {
            send(unit, bundle, now).await?;
        }
        let next = schedule.next_free(result.moved, before).as_millis();
        let group = unit.group(group_id)?;
        if group.next_redrive != next {
            group.next_redrive = next;
            unit.dirty = true;
        }
        Ok(Progress::done(result))
    }
}

/// Returns whether the queue or group that a dead letter came from still exists.
async fn origin_exists(
    unit: &mut UnitOfWork<'_>,
    queues: &mut HashMap<i64, Option<QueueDocument>>,
    origin: &Origin,
) -> Result<bool> {
    let queue_id = origin.queue.get();
    let document = match queues.entry(queue_id) {
        Entry::Occupied(known) => known.into_mut(),
        Entry::Vacant(unknown) => unknown.insert(unit.collections.read_committed(queue_id).await?),
    };
    Ok(document.as_ref().is_some_and(|document| match &origin.group {
        None => true,
        Some(name) => document.group_named(name.as_str()).is_some(),
    }))
}

/// Returns the first ready messages with an origin.
async fn ready_dead_letters(
    unit: &mut UnitOfWork<'_>,
    group_id: i64,
    limit: Limit,
) -> Result<Page<MessageLocation>> {
    let (mut found, mut examined, mut after) = (Vec::new(), 0, 0);
    let tail = unit.document()?.tail;
    let mut available: HashSet<String> = HashSet::new();
    while found.len() <= limit.get() && after < tail && examined < MAX_EXAMINED {
        let scan = Scan::DeadLetters;
        let known = unit.load_after(group_id, after, scan, BUCKET_PAGE).await?.min(tail);
        let mut dead_letters = Vec::new();
        for bucket in unit.cache.buckets_after(group_id, after) {
            let with_origin = bucket.messages.iter().filter(|(_, it)| it.origin.is_some());
            for (offset, message) in with_origin {
                let at = bucket.location(*offset);
                if at.sequence > after && at.sequence <= known {
                    dead_letters.push((at, message.state, message.key.clone()));
                }
            }
        }
        for (at, state, key) in dead_letters {
            examined += 1;
            let is_ready = match (state, key) {
                (State::Ready, _) => true,
                (State::ReadyKeyed, Some(key)) => {
                    if !available.contains(&key)
                        && unit.key_state(group_id, &key).await?.rotation.is_some()
                    {
                        available.insert(key.clone());
                    }
                    available.contains(&key)
                }
                _ => false,
            };
            if is_ready {
                found.push(at);
            }
        }
        after = known;
    }
    let mut page = Page::cut(found, limit);
    page.more |= after < tail && examined >= MAX_EXAMINED;
    Ok(page)
}

/// Makes a dead letter whose origin no longer exists an ordinary message.
fn mark_orphaned(unit: &mut UnitOfWork<'_>, at: MessageLocation) -> Result<()> {
    unit.change(at, |message| message.origin = None)?;
    unit.group(at.group_id)?.dead_letters -= 1;
    Ok(())
}
