//! Consumer groups. A group is a reading of its own in the document of its queue, and gets a copy of
//! every message.

use async_trait::async_trait;
use storage_traits::{
    Limit, Page, Result, StoreError,
    domain::{Group, GroupName, Incarnation, Metadata, QueueRef, StartPoint, Timestamp},
    pool::GroupStore,
};

use super::{
    MongoPool,
    append::{come, place},
    body::Answer,
    operation::Operation,
    record::{Fill, GroupRecord, Reading},
    slot::Slot,
    step::{Progress, STEP, Scan, Step},
};
use crate::error::unexpected;

/// How many buckets are copied from at a time.
const FILL_BUCKETS: usize = 8;
/// Stands for the end of the queue when the group is committed.
pub(super) const AT_END: i64 = i64::MAX;

#[async_trait]
impl GroupStore for MongoPool {
    async fn create_group(
        &self,
        queue: &QueueRef,
        name: &GroupName,
        start: StartPoint,
        settings: &Metadata,
        now: Timestamp,
    ) -> Result<(Group, bool)> {
        let home = queue.incarnation.get();
        let group = GroupRecord::new(name, settings, now);
        let create = Create { queue: queue.clone(), group, start, now };
        let created = self.run(home, create).await?;
        let (group, new) = created.ok_or_else(|| StoreError::not_found("queue", &queue.key))?;
        self.settle_all(&group.as_queue, now).await?;
        Ok((group, new))
    }

    async fn get_group(&self, queue: &QueueRef, name: &GroupName) -> Result<Option<Group>> {
        let Some(record) = self.stores().record(queue.incarnation.get()).await? else {
            return Ok(None);
        };
        let found = record.group(name.as_str()).and_then(|number| {
            record.reading(number).and_then(|it| it.group.as_ref()).map(|group| (number, group))
        });
        found.map(|(number, group)| group.group(queue, number)).transpose()
    }

    async fn list_groups(
        &self,
        queue: &QueueRef,
        after: Option<&GroupName>,
        limit: Limit,
    ) -> Result<Page<Group>> {
        let Some(record) = self.stores().record(queue.incarnation.get()).await? else {
            return Ok(Page::empty());
        };
        let mut groups = Vec::new();
        for number in record.groups() {
            if let Some(group) = record.reading(number).and_then(|it| it.group.as_ref()) {
                groups.push(group.group(queue, number)?);
            }
        }
        groups.retain(|group| after.is_none_or(|after| group.name > *after));
        groups.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(Page::cut(groups, limit))
    }

    async fn seek_group(
        &self,
        queue: &QueueRef,
        name: &GroupName,
        to: StartPoint,
        now: Timestamp,
    ) -> Result<Option<Group>> {
        let home = queue.incarnation.get();
        let seek = Seek { queue: queue.clone(), name: name.clone(), to, now };
        let group = self.run(home, seek).await?;
        if let Some(group) = &group {
            self.settle_all(&group.as_queue, now).await?;
        }
        Ok(group)
    }

    async fn delete_group(&self, queue: &QueueRef, name: &GroupName) -> Result<bool> {
        let delete = Delete { name: name.clone() };
        self.run(queue.incarnation.get(), delete).await
    }
}

impl Answer for Option<(Group, bool)> {}

struct Create {
    queue: QueueRef,
    group: GroupRecord,
    start: StartPoint,
    now: Timestamp,
}

#[async_trait]
impl Operation for Create {
    type Answer = Option<(Group, bool)>;

    async fn run(&self, step: &mut Step<'_>) -> Result<Progress<Self::Answer>> {
        let Some(record) = &step.record else { return Ok(Progress::Done(None)) };
        if let Some(number) = record.group(&self.group.name)
            && let Some(group) = record.reading(number).and_then(|it| it.group.as_ref())
        {
            return Ok(Progress::Done(Some((group.group(&self.queue, number)?, false))));
        }
        let number = begin(step, self.group.clone(), self.start, self.now)?;
        Ok(Progress::Done(Some((self.group.group(&self.queue, number)?, true))))
    }
}

/// A new reading of a queue. What it begins with is copied when it is settled.
fn begin(
    step: &mut Step<'_>,
    group: GroupRecord,
    start: StartPoint,
    now: Timestamp,
) -> Result<i64> {
    let (after, since) = match start {
        StartPoint::Start => (0, i64::MIN),
        StartPoint::End => (AT_END, i64::MIN),
        StartPoint::Time(time) => (0, time.as_millis()),
        StartPoint::Sequence(sequence) => (sequence.get().saturating_sub(1), i64::MIN),
    };
    let number = Incarnation::generate_for_group().get();
    let fill = Some(Fill { after, up_to: AT_END, since, now: now.as_millis() });
    let reading = Reading { group: Some(group), fill, ..Reading::default() };
    step.record()?.readings.insert(number.to_string(), reading);
    step.dirty = true;
    Ok(number)
}

