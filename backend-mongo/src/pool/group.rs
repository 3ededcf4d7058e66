//! Consumer groups. A named group has a delivery state of its own in the document of its queue, and
//! gets a copy of every message.

use async_trait::async_trait;
use storage_traits::{
    Limit, Page, Result, StoreError,
    domain::{Group, GroupName, Incarnation, Metadata, QueueRef, StartPoint, Timestamp},
    pool::GroupStore,
};

use super::{
    MongoPool,
    bodies::Final,
    operation::Operation,
    queue_document::{AT_END, Backfill, GroupDefinition, GroupState},
    unit_of_work::{Progress, UnitOfWork},
};

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
        let queue_id = queue.incarnation.get();
        let definition = GroupDefinition::new(name, settings, now);
        let create = Create { queue: queue.clone(), definition, start, now };
        let created = self.0.run(queue_id, create).await?;
        let (group, new) = created.ok_or_else(|| StoreError::not_found("queue", &queue.key))?;
        self.apply_all_due(&group.as_queue, now).await?;
        Ok((group, new))
    }

    async fn get_group(&self, queue: &QueueRef, name: &GroupName) -> Result<Option<Group>> {
        let queue_id = queue.incarnation.get();
        let Some(document) = self.0.collections.read_committed(queue_id).await? else {
            return Ok(None);
        };
        let found = document.group_named(name.as_str()).and_then(|id| {
            document.group(id).and_then(|it| it.definition.as_ref()).map(|group| (id, group))
        });
        found.map(|(id, group)| group.to_group(queue, id)).transpose()
    }

    async fn list_groups(
        &self,
        queue: &QueueRef,
        after: Option<&GroupName>,
        limit: Limit,
    ) -> Result<Page<Group>> {
        let queue_id = queue.incarnation.get();
        let Some(document) = self.0.collections.read_committed(queue_id).await? else {
            return Ok(Page::empty());
        };
        let mut groups = Vec::new();
        for id in document.named_groups() {
            if let Some(group) = document.group(id).and_then(|it| it.definition.as_ref()) {
                groups.push(group.to_group(queue, id)?);
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
        let queue_id = queue.incarnation.get();
        let seek = Seek { queue: queue.clone(), name: name.clone(), to, now };
        let group = self.0.run(queue_id, seek).await?;
        if let Some(group) = &group {
            self.apply_all_due(&group.as_queue, now).await?;
        }
        Ok(group)
    }

    async fn delete_group(&self, queue: &QueueRef, name: &GroupName) -> Result<bool> {
        let delete = Delete { name: name.clone() };
        self.0.run(queue.incarnation.get(), delete).await
    }
}

struct Create {
    queue: QueueRef,
    definition: GroupDefinition,
    start: StartPoint,
    now: Timestamp,
}

#[async_trait]
impl Operation for Create {
    type Reply = Final<Option<(Group, bool)>>;

    async fn run(&self, unit: &mut UnitOfWork<'_>) -> Result<Progress<Self::Reply>> {
        let Some(document) = &unit.document else { return Ok(Progress::done(None)) };
        if let Some(id) = document.group_named(&self.definition.name)
            && let Some(existing) = document.group(id).and_then(|it| it.definition.as_ref())
        {
            return Ok(Progress::done(Some((existing.to_group(&self.queue, id)?, false))));
        }
        let id = add_group(unit, self.definition.clone(), self.start, self.now)?;
        Ok(Progress::done(Some((self.definition.to_group(&self.queue, id)?, true))))
    }
}

/// Adds a group, and returns its id. The worker copies the messages that it starts with.
fn add_group(
    unit: &mut UnitOfWork<'_>,
    definition: GroupDefinition,
    start: StartPoint,
    now: Timestamp,
) -> Result<i64> {
    let (after, since) = match start {
        StartPoint::Start => (0, i64::MIN),
        StartPoint::End => (AT_END, i64::MIN),
        StartPoint::Time(time) => (0, time.as_millis()),
        StartPoint::Sequence(sequence) => (sequence.get().saturating_sub(1), i64::MIN),
    };
    let id = Incarnation::generate_for_group().get();
    let requested_at = now.as_millis();
    let backfill = Some(Backfill { after, up_to: AT_END, since, requested_at });
    let group = GroupState { definition: Some(definition), backfill, ..GroupState::default() };
    unit.document()?.groups.insert(id.to_string(), group);
    unit.dirty = true;
    Ok(id)
}

/// Replaces a group by one with another id and starting point.
struct Seek {
    queue: QueueRef,
    name: GroupName,
    to: StartPoint,
    now: Timestamp,
}

#[async_trait]
impl Operation for Seek {
    type Reply = Final<Option<Group>>;

    async fn run(&self, unit: &mut UnitOfWork<'_>) -> Result<Progress<Self::Reply>> {
        let Some(group) = remove_group(unit, &self.name) else { return Ok(Progress::done(None)) };
        let id = add_group(unit, group.clone(), self.to, self.now)?;
        Ok(Progress::done(Some(group.to_group(&self.queue, id)?)))
    }
}

struct Delete {
    name: GroupName,
}

#[async_trait]
impl Operation for Delete {
    type Reply = Final<bool>;

    async fn run(&self, unit: &mut UnitOfWork<'_>) -> Result<Progress<Self::Reply>> {
        Ok(Progress::done(remove_group(unit, &self.name).is_some()))
    }
}

/// Removes a group, and returns its definition.
fn remove_group(unit: &mut UnitOfWork<'_>, name: &GroupName) -> Option<GroupDefinition> {
    let document = unit.document.as_mut()?;
    let id = document.group_named(name.as_str())?;
    let group = document.groups.remove(&id.to_string())?;
    unit.deleted_groups.push(id);
    unit.dirty = true;
    group.definition
}
