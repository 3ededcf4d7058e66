use std::{fmt::Display, net::SocketAddr, ops::RangeInclusive, time::Duration};

use bytesize::ByteSize;

use super::sections::{Config, MIN_TTL};
use crate::backends;

/// Checks the values of a configuration. Returns every fault, as a sentence that names the key.
pub(super) fn validate(config: &Config) -> Vec<String> {
    let mut faults = Faults::default();
    let (http, limits) = (&config.http, &config.limits);

    faults.range("http.workers", &http.workers, 0..=1024);
    faults.range("http.max_connections", &http.max_connections, 1..=1_000_000);
    faults.range("http.max_in_flight", &http.max_in_flight, 1..=1_000_000);
    faults.range(
        "http.max_header_bytes",
        &http.max_header_bytes,
        ByteSize(256)..=ByteSize::kib(64),
    );
    let megabytes = ByteSize::mib(1)..=ByteSize::gib(64);
    faults.range("http.max_receiving", &http.max_receiving, megabytes);
    let minutes = Duration::from_secs(1)..=Duration::from_mins(10);
    for (key, timeout) in [
        ("http.header_timeout", http.header_timeout),
        ("http.body_timeout", http.body_timeout),
        ("http.write_timeout", http.write_timeout),
    ] {
        faults.duration(key, timeout, &minutes);
    }
    faults.duration(
        "http.keep_alive",
        http.keep_alive,
        &(*minutes.start()..=Duration::from_hours(1)),
    );
    faults.duration(
        "http.shutdown_timeout",
        http.shutdown_timeout,
        &(Duration::ZERO..=*minutes.end()),
    );

    for origin in &config.cors.allowed_origins {
        if origin.parse::<actix_web::http::Uri>().map_or(true, |uri| uri.host().is_none()) {
            faults
                .add("cors.allowed_origins", format!("{origin:?} is no origin like https://host"));
        }
    }
    if !config.metrics.listen.is_empty() && config.metrics.listen.parse::<SocketAddr>().is_err() {
        faults.add("metrics.listen", "write an address and a port, or nothing");
    }
    if let Err(error) = config.log.filter.parse::<tracing_subscriber::EnvFilter>() {
        faults.add("log.filter", error);
    }
    for (key, uri) in [("catalog.uri", &config.catalog.uri), ("pool.uri", &config.pool.uri)] {
        let parsed = backends::StoreUri::parse(uri);
        let checked = parsed.and_then(|parsed| match key {
            "catalog.uri" => backends::check_catalog(&parsed),
            _ => Ok(()),
        });
        if let Err(error) = checked {
            faults.add(key, error);
        }
    }

    let day = 86_400;
    let ages = MIN_TTL..=3650 * day;
    faults.range("limits.max_message_ttl", &limits.max_message_ttl, ages.clone());
    faults.range("limits.max_claim_ttl", &limits.max_claim_ttl, ages.clone());
    faults.range("limits.max_claim_grace", &limits.max_claim_grace, ages);
    faults.range("limits.max_message_delay", &limits.max_message_delay, 0..=3650 * day);
    let at_most = |max: i64, min: i64| min..=max.max(min);
    for (key, value, range) in [
        (
            "limits.default_message_ttl",
            limits.default_message_ttl,
            at_most(limits.max_message_ttl, MIN_TTL),
        ),
        (
            "limits.default_message_delay",
            limits.default_message_delay,
            at_most(limits.max_message_delay, 0),
        ),
        (
            "limits.default_claim_ttl",
            limits.default_claim_ttl,
            at_most(limits.max_claim_ttl, MIN_TTL),
        ),
        (
            "limits.default_claim_grace",
            limits.default_claim_grace,
            at_most(limits.max_claim_grace, MIN_TTL),
        ),
    ] {
        faults.range(key, &value, range);
    }
    for (key, value) in [
        ("limits.max_queues_per_page", limits.max_queues_per_page),
        ("limits.max_messages_per_page", limits.max_messages_per_page),
        ("limits.max_messages_per_claim_or_pop", limits.max_messages_per_claim_or_pop),
    ] {
        faults.range(key, &value, 1..=1000);
    }
    faults.range("limits.max_queue_metadata", &limits.max_queue_metadata, 1..=1 << 20);
    faults.range("limits.max_messages_post_size", &limits.max_messages_post_size, 1..=16 << 20);
    faults.range("limits.min_length_client_id", &limits.min_length_client_id, 1..=255);
    let longest = limits.min_length_client_id..=255;
    faults.range("limits.max_length_client_id", &limits.max_length_client_id, longest);
    faults.0
}

#[derive(Default)]
struct Faults(Vec<String>);

impl Faults {
    fn add(&mut self, key: &str, fault: impl Display) {
        self.0.push(format!("{key}: {fault}"));
    }

    fn range<T: PartialOrd + Display>(&mut self, key: &str, value: &T, range: RangeInclusive<T>) {
        if !range.contains(value) {
            let (from, to) = range.into_inner();
            self.add(key, format!("{value} is not within {from} to {to}"));
        }
    }

    fn duration(&mut self, key: &str, value: Duration, range: &RangeInclusive<Duration>) {
        if !range.contains(&value) {
            let [value, from, to] =
                [value, *range.start(), *range.end()].map(humantime::format_duration);
            self.add(key, format!("{value} is not within {from} to {to}"));
        }
    }
}
