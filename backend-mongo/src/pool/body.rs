//! Bodies: they never change, so they are read at last, and only those that are asked for.

use std::collections::{BTreeSet, HashMap};

use bytes::Bytes;
use mongodb::bson::{Bson, Document, doc, oid::ObjectId};
use storage_traits::{
    Page, Result,
    domain::{AckResult, Body, Claim, Group, Message, Posted},
    pool::{DeleteOutcome, Redriven, Rescheduled, Stats},
};

use super::stores::{BUCKETS, BY_ID, Query, Stores};
use crate::error::unexpected;

pub(super) type Bodies = HashMap<(ObjectId, u32), Bytes>;

/// Stands for a body that is to be read: its number among those that are wanted.
pub(super) fn placeholder(number: usize) -> Body {
    Body::from_json(Bytes::copy_from_slice(&number.to_be_bytes()))
}

/// Reads bodies.
pub(super) async fn load(stores: &Stores, wanted: &[(ObjectId, u32)]) -> Result<Bodies> {
    if wanted.is_empty() {
        return Ok(Bodies::new());
    }
    let buckets: BTreeSet<ObjectId> = wanted.iter().map(|(bucket, _)| *bucket).collect();
    let offsets: BTreeSet<u32> = wanted.iter().map(|(_, offset)| *offset).collect();
    let parts: Document =
        offsets.iter().map(|offset| (format!("bodies.{offset}"), Bson::Int32(1))).collect();
    let query = Query {
        filter: doc! { "_id": { "$in": buckets.into_iter().collect::<Vec<_>>() } },
        sort: None,
        index: BY_ID,
        limit: 0,
    };
    let mut bodies = Bodies::with_capacity(wanted.len());
    for raw in stores.find_parts(BUCKETS, query, Some(parts)).await? {
        let bucket = raw.get_object_id("_id").map_err(unexpected)?;
        for entry in raw.get_document("bodies").map_err(unexpected)? {
            let (offset, body) = entry.map_err(unexpected)?;
            let offset = offset.as_str().parse().map_err(unexpected)?;
            let body = body.as_binary().ok_or_else(|| unexpected("a body is not binary"))?;
            bodies.insert((bucket, offset), Bytes::copy_from_slice(body.bytes));
        }
    }
    Ok(bodies)
}

/// An answer that may hold messages, whose bodies are still to be put in, and positions, which may
/// turn out to be others.
pub(super) trait Answer: Send + 'static {
    /// The messages in it.
    fn messages(&mut self) -> &mut [Message] {
        &mut []
    }

    /// Moves the positions from `from` on.
    fn shift(&mut self, _from: i64, _by: i64) {}
}

impl Answer for () {}
impl Answer for bool {}
impl Answer for u64 {}
impl Answer for Option<u64> {}
impl Answer for DeleteOutcome {}
impl Answer for Rescheduled {}
impl Answer for Vec<AckResult> {}
impl Answer for Stats {}
impl Answer for Redriven {}
impl Answer for Option<Group> {}
impl Answer for (Group, bool) {}
impl Answer for Page<Group> {}

impl Answer for Vec<Posted> {
    fn shift(&mut self, from: i64, by: i64) {
        for posted in self {
            let sequence = posted.id.sequence.get();
            if sequence >= from
                && let Some(moved) = storage_traits::domain::Sequence::new(sequence + by)
            {
                posted.id.sequence = moved;
            }
        }
    }
}

impl Answer for Vec<Message> {
    fn messages(&mut self) -> &mut [Message] {
        self
    }
}

impl Answer for Page<Message> {
    fn messages(&mut self) -> &mut [Message] {
        &mut self.items
    }
}

impl Answer for Option<Claim> {
    fn messages(&mut self) -> &mut [Message] {
        self.as_mut().map_or(&mut [], |claim| &mut claim.messages)
    }
}

/// Puts the bodies in.
pub(super) fn fill(
    messages: &mut [Message],
    wanted: &[(ObjectId, u32)],
    bodies: &Bodies,
) -> Result<()> {
    for message in messages {
        let number = message.body.as_bytes().try_into().map(usize::from_be_bytes);
        let place = number.ok().and_then(|number| wanted.get(number));
        let body = place.and_then(|place| bodies.get(place));
        let body = body.ok_or_else(|| unexpected("a body is missing"))?;
        message.body = Body::from_json(body.clone());
    }
    Ok(())
}
