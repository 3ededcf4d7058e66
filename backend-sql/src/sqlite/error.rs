//! Driver error to [`StoreError`], here and nowhere else.

use rusqlite::ErrorCode;
use storage_traits::{Source, StoreError};

pub(crate) const BACKEND: &str = "sqlite";

/// Sorts what a retry may cure from what is a bug.
pub(crate) fn store_error(error: rusqlite::Error) -> StoreError {
    let passing = matches!(
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
    if passing { unavailable(error) } else { unexpected(error) }
}

pub(crate) fn unavailable(source: impl Into<Source>) -> StoreError {
    StoreError::Unavailable { backend: BACKEND, source: source.into() }
}

pub(crate) fn unexpected(source: impl Into<Source>) -> StoreError {
    StoreError::Unexpected { backend: BACKEND, source: source.into() }
}

/// The error came from the database, so that the transaction around it is void.
pub(crate) fn is_failure(error: &StoreError) -> bool {
    matches!(error, StoreError::Unavailable { .. } | StoreError::Unexpected { .. })
}
