//! What a server says of itself, and whether that is enough.

use redis::{Cmd, Value, aio::MultiplexedConnection};
use storage_traits::{Result, pool::Durability};

use super::connect::Address;
use crate::{
    error::{unavailable, unexpected},
    options::{Place, RedisOptions},
};

/// What matters of `INFO` and the configuration.
pub(super) struct Facts {
    /// Differs between two processes.
    pub(super) run: String,
    pub(super) is_master: bool,
    /// `standalone` or `cluster`.
    mode: String,
    /// It reads its data from the disk, and does not say yet how it keeps them.
    is_loading: bool,
    version: (u32, u32),
    eviction: String,
    appends: bool,
    /// `always`, `everysec`, `no`; `None` if the server does not tell.
    sync: Option<String>,
}

impl Facts {
    pub(super) async fn read(
        connection: &mut MultiplexedConnection,
        address: &Address,
    ) -> Result<Self> {
        let lost = |error| unavailable(format!("{address}: {error}"));
        let mut command = Cmd::new();
        command.arg("INFO");
        let info: String = command.query_async(connection).await.map_err(lost)?;
        let of = |key: &str| {
            let line = info.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
            line.unwrap_or_default().trim().to_owned()
        };
        let mut command = Cmd::new();
        command.arg("CONFIG").arg("GET").arg("appendfsync");
        // Services that others run often do not tell.
        let sync = match command.query_async::<Value>(connection).await {
            Ok(Value::Map(pairs)) => pairs.into_iter().next().and_then(|(_, value)| match value {
                Value::BulkString(bytes) => String::from_utf8(bytes).ok(),
                _ => None,
            }),
            _ => None,
        };
        // Valkey names a version of Redis that it is compatible with as well.
        let version = of("redis_version");
        let mut parts = version.split('.').map(|part| part.parse().unwrap_or(0));
        Ok(Self {
            run: of("run_id"),
            is_master: of("role") == "master",
            mode: of("redis_mode"),
            is_loading: of("loading") == "1",
            version: (parts.next().unwrap_or(0), parts.next().unwrap_or(0)),
            eviction: of("maxmemory_policy"),
            appends: of("aof_enabled") == "1",
            sync,
        })
    }

    /// Refuses a server that is not fit.
    pub(super) fn check(&self, options: &RedisOptions, address: &Address) -> Result<()> {
        if self.version < (7, 0) {
            let (major, minor) = self.version;
            return Err(unexpected(format!(
                "{address} is Redis {major}.{minor}; functions need 7.0 or newer"
            )));
        }
        if self.mode == "cluster" && !matches!(options.place, Place::Cluster(_)) {
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
        if self.eviction != "noeviction" {
            return Err(unexpected(format!(
                "{address} may evict messages: its maxmemory-policy is {}; set it to noeviction",
                self.eviction
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

    /// What an acknowledgement of this server means. Snapshots do not count: what was acknowledged
    /// since the last one would be lost.
    pub(super) fn durability(&self, options: &RedisOptions) -> Durability {
        match self.sync.as_deref() {
            _ if !self.appends => Durability::Memory,
            Some("always") => Durability::Fsync,
            _ if options.replicas_fsync => Durability::Fsync,
            _ => Durability::OsBuffer,
        }
    }
}
