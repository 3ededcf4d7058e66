//! The metrics of a node, in the text format of Prometheus.

use std::time::Duration;

use actix_web::http::{Method, StatusCode};
use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram, info::Info},
    registry::{Registry, Unit},
};
use storage_traits::pool::EventCounts;

/// The route that a request is counted under: the pattern of its path. There are few patterns.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RouteLabel(pub &'static str);

/// The label of requests that match no route.
pub(crate) const NO_ROUTE: RouteLabel = RouteLabel("none");

/// The upper bounds of the latency buckets, in seconds.
const BUCKETS: [f64; 14] =
    [0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Request {
    route: &'static str,
    method: &'static str,
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Served {
    route: &'static str,
    method: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StoreStep {
    store: &'static str,
    operation: &'static str,
    outcome: Outcome,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Outcome {
    Ok,
    Error,
}

impl EncodeLabelValue for Outcome {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        match self {
            Self::Ok => "ok",
            Self::Error => "error",
        }
        .encode(encoder)
    }
}

type Latency<L> = Family<L, Histogram, fn() -> Histogram>;

/// All metrics of a node.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    requests: Family<Request, Counter>,
    request_seconds: Latency<Served>,
    in_flight: Gauge,
    store_seconds: Latency<StoreStep>,
    pub posted: Counter,
    pub claimed: Counter,
    pub deleted: Counter,
    pub redriven: Counter,
    expired: Counter,
    dead_lettered: Counter,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let histogram: fn() -> Histogram = || Histogram::new(BUCKETS);
        let mut metrics = Self {
            registry: Registry::with_prefix("chapar"),
            requests: Family::default(),
            request_seconds: Family::new_with_constructor(histogram),
            in_flight: Gauge::default(),
            store_seconds: Family::new_with_constructor(histogram),
            posted: Counter::default(),
            claimed: Counter::default(),
            deleted: Counter::default(),
            redriven: Counter::default(),
            expired: Counter::default(),
            dead_lettered: Counter::default(),
        };
        metrics.register();
        metrics
    }

    fn register(&mut self) {
        let registry = &mut self.registry;
        let build = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "The version of the running program", build);
        registry.register("http_requests", "HTTP requests answered", self.requests.clone());
        registry.register_with_unit(
            "http_request_duration",
            "Time from the headers of a request to the headers of its response",
            Unit::Seconds,
            self.request_seconds.clone(),
        );
        registry.register(
            "http_requests_in_flight",
            "HTTP requests received and not answered yet",
            self.in_flight.clone(),
        );
        registry.register_with_unit(
            "store_operation_duration",
            "Time of a store operation, including time in queues",
            Unit::Seconds,
            self.store_seconds.clone(),
        );
        for (name, help, counter) in [
            ("messages_posted", "Messages stored", &self.posted),
            ("messages_claimed", "Messages returned by claims", &self.claimed),
            ("messages_deleted", "Messages deleted, popped or purged", &self.deleted),
            ("messages_redriven", "Messages moved back from dead-letter queues", &self.redriven),
            ("messages_expired", "Messages removed because their ttl ended", &self.expired),
            (
                "messages_dead_lettered",
                "Messages moved to a dead-letter queue",
                &self.dead_lettered,
            ),
        ] {
            registry.register(name, help, counter.clone());
        }
    }

    /// Counts a request.
    pub(crate) fn request(
        &self,
        route: &'static str,
        method: &Method,
        status: StatusCode,
        elapsed: Duration,
    ) {
        let method = method_label(method);
        self.requests.get_or_create(&Request { route, method, status: status.as_u16() }).inc();
        self.request_seconds
            .get_or_create(&Served { route, method })
            .observe(elapsed.as_secs_f64());
    }

    /// Times an operation of a store.
    pub(crate) fn operation(
        &self,
        store: &'static str,
        operation: &'static str,
        ok: bool,
        elapsed: Duration,
    ) {
        let outcome = if ok { Outcome::Ok } else { Outcome::Error };
        self.store_seconds
            .get_or_create(&StoreStep { store, operation, outcome })
            .observe(elapsed.as_secs_f64());
    }

    /// Renders the metrics for Prometheus.
    pub(crate) fn render(&self, in_flight: usize, pool: EventCounts) -> String {
        self.in_flight.set(i64::try_from(in_flight).unwrap_or(i64::MAX));
        for (counter, total) in
            [(&self.expired, pool.expired), (&self.dead_lettered, pool.dead_lettered)]
        {
            counter.inner().store(total, std::sync::atomic::Ordering::Relaxed);
        }
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}

/// Returns the name of a standard method, or `other`: clients may send any number of names.
fn method_label(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "POST" => "POST",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        "HEAD" => "HEAD",
        "OPTIONS" => "OPTIONS",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counted_events_are_rendered() {
        let metrics = Metrics::new();
        let took = Duration::from_millis(3);
        metrics.request("/v2/ping", &Method::GET, StatusCode::NO_CONTENT, took);
        metrics.request("none", &Method::from_bytes(b"BREW").unwrap(), StatusCode::NOT_FOUND, took);
        metrics.operation("pool", "post", true, took);
        metrics.posted.inc_by(7);
        let text = metrics.render(3, EventCounts { expired: 2, dead_lettered: 1 });
        for line in [
            r#"chapar_http_requests_total{route="/v2/ping",method="GET",status="204"} 1"#,
            r#"chapar_http_requests_total{route="none",method="other",status="404"} 1"#,
            r#"chapar_http_request_duration_seconds_bucket{le="0.005",route="/v2/ping",method="GET"} 1"#,
            r#"chapar_store_operation_duration_seconds_count{store="pool",operation="post",outcome="ok"} 1"#,
            "chapar_http_requests_in_flight 3",
            "chapar_messages_posted_total 7",
            "chapar_messages_expired_total 2",
            "chapar_messages_dead_lettered_total 1",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is missing in\n{text}");
        }
    }
}
