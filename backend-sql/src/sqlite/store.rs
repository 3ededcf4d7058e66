use storage_traits::Result;

use super::{file::SqliteFile, options::SqliteOptions, pool::due::apply_due_and_next};

/// An open SQLite file: a [`Catalog`](storage_traits::catalog::Catalog) and a
/// [`MessagePool`](storage_traits::pool::MessagePool), used as either or as both.
pub struct Sqlite {
    pub(super) file: SqliteFile,
}

impl Sqlite {
    /// Opens the file and migrates its tables to the latest version. Blocks.
    ///
    /// # Errors
    /// [`Unavailable`](storage_traits::StoreError::Unavailable) if the file cannot be opened or
    /// written; [`Unexpected`](storage_traits::StoreError::Unexpected) if it belongs to another
    /// program, or to a newer version of this one.
    pub fn open(options: &SqliteOptions) -> Result<Self> {
        Ok(Self { file: SqliteFile::open(options, apply_due_and_next)? })
    }
}
