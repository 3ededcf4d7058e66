//! Opens connections.

use std::{fmt, path::PathBuf, time::Duration};

use redis::{
    AsyncConnectionConfig, Client, ClientTlsConfig, ConnectionAddr, IntoConnectionInfo as _,
    ProtocolVersion, PushInfo, RedisConnectionInfo, TlsCertificates, aio::MultiplexedConnection,
    io::tcp::TcpSettings,
};
use storage_traits::Result;
use tokio::time::timeout;

use crate::{
    error::{unavailable, unexpected},
    options::{Credentials, RedisOptions, TlsFiles},
};

/// Maximum time to open a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// Address of a server.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Address {
    Tcp(String, u16),
    Unix(PathBuf),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(host, port) if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp(host, port) => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

/// Opens connections to the servers of a pool.
pub(crate) struct Connector {
    credentials: Credentials,
    sentinel_credentials: Credentials,
    tls: Option<TlsFiles>,
    database: i64,
    pub(super) options: RedisOptions,
}

impl Connector {
    pub(super) fn new(options: &RedisOptions) -> Self {
        if options.tls.is_some() {
            // The driver uses the provider of the process; an error means that one is already set.
            let _ = rustls::crypto::ring::default_provider().install_default();
        }
        Self {
            credentials: options.credentials.clone(),
            sentinel_credentials: options.sentinel_credentials.clone(),
            tls: options.tls.clone(),
            database: options.database,
            options: options.clone(),
        }
    }

    /// Connects to a server. Calls `on_push` for each message that the server sends without a
    /// request, and when the connection ends.
    pub(super) async fn connect(
        &self,
        address: &Address,
        on_push: impl Fn(PushInfo) + Send + Sync + 'static,
    ) -> Result<MultiplexedConnection> {
        self.open(address, &self.credentials, self.database, on_push).await
    }

    /// Connects to a sentinel.
    pub(super) async fn connect_sentinel(
        &self,
        address: &Address,
    ) -> Result<MultiplexedConnection> {
        self.open(address, &self.sentinel_credentials, 0, |_| ()).await
    }

    async fn open(
        &self,
        address: &Address,
        credentials: &Credentials,
        database: i64,
        on_push: impl Fn(PushInfo) + Send + Sync + 'static,
    ) -> Result<MultiplexedConnection> {
        let client = self.client(address, credentials, database).await?;
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(None)
            .set_push_sender(move |push: PushInfo| {
                on_push(push);
                Ok::<(), ()>(())
            });
        let connecting = client.get_multiplexed_async_connection_with_config(&config);
        match timeout(CONNECT_TIMEOUT, connecting).await {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(error)) => Err(unavailable(format!("{address}: {error}"))),
            Err(_) => Err(unavailable(format!("{address} does not answer"))),
        }
    }

    async fn client(
        &self,
        address: &Address,
        credentials: &Credentials,
        database: i64,
    ) -> Result<Client> {
        let mut settings = RedisConnectionInfo::default()
            .set_db(database)
            .set_protocol(ProtocolVersion::RESP3)
            .set_lib_name("chapar", env!("CARGO_PKG_VERSION"));
        if let Some(username) = &credentials.username {
            settings = settings.set_username(username);
        }
        if let Some(password) = &credentials.password {
            settings = settings.set_password(password);
        }
        let endpoint = match (address, &self.tls) {
            (Address::Unix(path), _) => ConnectionAddr::Unix(path.clone()),
            (Address::Tcp(host, port), None) => ConnectionAddr::Tcp(host.clone(), *port),
            (Address::Tcp(host, port), Some(_)) => ConnectionAddr::TcpTls {
                host: host.clone(),
                port: *port,
                insecure: false,
                tls_params: None,
            },
        };
        let info = endpoint
            .into_connection_info()
            .map_err(unexpected)?
            .set_redis_settings(settings)
            .set_tcp_settings(TcpSettings::default().set_nodelay(true));
        let client = match &self.tls {
            None => Client::open(info),
            Some(files) => Client::build_with_tls(info, certificates(files).await?),
        };
        client.map_err(|error| unavailable(format!("{address}: {error}")))
    }
}

/// Reads the certificates; for each connection again, so that renewed ones are used.
async fn certificates(files: &TlsFiles) -> Result<TlsCertificates> {
    let read = async |path: &PathBuf| {
        let read = tokio::task::spawn_blocking({
            let path = path.clone();
            move || std::fs::read(&path)
        });
        match read.await.map_err(unexpected)? {
            Ok(bytes) => Ok(bytes),
            Err(error) => Err(unavailable(format!("{}: {error}", path.display()))),
        }
    };
    let root_cert = match &files.ca {
        Some(path) => Some(read(path).await?),
        None => None,
    };
    let client_tls = match &files.identity {
        Some((certificate, key)) => Some(ClientTlsConfig {
            client_cert: read(certificate).await?,
            client_key: read(key).await?,
        }),
        None => None,
    };
    Ok(TlsCertificates { client_tls, root_cert })
}
