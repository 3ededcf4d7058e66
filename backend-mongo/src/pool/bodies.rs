//! Message bodies. They never change, so they are read last, and only those that a caller gets.
//!
//! An operation returns messages without bodies. A caller gets [`Reply::Complete`], which only
//! [`Reply::complete`] makes, from the bodies that were read: a message whose body was not attached
//! has another type.

use std::collections::{BTreeSet, HashMap};

use bytes::Bytes;
use mongodb::bson::{Bson, Document, doc, oid::ObjectId};
use storage_traits::{
    Page, Result,
    domain::{Body, Incarnation, Message, MessageId, Posted, Sequence},
};

use super::{
    collections::{Collections, Query},
    indexes::{BUCKETS, BY_ID},
    stored_message::StoredMessage,
};
use crate::error::unexpected;

/// Where a body is stored: its bucket, and the offset in it.
pub(super) type BodyRef = (ObjectId, u32);

pub(super) type Bodies = HashMap<BodyRef, Bytes>;

/// Reads bodies.
pub(super) async fn load_bodies(collections: &Collections, wanted: &[BodyRef]) -> Result<Bodies> {
    if wanted.is_empty() {
        return Ok(Bodies::new());
    }
    let buckets: BTreeSet<ObjectId> = wanted.iter().map(|(bucket, _)| *bucket).collect();
    let offsets: BTreeSet<u32> = wanted.iter().map(|(_, offset)| *offset).collect();
    let fields: Document =
        offsets.iter().map(|offset| (format!("bodies.{offset}"), Bson::Int32(1))).collect();
    let query = Query {
        filter: doc! { "_id": { "$in": buckets.into_iter().collect::<Vec<_>>() } },
        sort: None,
        index: BY_ID,
        limit: 0,
    };
    let mut bodies = Bodies::with_capacity(wanted.len());
    for raw in collections.find_projected(BUCKETS, query, Some(fields)).await? {
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

/// A message whose body has not been attached yet.
pub(super) struct MessageWithoutBody {
    /// Its body is empty; only [`Self::attach`] hands it out.
    message: Message,
    body: BodyRef,
}

impl MessageWithoutBody {
    pub(super) fn new(
        stored: &StoredMessage,
        queue: Incarnation,
        sequence: i64,
        body: BodyRef,
    ) -> Result<Self> {
        let message = stored.to_message(queue, sequence, Body::from_json(Bytes::new()))?;
        Ok(Self { message, body })
    }

    pub(super) const fn id(&self) -> MessageId {
        self.message.id
    }

    fn attach(mut self, bodies: &Bodies) -> Result<Message> {
        let body = bodies.get(&self.body).ok_or_else(|| unexpected("a body is missing"))?;
        self.message.body = Body::from_json(body.clone());
        Ok(self.message)
    }
}

/// What a commit adds to the results of its operations.
pub(super) struct Completion<'c> {
    pub(super) bodies: &'c Bodies,
    pub(super) rebase: Rebase,
}

/// The correction of positions that were assumed before a commit: those from `from` on were
/// allocated `by` higher.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rebase {
    pub(super) from: i64,
    pub(super) by: i64,
}

impl Rebase {
    /// No correction: nothing was allocated.
    pub(super) const NONE: Self = Self { from: i64::MAX, by: 0 };
}

/// The result of an operation before its commit: messages have no bodies yet, and positions may
/// change.
pub(super) trait Reply: Send + 'static {
    /// What the caller gets.
    type Complete: Send + 'static;

    /// Attaches bodies and corrects positions.
    fn complete(self, commit: &Completion<'_>) -> Result<Self::Complete>;
}

/// A result that contains neither messages nor positions.
pub(super) struct Final<T>(pub(super) T);

impl<T: Send + 'static> Reply for Final<T> {
    type Complete = T;

    fn complete(self, _commit: &Completion<'_>) -> Result<T> {
        Ok(self.0)
    }
}

impl Reply for Vec<MessageWithoutBody> {
    type Complete = Vec<Message>;

    fn complete(self, commit: &Completion<'_>) -> Result<Vec<Message>> {
        self.into_iter().map(|message| message.attach(commit.bodies)).collect()
    }
}

impl Reply for Page<MessageWithoutBody> {
    type Complete = Page<Message>;

    fn complete(self, commit: &Completion<'_>) -> Result<Page<Message>> {
        Ok(Page { items: self.items.complete(commit)?, more: self.more })
    }
}

/// Positions that were assumed for new messages.
impl Reply for Vec<Posted> {
    type Complete = Self;

    fn complete(mut self, commit: &Completion<'_>) -> Result<Self> {
        let Rebase { from, by } = commit.rebase;
        for posted in &mut self {
            let sequence = posted.id.sequence.get();
            if sequence >= from
                && let Some(rebased) = Sequence::new(sequence + by)
            {
                posted.id.sequence = rebased;
            }
        }
        Ok(self)
    }
}

impl<R: Reply> Reply for Option<R> {
    type Complete = Option<R::Complete>;

    fn complete(self, commit: &Completion<'_>) -> Result<Self::Complete> {
        self.map(|reply| reply.complete(commit)).transpose()
    }
}
