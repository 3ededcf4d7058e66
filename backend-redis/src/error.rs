//! The driver's errors, sorted by what to do about them.

use redis::{ErrorKind, RedisError, ServerErrorKind};
use storage_traits::{Source, StoreError};

const BACKEND: &str = "redis";

/// The server cannot be reached, or cannot write.
pub(crate) fn unavailable(source: impl Into<Source>) -> StoreError {
    StoreError::Unavailable { backend: BACKEND, source: source.into() }
}

/// An answer that makes no sense, or a server that is not fit.
pub(crate) fn unexpected(source: impl Into<Source>) -> StoreError {
    StoreError::Unexpected { backend: BACKEND, source: source.into() }
}

/// Too much is waiting, or the server has no memory left.
pub(crate) const fn overloaded() -> StoreError {
    StoreError::Overloaded { backend: BACKEND }
}

/// What to do after an error.
#[derive(Debug)]
pub(crate) enum Remedy {
    /// Load the functions and ask again: nothing was done.
    Load,
    /// Another node has the slot: nothing was done.
    Moved(String),
    /// Another node may have the slot: nothing was done.
    Ask(String),
    /// Ask again a little later: nothing was done.
    Again,
    /// Ask again a little later, maybe elsewhere: nothing was done.
    Later,
    /// The connection is of no use any more; what was done is unknown.
    Reconnect,
    /// Give up.
    GiveUp(StoreError),
}

/// Sorts an error.
pub(crate) fn remedy(error: RedisError) -> Remedy {
    let text = error.detail().unwrap_or_default();
    match error.kind() {
        ErrorKind::Server(kind) => match kind {
            ServerErrorKind::Moved | ServerErrorKind::Ask => match error.redirect_node() {
                Some((address, _)) if kind == ServerErrorKind::Moved => {
                    Remedy::Moved(address.to_owned())
                }
                Some((address, _)) => Remedy::Ask(address.to_owned()),
                None => Remedy::Later,
            },
            ServerErrorKind::TryAgain => Remedy::Again,
            ServerErrorKind::BusyLoading
            | ServerErrorKind::ClusterDown
            | ServerErrorKind::MasterDown
            | ServerErrorKind::ReadOnly => Remedy::Later,
            _ if text.contains("Function not found") => Remedy::Load,
            _ => Remedy::GiveUp(unexpected(error)),
        },
        ErrorKind::Extension => match error.code() {
            Some("OOM") => Remedy::GiveUp(overloaded()),
            // The disk is full, or too few replicas are linked.
            Some("MISCONF" | "NOREPLICAS" | "BUSY") => Remedy::GiveUp(unavailable(error)),
            Some("UNKILLABLE") => Remedy::Reconnect,
            _ => Remedy::GiveUp(unexpected(error)),
        },
        ErrorKind::AuthenticationFailed | ErrorKind::InvalidClientConfig => {
            Remedy::GiveUp(unavailable(error))
        }
        _ if error.is_unrecoverable_error() || error.is_io_error() => Remedy::Reconnect,
        _ => Remedy::GiveUp(unexpected(error)),
    }
}
