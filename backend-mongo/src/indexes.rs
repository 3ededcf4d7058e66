//! Indexes. Each query names the index that it uses.

use std::collections::BTreeMap;

use futures_util::future::try_join_all;
use mongodb::{
    IndexModel,
    bson::Document,
    error::{Error, ErrorKind},
    options::IndexOptions,
};
use storage_traits::Result;

use crate::{error::UnsupportedServer, server::Server};

/// Codes of the errors for another index with the same name or keys.
const CONFLICTS: [i32; 2] = [
    85, // IndexOptionsConflict
    86, // IndexKeySpecsConflict
];

/// An index, as a query names it.
pub(crate) struct Index {
    pub(crate) collection: &'static str,
    pub(crate) name: &'static str,
    pub(crate) keys: fn() -> Document,
    pub(crate) options: fn() -> IndexOptions,
}

impl Index {
    fn model(&self) -> IndexModel {
        let mut options = (self.options)();
        options.name = Some(self.name.to_owned());
        IndexModel::builder().keys((self.keys)()).options(options).build()
    }

    /// Adds to an error what an operator can do about a conflicting index.
    fn explain(&self, error: Error) -> Error {
        match &*error.kind {
            ErrorKind::Command(command) if CONFLICTS.contains(&command.code) => {
                UnsupportedServer::error(format!(
                    "the index {} of the collection {} cannot be made, as another index has its \
                     name or its keys with other options; drop that one and start again: {}",
                    self.name, self.collection, command.message
                ))
            }
            _ => error,
        }
    }
}

/// Creates the indexes that are missing.
///
/// # Errors
/// [`Unexpected`](storage_traits::StoreError::Unexpected) if another index has the name of one of
/// them, or its keys with other options.
pub(crate) async fn ensure(server: &Server, indexes: &'static [Index]) -> Result<()> {
    let mut by_collection: BTreeMap<&str, Vec<&'static Index>> = BTreeMap::new();
    for index in indexes {
        by_collection.entry(index.collection).or_default().push(index);
    }
    // Each index waits for a majority; those of different collections wait at the same time.
    let create = |indexes: Vec<&'static Index>| async move {
        for index in indexes {
            create(server, index).await?;
        }
        Ok(())
    };
    try_join_all(by_collection.into_values().map(create)).await.map(drop)
}

async fn create(server: &Server, index: &Index) -> Result<()> {
    let create = async || {
        let collection = server.acked_durably::<Document>(index.collection);
        match collection.create_index(index.model()).await {
            Ok(_) => Ok(()),
            Err(error) => Err(index.explain(error)),
        }
    };
    server.retry(create).await
}
