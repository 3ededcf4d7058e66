use std::time::Duration;

use async_trait::async_trait;

use super::{Queue, ReferencePool, State};
use crate::{
    Limit, Page, Result, StoreError,
    domain::{
        Group, GroupName, Incarnation, Message, MessageId, Metadata, Origin, QueueRef, StartPoint,
        Timestamp,
    },
    pool::GroupStore,
};

impl State {
    /// Creates the delivery state of a group that starts at a point of the queue.
    fn create_delivery_state(
        &mut self,
        queue: &QueueRef,
        start: StartPoint,
        now: Timestamp,
    ) -> QueueRef {
        let wanted = |message: &&Message| match start {
            StartPoint::Start => true,
            StartPoint::End => false,
            StartPoint::Time(time) => message.posted_at >= time,
            StartPoint::Sequence(sequence) => message.id.sequence >= sequence,
        };
        let unclaimed = |message: &Message| Message {
            // The delay of a retry applies to the queue only.
            visible_at: if message.claim_count > 0 {
                message.posted_at
            } else {
                message.visible_at
            },
            claim: None,
            claim_count: 0,
            ..message.clone()
        };
        let source = &self.queues[&queue.incarnation];
        let in_queue = |message: &&Message| source.find(message.id, now).is_some();
        let retained = self.retained.get(&queue.incarnation).into_iter().flatten();
        let removed = retained.filter(|message| !in_queue(message) && message.expires_at > now);
        let all = source.unexpired(now).chain(removed);
        let mut messages: Vec<_> = all.filter(wanted).map(unclaimed).collect();
        messages.sort_by_key(|message| message.id);
        let state = Queue { messages, last_sequence: source.last_sequence, ..Queue::default() };
        let incarnation = Incarnation::generate(now);
        self.queues.insert(incarnation, state);
        QueueRef { incarnation, ..queue.clone() }
    }

    /// Returns the queue of a group.
    pub(super) fn source(&self, group: &QueueRef) -> Option<Incarnation> {
        self.groups.iter().find(|(_, found)| found.as_queue == *group).map(|((of, _), _)| *of)
    }

    /// Returns the origin of a dead letter of a queue or a group.
    pub(super) fn origin(&self, of: &QueueRef, ttl: Duration) -> Origin {
        let group = self.groups.iter().find(|(_, group)| group.as_queue == *of);
        match group {
            Some(((queue, name), _)) => Origin { queue: *queue, group: Some(name.clone()), ttl },
            None => Origin { queue: of.incarnation, group: None, ttl },
        }
    }
}

impl ReferencePool {
    /// Returns the copies of scheduled messages in the groups of a queue, by the incarnation of the
    /// group. The incarnation of the queue stands for the copy in its retention log.
    pub(super) fn scheduled_copies(
        &self,
        queue: &QueueRef,
        ids: &[MessageId],
        now: Timestamp,
    ) -> Result<Vec<(Incarnation, MessageId)>> {
        let state = self.state()?;
        let scheduled = |of: &Incarnation, id: &MessageId| {
            let message = state.queues.get(of).and_then(|queue| queue.find(*id, now));
            message.is_some_and(|m| m.visible_at > now && m.claim_count == 0)
        };
        let mut copies = Vec::new();
        for id in ids.iter().filter(|id| scheduled(&queue.incarnation, id)) {
            let groups = state.groups.iter().filter(|((of, _), _)| *of == queue.incarnation);
            let incarnations = groups.map(|(_, group)| group.as_queue.incarnation);
            copies.extend(incarnations.filter(|of| scheduled(of, id)).map(|of| (of, *id)));
            copies.push((queue.incarnation, *id));
        }
        Ok(copies)
    }

    pub(super) fn remove_copies(&self, copies: &[(Incarnation, MessageId)]) -> Result<()> {
        let mut state = self.state()?;
        for (group, id) in copies {
            if *group == id.incarnation {
                state.retained.entry(*group).or_default().retain(|message| message.id != *id);
            } else {
                state.queues.get_mut(group).unwrap().remove(&[*id]);
            }
        }
        Ok(())
    }

    pub(super) fn each_copy(
        &self,
        copies: &[(Incarnation, MessageId)],
        change: impl Fn(&mut Message),
    ) -> Result<()> {
        let mut state = self.state()?;
        for (group, id) in copies {
            let messages = if *group == id.incarnation {
                state.retained.entry(*group).or_default()
            } else {
                &mut state.queues.get_mut(group).unwrap().messages
            };
            messages.iter_mut().filter(|message| message.id == *id).for_each(&change);
        }
        Ok(())
    }
}

#[async_trait]
impl GroupStore for ReferencePool {
    async fn create_group(
        &self,
        queue: &QueueRef,
        name: &GroupName,
        start: StartPoint,
        settings: &Metadata,
        now: Timestamp,
    ) -> Result<(Group, bool)> {
        let mut state = self.state()?;
        if !state.queues.contains_key(&queue.incarnation) || state.source(queue).is_some() {
            return Err(StoreError::not_found("queue", &queue.key));
        }
        let key = (queue.incarnation, name.clone());
        if let Some(group) = state.groups.get(&key) {
            return Ok((group.clone(), false));
        }
        let as_queue = state.create_delivery_state(queue, start, now);
        let settings = settings.clone();
        let group = Group { name: name.clone(), as_queue, settings, created_at: now };
        state.groups.insert(key, group.clone());
        Ok((group, true))
    }

    async fn get_group(&self, queue: &QueueRef, name: &GroupName) -> Result<Option<Group>> {
        Ok(self.state()?.groups.get(&(queue.incarnation, name.clone())).cloned())
    }

    async fn list_groups(
        &self,
        queue: &QueueRef,
        after: Option<&GroupName>,
        limit: Limit,
    ) -> Result<Page<Group>> {
        let state = self.state()?;
        let own = |(of, name): &(Incarnation, GroupName)| {
            *of == queue.incarnation && after.is_none_or(|after| name > after)
        };
        let groups = state.groups.iter().filter(|(key, _)| own(key));
        Ok(Page::cut(groups.map(|(_, group)| group.clone()).collect(), limit))
    }

    async fn seek_group(
        &self,
        queue: &QueueRef,
        name: &GroupName,
        to: StartPoint,
        now: Timestamp,
    ) -> Result<Option<Group>> {
        let mut state = self.state()?;
        let key = (queue.incarnation, name.clone());
        let Some(mut group) = state.groups.get(&key).cloned() else { return Ok(None) };
        state.drop_queue(group.as_queue.incarnation);
        group.as_queue = state.create_delivery_state(queue, to, now);
        state.groups.insert(key, group.clone());
        Ok(Some(group))
    }

    async fn delete_group(&self, queue: &QueueRef, name: &GroupName) -> Result<bool> {
        let mut state = self.state()?;
        let group = state.groups.remove(&(queue.incarnation, name.clone()));
        if let Some(group) = &group {
            state.drop_queue(group.as_queue.incarnation);
        }
        Ok(group.is_some())
    }
}
