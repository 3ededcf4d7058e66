//! Catalog and message pool in one SQLite file.
//!
//! One thread writes and shares each transaction among all the steps that wait for it (group
//! commit); a few threads read beside it. Nothing runs on a timer.

mod alarm;
mod catalog;
mod error;
mod file;
#[cfg(test)]
mod plans;
mod pool;
mod writer;

use std::{
    num::NonZeroUsize,
    path::{Path, PathBuf},
};

use storage_traits::{Result, pool::Durability};

use self::file::SqliteFile;

/// How to open a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SqliteOptions {
    /// The file; it is created if it is missing, its folder is not.
    pub path: PathBuf,
    /// [`Durability::Fsync`], or [`Durability::OsBuffer`] for a file that may lose the last
    /// moments before a power cut (never by a crash of the service alone).
    pub durability: Durability,
    /// How many threads read.
    pub readers: NonZeroUsize,
}

impl SqliteOptions {
    /// The defaults: every commit reaches the disk, two readers.
    pub fn new(path: impl AsRef<Path>) -> Self {
        Self {
            path: path.as_ref().to_owned(),
            durability: Durability::Fsync,
            readers: NonZeroUsize::MIN.saturating_add(1),
        }
    }
}

/// A SQLite file, open: a [`Catalog`](storage_traits::catalog::Catalog) and a
/// [`MessagePool`](storage_traits::pool::MessagePool), for whichever it is asked.
pub struct Sqlite {
    file: SqliteFile,
}

impl Sqlite {
    /// Opens the file and brings its tables up to date. Blocks.
    ///
    /// # Errors
    /// [`Unavailable`](storage_traits::StoreError::Unavailable) if the file cannot be opened or
    /// written; [`Unexpected`](storage_traits::StoreError::Unexpected) if it is no file of this
    /// service, or of a newer one.
    pub fn open(options: &SqliteOptions) -> Result<Self> {
        Ok(Self { file: SqliteFile::open(options)? })
    }
}
