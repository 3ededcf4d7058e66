//! Letters: messages that go from one queue to another.
//!
//! No commit spans two queues, so letters travel: the commit that takes them out of their queue
//! names a parcel that holds them, and they are delivered by a step of the other queue, which
//! remembers how far it has got. Whoever finds a parcel that was left behind delivers it.

use async_trait::async_trait;
use mongodb::bson::{
    Binary, Bson, Document, doc, oid::ObjectId, serialize_to_bson, spec::BinarySubtype,
};
use storage_traits::{
    Result,
    domain::{DeadLetter, Origin, Timestamp},
};

use super::{
    MongoPool,
    append::{append, append_to_group},
    bodies::{BodyRef, Final, load_bodies},
    bucket::{CAPACITY, CAPACITY_BYTES, MessageLocation},
    collections::Query,
    indexes::{BY_ID, TRANSFERS},
    operation::Operation,
    queue_document::{Audience, OutgoingTransfer},
    stored_message::{StoredMessage, seconds, whole_seconds},
    unit_of_work::{Progress, UnitOfWork},
};
use crate::error::unexpected;

/// The numbers of one epoch's parcels lie side by side.
const NUMBERS: i64 = 1 << 20;

/// Letters that leave in a step: each with the slot that it gets, and where its body is.
pub(super) struct Bundle {
    pub(super) to: i64,
    pub(super) audience: Audience,
    pub(super) messages: Vec<(StoredMessage, BodyRef)>,
}

/// Moves messages to a dead-letter queue.
pub(super) struct DeadLetterMove {
    group_id: i64,
    rule: DeadLetter,
    now: Timestamp,
    bundle: Bundle,
}

impl DeadLetterMove {
    pub(super) fn new(group_id: i64, rule: &DeadLetter, now: Timestamp) -> Self {
        let audience = if rule.retained { Audience::AllAndLater } else { Audience::All };
        let to = rule.queue.incarnation.get();
        let bundle = Bundle { to, audience, messages: Vec::new() };
        Self { group_id, rule: rule.clone(), now, bundle }
    }

    /// How many claims a message may see.
    pub(super) fn max_claim_count(&self) -> i64 {
        i64::from(self.rule.max_claim_count)
    }

    /// Takes a free message out of its queue.
    pub(super) async fn move_message(
        &mut self,
        unit: &mut UnitOfWork<'_>,
        at: MessageLocation,
    ) -> Result<()> {
        let message = unit.remove_message(at, self.now).await?;
        let ttl = self.rule.ttl.unwrap_or_else(|| seconds(message.ttl));
        let group = unit.group(self.group_id)?.definition.as_ref().map(|group| group.name.clone());
        let group = group.map(|name| name.parse().map_err(unexpected)).transpose()?;
        let origin = Origin { queue: unit.incarnation()?, group, ttl: seconds(message.ttl) };
        let letter =
            restarted(message, Some(origin.to_text()), self.now, self.now, whole_seconds(ttl));
        self.bundle.messages.push((letter, (at.bucket, at.offset)));
        unit.event_counts.dead_lettered += 1;
        Ok(())
    }

    pub(super) async fn finish(self, unit: &mut UnitOfWork<'_>) -> Result<()> {
        send(unit, self.bundle, self.now).await
    }
}

/// A message as it starts anew in another queue.
pub(super) fn restarted(
    message: StoredMessage,
    origin: Option<String>,
    visible_at: Timestamp,
    now: Timestamp,
    ttl: i64,
) -> StoredMessage {
    let mut letter = StoredMessage {
        posted_at: now.as_millis(),
        expires_at: visible_at.plus(seconds(ttl)).as_millis(),
        ttl,
        claim_expires_at: None,
        claim_count: 0,
        origin,
        ..message
    };
    letter.set_claim(None);
    letter.set_visible_at(visible_at.as_millis());
    letter.state = letter.initial_state(now);
    letter
}

/// Sends a bundle off, in parcels of a bounded size.
pub(super) async fn send(unit: &mut UnitOfWork<'_>, bundle: Bundle, now: Timestamp) -> Result<()> {
    if bundle.messages.is_empty() {
        return Ok(());
    }
    let wanted: Vec<_> = bundle.messages.iter().map(|(_, place)| *place).collect();
    let bodies = load_bodies(&unit.collections, &wanted).await?;
    let (mut messages, mut stored, mut bytes) = (Vec::new(), Vec::new(), 0);
    for (message, place) in &bundle.messages {
        let body = bodies.get(place).ok_or_else(|| unexpected("a body is missing"))?;
        if messages.len() >= CAPACITY
            || (!messages.is_empty() && bytes + body.len() > CAPACITY_BYTES)
        {
            pack(unit, &bundle, std::mem::take(&mut messages), std::mem::take(&mut stored), now)?;
            bytes = 0;
        }
        bytes += body.len();
        messages.push(serialize_to_bson(message).map_err(unexpected)?);
        stored.push(Bson::Binary(Binary { subtype: BinarySubtype::Generic, bytes: body.to_vec() }));
    }
    pack(unit, &bundle, messages, stored, now)
}

