//! The messaging service, in layers: transports call services, and services call stores.

mod accept;
mod admin_server;
pub mod backends;
pub mod cli;
mod coerce;
pub mod config;
mod connections;
mod error;
mod extract;
mod in_flight;
mod instrumented;
mod json;
mod metrics;
mod middleware;
mod openapi;
mod routes;
mod services;
pub mod startup;
pub mod telemetry;
