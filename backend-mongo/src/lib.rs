//! Catalog and message pool on MongoDB.

mod catalog;
mod error;
mod indexes;
mod options;
mod pool;
mod server;

pub use self::{
    catalog::MongoCatalog,
    options::{InvalidOption, MongoOptions},
    pool::MongoPool,
};
