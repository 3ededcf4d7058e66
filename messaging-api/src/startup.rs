//! Starts a node from its configuration, and stops it in order.

use std::{
    net::{Shutdown, SocketAddr, TcpListener},
    sync::Arc,
    time::Duration,
};

use actix_cors::Cors;
use actix_web::{
    App, HttpServer,
    dev::{Server, ServerHandle},
    middleware::{Condition, from_fn},
    web::Data,
};
use anyhow::Context as _;
use rustix::process::{Resource, getrlimit, setrlimit};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use storage_traits::{Clock, SystemClock, catalog::Catalog, pool::MessagePool};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::{
    admin_server, backends,
    config::{Config, without_secrets},
    connections::Connections,
    in_flight::InFlight,
    instrumented::Instrumented,
    metrics::Metrics,
    middleware::middleware,
    openapi,
    routes::{self, Documents},
    services::Services,
};

/// How long connections may take to send the rest of their responses, once no request is in flight.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// How many connections the kernel queues until the node accepts them.
const BACKLOG: i32 = 1024;

/// A node whose sockets are bound and whose stores are open, but which does not serve yet.
pub struct Application {
    api: TcpListener,
    admin: Option<TcpListener>,
    config: Arc<Config>,
    services: Services,
    metrics: Arc<Metrics>,
    in_flight: Arc<InFlight>,
    connections: Arc<Connections>,
}

impl Application {
    /// Opens the stores and binds the sockets.
    ///
    /// # Errors
    /// If an address cannot be bound, or a store cannot be opened.
    pub async fn build(config: Config) -> anyhow::Result<Self> {
        let config = Arc::new(config);
        raise_file_limit(config.http.max_connections);
        let api = listen(config.http.listen, config.http.write_timeout)
            .with_context(|| format!("cannot listen on {} (http.listen)", config.http.listen))?;
        let admin = bind_admin(&config)?;
        let stores = backends::open(&config.catalog.uri, &config.pool.uri).await?;
        tracing::info!(
            catalog = without_secrets(&config.catalog.uri),
            pool = without_secrets(&config.pool.uri),
            durability = stores.pool.durability().as_str(),
            "opened the stores"
        );
        let metrics = Arc::new(Metrics::new());
        let catalog: Arc<dyn Catalog> =
            Arc::new(Instrumented::new(stores.catalog, "catalog", Arc::clone(&metrics)));
        let pool: Arc<dyn MessagePool> =
            Arc::new(Instrumented::new(stores.pool, "pool", Arc::clone(&metrics)));
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let services = Services::new(Arc::clone(&config), clock, catalog, pool);
        let in_flight = Arc::new(InFlight::default());
        let http = &config.http;
        // The HTTP library closes an idle connection, and a request arrives, within this time.
        let max_idle = http.keep_alive + http.header_timeout + http.write_timeout;
        let connections = Arc::new(Connections::new(max_idle));
        Ok(Self { api, admin, config, services, metrics, in_flight, connections })
    }

    /// Serves until `stop` is cancelled. Then finishes the requests in flight, closes the stores
    /// and returns.
    ///
    /// # Errors
    /// If one of the two HTTP servers cannot be started, or fails.
    pub async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        let api = self.api_server()?;
        let admin = self.admin_server()?;
        let (api_handle, background) = (api.handle(), CancellationToken::new());
        let workers = self.start_workers(&background);
        self.log_addresses()?;

