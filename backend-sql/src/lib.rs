//! Chapar's catalog and message pool on SQL databases.
//!
//! [`sqlite`] keeps both in one file, for a service without a database server.

pub mod sqlite;
