//! The configuration: where it comes from, what it holds, what is wrong with it.

pub(crate) mod check;
mod sources;

use std::{net::SocketAddr, time::Duration};

use bytesize::ByteSize;
use serde::{Deserialize, Serialize};

pub use sources::{Overrides, load};

/// Everything an operator can set. `config.default.toml` is the manual.
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
    /// Whether the operator named the address of the metrics, so that not getting it is a fault.
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
    /// An address, or empty for none.
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

/// Without the credentials that a URI may hold.
impl std::fmt::Debug for StoreConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoreConfig").field("uri", &without_secrets(&self.uri)).finish()
    }
}

/// Bounds and defaults of requests; seconds, bytes and counts.
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
    /// The configuration as TOML text, without secrets.
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
                // JSON's texts, numbers, booleans and arrays of texts are TOML's too.
                text.extend([key, " = ", &value.to_string(), "\n"]);
            }
            text.push('\n');
        }
        text.trim_end().to_owned()
    }
}

/// A URI with its password struck out.
pub fn without_secrets(uri: &str) -> String {
    let (place, query) = uri.split_once('?').unwrap_or((uri, ""));
    let mut shown = match place.split_once("://") {
        Some((scheme, rest)) => {
            let authority = rest.find(['/', '#']).unwrap_or(rest.len());
            match rest[..authority].rsplit_once('@') {
                Some((user, host)) => {
                    let user = user.split_once(':').map_or(user, |(name, _)| name);
                    format!("{scheme}://{user}:***@{host}{}", &rest[authority..])
                }
                None => place.to_owned(),
            }
        }
        None => place.to_owned(),
    };
    for (n, pair) in query.split('&').filter(|pair| !pair.is_empty()).enumerate() {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let lower_key = key.to_ascii_lowercase();
        // MongoDB puts tokens into the latter.
        let secret =
            ["password", "authmechanismproperties"].iter().any(|it| lower_key.contains(it));
        let value = if secret { "***" } else { value };
        shown.extend([if n == 0 { "?" } else { "&" }, key, "=", value]);
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_in_a_uri_is_struck_out() {
        for (uri, shown) in [
            ("sqlite:chapar.db", "sqlite:chapar.db"),
            ("redis://host/0", "redis://host/0"),
            ("redis://me:p@ss@host:1/0?x=a@b", "redis://me:***@host:1/0?x=a@b"),
            ("mongodb://me:secret@a,b", "mongodb://me:***@a,b"),
            (
                "mongodb://me:p%40ss@a:1,[::1]:2/data?replicaSet=rs&w=majority",
                "mongodb://me:***@a:1,[::1]:2/data?replicaSet=rs&w=majority",
            ),
            ("mongodb+srv://me:secret@db.org/", "mongodb+srv://me:***@db.org/"),
            (
                "mongodb://a/?tlsCertificateKeyFilePassword=x&proxyPassword=y",
                "mongodb://a/?tlsCertificateKeyFilePassword=***&proxyPassword=***",
            ),
            (
                "mongodb://a/?authMechanismProperties=AWS_SESSION_TOKEN:x",
                "mongodb://a/?authMechanismProperties=***",
            ),
            (
                "redis+sentinel://a/m?sentinel_password=x",
                "redis+sentinel://a/m?sentinel_password=***",
            ),
            ("sqlite:a.db?readers=2&durability=fsync", "sqlite:a.db?readers=2&durability=fsync"),
        ] {
            assert_eq!(without_secrets(uri), shown);
        }
    }
}