        let admin_handle = admin.as_ref().map(Server::handle);
        let admin = admin.map(tokio::spawn);
        let mut api = tokio::spawn(api);
        let ended = tokio::select! {
            ended = &mut api => Some(ended),
            () = stop.cancelled() => None,
        };
        if ended.is_none() {
            self.drain(&api_handle).await;
            api.await??;
        }
        background.cancel();
        for worker in workers {
            worker.await?;
        }
        self.services.close().await;
        if let (Some(handle), Some(server)) = (admin_handle, admin) {
            handle.stop(false).await;
            server.await??;
        }
        tracing::info!("stopped");
        ended.map_or(Ok(()), |ended| Ok(ended??))
    }

    fn api_server(&self) -> anyhow::Result<Server> {
        let http = &self.config.http;
        let config = Data::from(Arc::clone(&self.config));
        let services = Data::new(self.services.clone());
        let metrics = Data::from(Arc::clone(&self.metrics));
        let in_flight = Data::new(Arc::clone(&self.in_flight));
        let documents = Data::new(Documents::new(|config| {
            openapi::document(config, routes::documented(config))
        }));
        let connections = Arc::clone(&self.connections);
        let origins = Arc::new(self.config.cors.allowed_origins.clone());
        let admin_routes = self.config.admin.enabled;
        let workers = match http.workers {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            workers => workers,
        };
        let server = HttpServer::new(move || {
            App::new()
                .app_data(config.clone())
                .app_data(services.clone())
                .app_data(metrics.clone())
                .app_data(in_flight.clone())
                .app_data(documents.clone())
                .configure(|app| routes::configure(app, admin_routes))
                .wrap(Condition::new(!origins.is_empty(), cors(&origins)))
                .wrap(from_fn(middleware))
        });
        Ok(server
            .workers(workers)
            .on_connect(move |io, data| connections.track(io, data))
            .max_connections((http.max_connections / workers).max(1))
            .client_request_timeout(http.header_timeout)
            .client_disconnect_timeout(http.write_timeout)
            .keep_alive(http.keep_alive)
            // A client may close its side once its request is sent; the node still answers. Only a
            // request that waits takes the close as a sign that its client is gone. (The library may
            // discard requests that are pipelined behind another one at that time.)
            .h1_allow_half_closed(true)
            .shutdown_timeout(CLOSE_TIMEOUT.as_secs())
            .disable_signals()
            .listen(self.api.try_clone()?)?
            .run())
    }

    fn admin_server(&self) -> anyhow::Result<Option<Server>> {
        let Some(listener) = &self.admin else { return Ok(None) };
        let services = Data::new(self.services.clone());
        let metrics = Data::from(Arc::clone(&self.metrics));
        let in_flight = Data::new(Arc::clone(&self.in_flight));
        let server = HttpServer::new(move || {
            App::new()
                .app_data(services.clone())
                .app_data(metrics.clone())
                .app_data(in_flight.clone())
                .configure(admin_server::configure)
        });
        let server = server.workers(1).max_connections(64).disable_signals();
        Ok(Some(
            server.shutdown_timeout(CLOSE_TIMEOUT.as_secs()).listen(listener.try_clone()?)?.run(),
        ))
    }

    fn start_workers(&self, stop: &CancellationToken) -> [JoinHandle<()>; 3] {
        [
            tokio::spawn(Arc::clone(&self.connections).watch(stop.clone())),
            tokio::spawn(self.services.clone().follow_changes(stop.clone())),
            tokio::spawn(self.services.clone().sweep(stop.clone())),
        ]
    }

    fn log_addresses(&self) -> anyhow::Result<()> {
        tracing::warn!("callers are not authenticated: the headers that identify them are trusted");
        if let Some(admin) = &self.admin {
            let address = admin.local_addr()?;
            tracing::info!("serving metrics, liveness and readiness on http://{address}");
        }
        tracing::info!("listening on http://{}", self.api.local_addr()?);
        Ok(())
    }

    /// Accepts no more connections, waits for the requests in flight, then closes all connections.
    async fn drain(&self, api: &ServerHandle) {
        tracing::info!("stopping: finishing the requests in flight");
        api.pause().await;
        // The kernel refuses new connections at once, so that clients go to another node.
        if let Err(error) = SockRef::from(&self.api).shutdown(Shutdown::Both) {
            tracing::warn!(%error, "cannot close the listening socket; it stays open until the node stops");
        }
        let deadline = self.config.http.shutdown_timeout;
        if tokio::time::timeout(deadline, self.in_flight.drain()).await.is_err() {
            tracing::warn!("cutting off requests that did not end within http.shutdown_timeout");
        }
        api.stop(true).await;
    }
}

/// Opens a listening socket. The kernel resets a connection whose client does not acknowledge data
/// for `write_timeout`.
fn listen(address: SocketAddr, write_timeout: Duration) -> anyhow::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_tcp_nodelay(true)?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(write_timeout))?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Raises the limit of open files to its maximum. Each connection takes two.
fn raise_file_limit(max_connections: usize) {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(%error, "cannot raise the limit of open files");
    }
    let wanted = 2 * max_connections as u64 + 64;
    if let Some(files) = getrlimit(Resource::Nofile).current.filter(|files| *files < wanted) {
        tracing::warn!(
            files,
            wanted,
            "the limit of open files is too low for http.max_connections"
        );
    }
}

/// Opens the socket of the admin server. If the operator did not set its address and the address is
/// taken, the node serves without it.
fn bind_admin(config: &Config) -> anyhow::Result<Option<TcpListener>> {
    if config.metrics.listen.is_empty() {
        return Ok(None);
    }
    let address: SocketAddr = config.metrics.listen.parse()?;
    match listen(address, config.http.write_timeout) {
        Ok(listener) => Ok(Some(listener)),
        Err(error) if config.metrics_listen_is_set => {
            Err(error.context(format!("cannot listen on {address} (metrics.listen)")))
        }
        Err(error) => {
            tracing::warn!(
                %error,
                "{address} is taken: no metrics; set metrics.listen to have them"
            );
            Ok(None)
        }
    }
}

fn cors(origins: &[String]) -> Cors {
    const REQUEST_HEADERS: [&str; 14] = [
        "X-Auth-Token",
        "X-Identity-Status",
        "X-Roles",
        "X-Service-Catalog",
        "X-User-Id",
        "X-Tenant-Id",
        "X-OpenStack-Request-ID",
        "X-Trace-Info",
        "X-Trace-HMAC",
        "Client-id",
        "X-Project-Id",
        "Content-Type",
        "Accept",
        "Authorization",
    ];
    const RESPONSE_HEADERS: [&str; 4] =
        ["X-Auth-Token", "X-Subject-Token", "X-Service-Token", "X-OpenStack-Request-ID"];
    let cors = Cors::default()
        .allowed_methods(["GET", "PUT", "POST", "DELETE", "PATCH", "HEAD"])
        .allowed_headers(REQUEST_HEADERS)
        .expose_headers(RESPONSE_HEADERS)
        .block_on_origin_mismatch(false);
    origins.iter().fold(cors, |cors, origin| cors.allowed_origin(origin))
}
