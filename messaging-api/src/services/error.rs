//! Why a service refuses or fails a call.

use storage_traits::StoreError;

/// The reason in the terms of the domain; each transport maps it to its own form. The text is a
/// clause that says what is wrong with what.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// A value is out of range, or contradicts another one.
    #[error("{0}")]
    InvalidValue(String),
    /// A value has the wrong type.
    #[error("{0}")]
    WrongType(String),
    /// A patch would make the metadata of a queue invalid.
    #[error("{0}")]
    InvalidPatch(String),
    /// The message is claimed, and the caller did not name the claim that holds it.
    #[error("{0}")]
    MessageClaimed(String),
    /// The claim that the caller named does not hold the message.
    #[error("{0}")]
    ClaimMismatch(String),
    /// The object that the call names does not exist.
    #[error("{0}")]
    NotFound(String),
    /// The change contradicts the stored state.
    #[error("{0}")]
    Conflict(String),
    /// The node has no capacity to go on with the call.
    #[error("too many requests are in flight")]
    Overloaded,
    /// The queue of a post could not be looked up in the catalog.
    #[error("the queue's metadata could not be read")]
    QueueLookup(#[source] StoreError),
    /// A store refused or failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The result of a service.
pub(crate) type Result<T> = std::result::Result<T, Error>;