fn pack(
    unit: &mut UnitOfWork<'_>,
    bundle: &Bundle,
    messages: Vec<Bson>,
    bodies: Vec<Bson>,
    now: Timestamp,
) -> Result<()> {
    let revision = unit.base.as_ref().map_or(0, |record| record.revision) + 1;
    let leaving = OutgoingTransfer {
        transfer: ObjectId::new(),
        to: bundle.to,
        number: revision * NUMBERS + i64::try_from(unit.transfers.len()).map_err(unexpected)?,
        audience: bundle.audience.clone(),
        moved_at: now.as_millis(),
    };
    let document = doc! {
        "_id": leaving.transfer,
        "queue_id": unit.queue_id,
        "due": now.as_millis(),
        "messages": messages,
        "bodies": bodies,
    };
    unit.dirty = true;
    unit.document()?.outgoing_transfers.push(leaving);
    unit.transfers.push(document);
    Ok(())
}

impl MongoPool {
    /// Delivers the letters that have left a queue.
    pub(super) async fn deliver_transfers(&self, queue_id: i64) -> Result<()> {
        let Some(record) = self.0.collections.read_committed(queue_id).await? else {
            return Ok(());
        };
        let mut arrived = Vec::new();
        for leaving in record.outgoing_transfers {
            arrived.push(leaving.transfer);
            let to = leaving.to;
            let found = Query {
                filter: doc! { "_id": leaving.transfer },
                sort: None,
                index: BY_ID,
                limit: 1,
            };
            // Without it somebody else has delivered it, and is about to say so.
            let found = self.0.collections.find(TRANSFERS, found).await?;
            if let Some(parcel) = found.first() {
                let parcel: Document = parcel.try_into().map_err(unexpected)?;
                self.0.run(to, ApplyTransfer { from: queue_id, leaving, parcel }).await?;
            }
        }
        if arrived.is_empty() {
            return Ok(());
        }
        let deletes = arrived
            .iter()
            .map(|it| doc! { "q": { "_id": it }, "limit": 1, "hint": BY_ID })
            .collect();
        self.0.run(queue_id, ForgetTransfers { parcels: arrived }).await?;
        self.0.collections.delete(TRANSFERS, deletes, false).await.map(drop)
    }
}

/// Puts letters where they go.
struct ApplyTransfer {
    from: i64,
    leaving: OutgoingTransfer,
    parcel: Document,
}

#[async_trait]
impl Operation for ApplyTransfer {
    type Reply = Final<()>;

    const APPENDS: bool = true;

    async fn run(&self, unit: &mut UnitOfWork<'_>) -> Result<Progress<Self::Reply>> {
        let (queue_id, from) = (unit.queue_id, self.from.to_string());
        // What goes to a queue that is gone, goes with it.
        let Some(record) = &mut unit.document else {
            // A new primary may not know yet what is durable.
            let is_gone = unit.collections.read_latest_durable(queue_id).await?.is_none();
            return Ok(if is_gone { Progress::done(()) } else { Progress::Again });
        };
        let last = record.last_transfer_from.get(&from).copied().unwrap_or(0);
        if last >= self.leaving.number {
            return Ok(Progress::done(()));
        }
        record.last_transfer_from.insert(from, self.leaving.number);
        unit.dirty = true;
        let only = match &self.leaving.audience {
            Audience::All | Audience::AllAndLater => None,
            Audience::Queue => Some(queue_id),
            // With a group its messages go.
            Audience::Group(name) => match unit.document()?.group_named(name) {
                Some(group_id) => Some(group_id),
                None => return Ok(Progress::done(())),
            },
        };
        let now = Timestamp::from_millis(self.leaving.moved_at);
        let retained = self.leaving.audience == Audience::AllAndLater;
        let messages = self.parcel.get_array("messages").map_err(unexpected)?;
        let bodies = self.parcel.get_array("bodies").map_err(unexpected)?;
        for (message, body) in messages.iter().zip(bodies) {
            let message: StoredMessage =
                mongodb::bson::deserialize_from_bson(message.clone()).map_err(unexpected)?;
            let Bson::Binary(body) = body else { return Err(unexpected("a body is not binary")) };
            match only {
                None => drop(append(unit, &message, &body.bytes, retained, now).await?),
                Some(group_id) => {
                    // The queue gives it its position, whoever reads it.
                    let record = unit.document()?;
                    record.tail += 1;
                    let sequence = record.tail;
                    append_to_group(unit, group_id, sequence, &message, &body.bytes, now).await?;
                }
            }
        }
        Ok(Progress::done(()))
    }
}

/// Forgets letters that have arrived.
struct ForgetTransfers {
    parcels: Vec<ObjectId>,
}

#[async_trait]
impl Operation for ForgetTransfers {
    type Reply = Final<()>;

    async fn run(&self, unit: &mut UnitOfWork<'_>) -> Result<Progress<Self::Reply>> {
        if let Some(record) = &mut unit.document {
            let before = record.outgoing_transfers.len();
            record.outgoing_transfers.retain(|leaving| !self.parcels.contains(&leaving.transfer));
            unit.dirty |= record.outgoing_transfers.len() < before;
        }
        Ok(Progress::done(()))
    }
}
