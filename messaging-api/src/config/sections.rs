//! The sections and keys of the configuration.

use std::{net::SocketAddr, time::Duration};

use bytesize::ByteSize;
use serde::{Deserialize, Serialize};

use super::secrets::without_secrets;

/// The shortest ttl of messages and claims, and the shortest grace, in seconds (Zaqar v2 API, names
/// and sizes).
pub(crate) const MIN_TTL: i64 = 60;

/// All keys that an operator can set. `config.default.toml` documents them.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    pub http: HttpConfig,
    pub cors: CorsConfig,
    pub metrics: MetricsConfig,
    pub log: LogConfig,
    pub admin: AdminConfig,
    pub catalog: StoreConfig,
    pub pool: StoreConfig,
    pub limits: Limits,
    pub compat: Compat,
    /// Whether the operator set `metrics.listen`. If so, a failure to bind it is an error.
    #[serde(skip)]
    pub metrics_listen_is_set: bool,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpConfig {
    pub listen: SocketAddr,
    pub workers: usize,
    pub max_connections: usize,
    pub max_in_flight: usize,
    pub max_header_bytes: ByteSize,
    pub max_receiving: ByteSize,
    #[serde(with = "humantime_serde")]
    pub header_timeout: Duration,
    #[serde(with = "humantime_serde")]
    pub body_timeout: Duration,
    #[serde(with = "humantime_serde")]
    pub write_timeout: Duration,
    #[serde(with = "humantime_serde")]
    pub keep_alive: Duration,
    #[serde(with = "humantime_serde")]
    pub shutdown_timeout: Duration,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CorsConfig {
    pub allowed_origins: Vec<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MetricsConfig {
    /// An address and a port, or an empty text for none.
    pub listen: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogConfig {
    pub format: LogFormat,
    pub filter: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    Human,
    Json,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdminConfig {
    pub enabled: bool,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoreConfig {
    pub uri: String,
}

/// Omits the credentials that a URI may contain.
impl std::fmt::Debug for StoreConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoreConfig").field("uri", &without_secrets(&self.uri)).finish()
    }
}

/// Limits and defaults of requests, in seconds, bytes and counts.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    pub default_message_ttl: i64,
    pub default_message_delay: i64,
    pub default_claim_ttl: i64,
    pub default_claim_grace: i64,
    pub max_queues_per_page: u32,
    pub max_messages_per_page: u32,
    pub max_messages_per_claim_or_pop: u32,
    pub max_queue_metadata: usize,
    pub max_messages_post_size: usize,
    pub max_message_ttl: i64,
    pub max_message_delay: i64,
    pub max_claim_ttl: i64,
    pub max_claim_grace: i64,
    pub min_length_client_id: usize,
    pub max_length_client_id: usize,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Compat {
    pub client_id_uuid_safe: ClientIdRule,
    pub message_delete_with_claim_id: bool,
    pub enable_checksum: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClientIdRule {
    Strict,
    Off,
}

impl Config {
    /// Renders the configuration as TOML, without secrets.
    pub fn to_toml(&self) -> String {
        let mut shown = self.clone();
        for uri in [&mut shown.catalog.uri, &mut shown.pool.uri] {
            *uri = without_secrets(uri);
        }
        let sections = match serde_json::to_value(&shown) {
            Ok(serde_json::Value::Object(sections)) => sections,
            other => unreachable!("the configuration is a table of tables, not {other:?}"),
        };
        let mut text = String::new();
        for (section, keys) in &sections {
            text.extend(["[", section, "]\n"]);
            for (key, value) in keys.as_object().into_iter().flatten() {
                // JSON and TOML write strings, numbers, booleans and arrays of strings alike.
                text.extend([key, " = ", &value.to_string(), "\n"]);
            }
            text.push('\n');
        }
        text.trim_end().to_owned()
    }
}
