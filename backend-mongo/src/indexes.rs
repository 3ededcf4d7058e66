//! Indexes: what makes each query a short one.

use mongodb::{
    IndexModel,
    bson::Document,
    error::{Error, ErrorKind},
    options::IndexOptions,
};
use storage_traits::Result;

use crate::{error::Unfit, server::Server};

/// Another index has the name or the keys.
const CONFLICTS: [i32; 2] = [
    85, // IndexOptionsConflict
    86, // IndexKeySpecsConflict
];

/// An index that queries name.
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

    /// What to tell an operator who made another index.
    fn explained(&self, error: Error) -> Error {
        match &*error.kind {
            ErrorKind::Command(command) if CONFLICTS.contains(&command.code) => {
                Unfit::error(format!(
                    "the index {} of the collection {} cannot be made, as another index has its \
                     name or its keys with other options; drop that one and start again: {}",
                    self.name, self.collection, command.message
                ))
            }
            _ => error,
        }
    }
}

/// Makes the indexes that are missing.
///
/// # Errors
/// [`Unexpected`](storage_traits::StoreError::Unexpected) if another index has the name of one of
/// them, or its keys with other options.
pub(crate) async fn ensure(server: &Server, indexes: &[Index]) -> Result<()> {
    for index in indexes {
        let make = async || {
            let collection = server.durable::<Document>(index.collection);
            match collection.create_index(index.model()).await {
                Ok(_) => Ok(()),
                Err(error) => Err(index.explained(error)),
            }
        };
        server.retry(make).await?;
    }
    Ok(())
}