struct Seek {
    queue: QueueRef,
    name: GroupName,
    to: StartPoint,
    now: Timestamp,
}

#[async_trait]
impl Operation for Seek {
    type Answer = Option<Group>;

    async fn run(&self, step: &mut Step<'_>) -> Result<Progress<Self::Answer>> {
        let Some(group) = end(step, &self.name) else { return Ok(Progress::Done(None)) };
        let number = begin(step, group.clone(), self.to, self.now)?;
        Ok(Progress::Done(Some(group.group(&self.queue, number)?)))
    }
}

struct Delete {
    name: GroupName,
}

#[async_trait]
impl Operation for Delete {
    type Answer = bool;

    async fn run(&self, step: &mut Step<'_>) -> Result<Progress<bool>> {
        Ok(Progress::Done(end(step, &self.name).is_some()))
    }
}

/// Ends the reading of a group; answers what its owner set.
fn end(step: &mut Step<'_>, name: &GroupName) -> Option<GroupRecord> {
    let record = step.record.as_mut()?;
    let number = record.group(name.as_str())?;
    let reading = record.readings.remove(&number.to_string())?;
    step.ended.push(number);
    step.dirty = true;
    reading.group
}

/// Copies what a reading begins with from the queue that it reads.
pub(super) struct FillUp {
    pub(super) reading: i64,
    pub(super) now: Timestamp,
}

#[async_trait]
impl Operation for FillUp {
    type Answer = ();

    const APPENDS: bool = true;

    async fn run(&self, step: &mut Step<'_>) -> Result<Progress<()>> {
        let Self { reading, now } = *self;
        if !step.knows(reading) {
            return Ok(Progress::Done(()));
        }
        let Some(fill) = step.reading(reading)?.fill else { return Ok(Progress::Done(())) };
        if step.hole.is_some_and(|hole| hole <= fill.up_to) {
            return Ok(Progress::Again);
        }
        let sources: Vec<i64> =
            [Some(step.home), step.record()?.log()].into_iter().flatten().collect();
        let mut known = fill.up_to;
        if fill.after < fill.up_to {
            for source in &sources {
                let here = step.load_beyond(*source, fill.after, Scan::All, FILL_BUCKETS).await?;
                known = known.min(here);
            }
        }
        // Of a message that the queue has and retains, what it has.
        let mut found: Vec<(i64, (mongodb::bson::oid::ObjectId, u32), Slot)> = Vec::new();
        for source in &sources {
            for bucket in step.shelf.beyond(*source, fill.after) {
                for (offset, slot) in &bucket.slots {
                    let sequence = bucket.sequence(*offset);
                    if sequence > fill.after && sequence <= known {
                        found.push((sequence, (bucket.id, *offset), slot.clone()));
                    }
                }
            }
        }
        found.sort_by_key(|(sequence, ..)| *sequence);
        found.dedup_by_key(|(sequence, ..)| *sequence);
        if found.len() > STEP {
            found.truncate(STEP);
            known = found.last().map_or(known, |(sequence, ..)| *sequence);
        }
        found.retain(|(_, _, slot)| !slot.is_over(now) && slot.posted_at >= fill.since);
        let wanted: Vec<_> = found.iter().map(|(_, place, _)| *place).collect();
        let bodies = step.stores.bodies(&wanted).await?;
        for (sequence, from, slot) in found {
            let body = bodies.get(&from).ok_or_else(|| unexpected("a body is missing"))?;
            let copy = afresh(slot, now);
            come(step, reading, &copy, now).await?;
            place(step, reading, sequence, copy, body, true);
        }
        let rest = Fill { after: known, ..fill };
        step.reading(reading)?.fill = (known < fill.up_to).then_some(rest);
        step.dirty = true;
        Ok(if known < fill.up_to { Progress::Again } else { Progress::Done(()) })
    }
}

/// A message as one that nobody has tried yet gets it. What waits for a retry elsewhere is here a
/// message like any.
fn afresh(slot: Slot, now: Timestamp) -> Slot {
    let was_tried = slot.claim_count > 0;
    let mut copy = Slot { held_until: None, claim_count: 0, ..slot };
    copy.set_claim(None);
    if was_tried {
        copy.set_visible_at(copy.posted_at);
    }
    copy.state = copy.first_state(now);
    copy
}
