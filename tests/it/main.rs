//! End-to-end tests: one module for each resource or guarantee of the service.

#![expect(clippy::unwrap_used, reason = "a test suite")]

mod versions_home;

mod ping_health;

mod allowed_methods;
mod processing_order;
mod response_headers;

mod error_bodies;
mod json_rules;
mod query_rules;

mod queues;
mod queues_list;

mod queue_metadata;
mod queue_patch;

mod stats_purge;

mod messages_delete;
mod messages_get;
mod messages_list;
mod messages_post;
mod pop;

mod claims;
mod claims_rules;
mod dead_letter;
mod deduplication;
mod delay;
mod groups;
mod long_poll;
mod ordering;
mod redrive;
mod retention;
mod schedules;

mod checksum;
mod client_id_off;
mod config_cli;
mod cors;
mod delete_with_claim_id;
mod limits_config;

mod paging;
mod races;
mod tenancy;

mod crash;
mod disk_full;
mod fuzz;
mod metrics;
mod outage;
mod overload;
mod redis;
mod shutdown;

mod clients;
mod mongo;
mod openapi;
