//! Chapar's stores on SQL databases.
//!
//! [`sqlite`] holds a catalog and a message pool in one file, for a service that needs no server.

pub mod sqlite;
