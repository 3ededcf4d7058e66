//! Servers that sentinels monitor: finds the master.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::future::select_ok;
use redis::Cmd;
use storage_traits::Result;

use super::{
    connect::{Address, Connector},
    node::Node,
};
use crate::error::unavailable;

/// Finds the master of a name.
pub(super) struct Sentinel {
    sentinels: Vec<Address>,
    master: String,
    connector: Arc<Connector>,
    current: Mutex<Option<Arc<Node>>>,
    /// Held by the call that asks the sentinels.
    asking: tokio::sync::Mutex<()>,
}

impl Sentinel {
    pub(super) fn new(
        sentinels: &[(String, u16)],
        master: &str,
        connector: &Arc<Connector>,
    ) -> Self {
        let sentinels = sentinels.iter().map(|(host, port)| Address::Tcp(host.clone(), *port));
        Self {
            sentinels: sentinels.collect(),
            master: master.to_owned(),
            connector: Arc::clone(connector),
            current: Mutex::default(),
            asking: tokio::sync::Mutex::default(),
        }
    }

    fn current(&self) -> MutexGuard<'_, Option<Arc<Node>>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the master; asks all sentinels at once if it is unknown.
    pub(super) async fn node(&self) -> Result<Arc<Node>> {
        if let Some(node) = self.current().clone() {
            return Ok(node);
        }
        let _asking = self.asking.lock().await;
        if let Some(node) = self.current().clone() {
            return Ok(node);
        }
        let queries = self.sentinels.iter().map(|sentinel| Box::pin(self.ask(sentinel)));
        let (address, _) = select_ok(queries).await?;
        let node = Arc::new(Node::new(address, &self.connector));
        *self.current() = Some(Arc::clone(&node));
        Ok(node)
    }

    /// Asks one sentinel for the address of the master.
    async fn ask(&self, sentinel: &Address) -> Result<Address> {
        let mut connection = self.connector.connect_sentinel(sentinel).await?;
        let mut command = Cmd::new();
        command.arg("SENTINEL").arg("GET-MASTER-ADDR-BY-NAME").arg(&self.master);
        let reply = command.query_async::<Option<(String, u16)>>(&mut connection).await;
        match reply {
            Ok(Some((host, port))) => Ok(Address::Tcp(host, port)),
            Ok(None) => {
                Err(unavailable(format!("{sentinel} knows no master called {}", self.master)))
            }
            Err(error) => Err(unavailable(format!("{sentinel}: {error}"))),
        }
    }

    /// Forgets a node that may no longer be the master.
    pub(super) fn invalidate(&self, node: &Arc<Node>) {
        let mut current = self.current();
        if current.as_ref().is_some_and(|current| Arc::ptr_eq(current, node)) {
            *current = None;
        }
    }

    /// Closes the connections to the master.
    pub(super) fn close(&self) {
        if let Some(node) = self.current().take() {
            node.close();
        }
    }
}
