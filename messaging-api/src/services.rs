//! The rules of the service, for any transport: limits, defaults, lazy creation, dead-letter rules.
//!
//! No HTTP here: a transport parses a request, calls one method of [`Services`] and renders the
//! result, or maps the [`Error`].

mod claims;
mod context;
mod error;
mod groups;
mod health;
mod long_poll;
mod maintenance;
mod messages;
mod metadata;
mod patch;
mod queue_cache;
mod queues;
mod redrive;
mod retry_policy;

pub(crate) use context::Services;
pub(crate) use error::Error;
pub(crate) use groups::GroupState;
pub(crate) use long_poll::{MAX_WAIT, Suspend, WaitBudget};
pub(crate) use messages::{Delayed, Listing, MessageDraft, PopOrIds};
pub(crate) use patch::{PatchOperation, Verb};
pub(crate) use queues::QueueListing;
pub(crate) use redrive::{DEFAULT_REDRIVEN, MAX_RATE, MAX_REDRIVEN};
