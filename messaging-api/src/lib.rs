//! The messaging service: transports over services over stores.

mod accept;
pub mod backends;
pub mod cli;
pub mod config;
mod connections;
mod error;
mod extract;
mod front;
mod json;
mod long_poll;
mod metered;
mod metrics;
mod openapi;
mod operator;
mod routes;
mod services;
pub mod startup;
pub mod telemetry;
