//! Maps the driver's errors to [`StoreError`]. No other file does.

use rusqlite::ErrorCode;
use storage_traits::{Source, StoreError};

pub(crate) const BACKEND: &str = "sqlite";

/// Maps an error of the driver: `Unavailable` if a retry may succeed, else `Unexpected`.
pub(crate) fn store_error(error: rusqlite::Error) -> StoreError {
    let transient = matches!(
        error.sqlite_error_code(),
        Some(
            ErrorCode::DatabaseBusy
                | ErrorCode::DatabaseLocked
                | ErrorCode::DiskFull
                | ErrorCode::SystemIoFailure
                | ErrorCode::CannotOpen
                | ErrorCode::ReadOnly
                | ErrorCode::PermissionDenied
                | ErrorCode::OutOfMemory
        )
    );
    if transient { unavailable(error) } else { unexpected(error) }
}

pub(crate) fn unavailable(source: impl Into<Source>) -> StoreError {
    StoreError::Unavailable { backend: BACKEND, source: source.into() }
}

pub(crate) fn unexpected(source: impl Into<Source>) -> StoreError {
    StoreError::Unexpected { backend: BACKEND, source: source.into() }
}

/// Returns the error of an operation that comes after the file was closed.
pub(crate) fn closed() -> StoreError {
    unavailable("the file is closed")
}

/// Returns whether the error came from the database, so that the transaction must be rolled back.
pub(crate) fn is_failure(error: &StoreError) -> bool {
    matches!(error, StoreError::Unavailable { .. } | StoreError::Unexpected { .. })
}
