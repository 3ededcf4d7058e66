//! Reads what a server reports about itself, and checks it against the requirements.

use redis::{Cmd, Value, aio::MultiplexedConnection};
use storage_traits::{Result, pool::Durability};

use super::connect::Address;
use crate::{
    error::{unavailable, unexpected},
    options::{Endpoint, RedisOptions},
};

/// Parts of `INFO` and of the configuration.
pub(super) struct ServerInfo {
    /// Identifies the process.
    pub(super) run_id: String,
    pub(super) is_master: bool,
    /// `standalone` or `cluster`.
    mode: String,
    /// Whether the server still reads its data from disk; its durability is not reported before.
    is_loading: bool,
    version: (u32, u32),
    eviction_policy: String,
    has_append_only_file: bool,
    /// `always`, `everysec`, `no`; `None` if the server does not allow `CONFIG`.
    append_fsync: Option<String>,
}

impl ServerInfo {
    pub(super) async fn read(
        connection: &mut MultiplexedConnection,
        address: &Address,
    ) -> Result<Self> {
        let failed = |error| unavailable(format!("{address}: {error}"));
        let mut command = Cmd::new();
        command.arg("INFO");
        let info: String = command.query_async(connection).await.map_err(failed)?;
        let field = |key: &str| {
            let line = info.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
            line.unwrap_or_default().trim().to_owned()
        };
        let mut command = Cmd::new();
        command.arg("CONFIG").arg("GET").arg("appendfsync");
        // Managed services often do not allow this command.
        let append_fsync = match command.query_async::<Value>(connection).await {
            Ok(Value::Map(pairs)) => pairs.into_iter().next().and_then(|(_, value)| match value {
                Value::BulkString(bytes) => String::from_utf8(bytes).ok(),
                _ => None,
            }),
            _ => None,
        };
        // Valkey also reports the version of Redis that it is compatible with.
        let version = field("redis_version");
        let mut parts = version.split('.').map(|part| part.parse().unwrap_or(0));
        Ok(Self {
            run_id: field("run_id"),
            is_master: field("role") == "master",
            mode: field("redis_mode"),
            is_loading: field("loading") == "1",
            version: (parts.next().unwrap_or(0), parts.next().unwrap_or(0)),
            eviction_policy: field("maxmemory_policy"),
            has_append_only_file: field("aof_enabled") == "1",
            append_fsync,
        })
    }

    /// Checks that the server meets the requirements.
    ///
    /// # Errors
    /// Unexpected if the server has to be configured otherwise; unavailable if it may do later.
    pub(super) fn check(&self, options: &RedisOptions, address: &Address) -> Result<()> {
        if self.version < (7, 0) {
            let (major, minor) = self.version;
            return Err(unexpected(format!(
                "{address} is Redis {major}.{minor}; functions need 7.0 or newer"
            )));
        }
        if self.mode == "cluster" && !matches!(options.endpoint, Endpoint::Cluster(_)) {
            return Err(unexpected(format!(
                "{address} is a node of a Cluster; write redis+cluster://"
            )));
        }
        if !self.is_master {
            return Err(unavailable(format!("{address} is a replica")));
        }
        if self.is_loading {
            return Err(unavailable(format!("{address} is loading its data")));
        }
        if self.eviction_policy != "noeviction" {
            return Err(unexpected(format!(
                "{address} may evict messages: its maxmemory-policy is {}; set it to noeviction",
                self.eviction_policy
            )));
        }
        if options.replicas_fsync && self.version < (7, 2) {
            return Err(unexpected(format!("{address}: replicas_fsync needs Redis 7.2 or newer")));
        }
        let durability = self.durability(options);
        if durability < options.durability {
            return Err(unexpected(format!(
                "{address} keeps messages with durability {}, but {} is demanded: set {}",
                durability.as_str(),
                options.durability.as_str(),
                if options.durability == Durability::Fsync {
                    "appendonly yes and appendfsync always"
                } else {
                    "appendonly yes"
                }
            )));
        }
        Ok(())
    }

    /// Returns what an acknowledgement of this server means. Snapshots do not count: a crash loses
    /// what was acknowledged since the last one.
    pub(super) fn durability(&self, options: &RedisOptions) -> Durability {
        match self.append_fsync.as_deref() {
            _ if !self.has_append_only_file => Durability::Memory,
            Some("always") => Durability::Fsync,
            _ if options.replicas_fsync => Durability::Fsync,
            _ => Durability::OsBuffer,
        }
    }
}
