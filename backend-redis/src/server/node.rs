//! One server, and the current session with it.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use storage_traits::{Result, StoreError};
use tokio::sync::Mutex as AsyncMutex;

use super::{
    connect::{Address, Connector},
    session::Session,
};
use crate::error::{ErrorChain, unavailable, unexpected};

/// A server that may be up or down.
pub(super) struct Node {
    pub(super) address: Address,
    connector: Arc<Connector>,
    session: Mutex<Option<Arc<Session>>>,
    /// Held by the call that connects: when and why the last attempt failed.
    connecting: AsyncMutex<Option<(Instant, Failure)>>,
}

/// An error that several calls return.
enum Failure {
    Unavailable(String),
    Unexpected(String),
}

impl Failure {
    fn of(error: &StoreError) -> Self {
        let text = ErrorChain(error).to_string();
        match error {
            StoreError::Unexpected { .. } => Self::Unexpected(text),
            _ => Self::Unavailable(text),
        }
    }

    fn error(&self) -> StoreError {
        match self {
            Self::Unavailable(text) => unavailable(text.as_str()),
            Self::Unexpected(text) => unexpected(text.as_str()),
        }
    }
}

impl Node {
    pub(super) fn new(address: Address, connector: &Arc<Connector>) -> Self {
        Self {
            address,
            connector: Arc::clone(connector),
            session: Mutex::default(),
            connecting: AsyncMutex::default(),
        }
    }

    fn live_session(&self) -> Option<Arc<Session>> {
        let session = self.session.lock().unwrap_or_else(PoisonError::into_inner);
        session.as_ref().filter(|session| session.is_live()).cloned()
    }

    /// Returns the live session, or starts one. Calls that wait for the same attempt share its
    /// result.
    pub(super) async fn session(&self) -> Result<Arc<Session>> {
        if let Some(session) = self.live_session() {
            return Ok(session);
        }
        let called = Instant::now();
        let mut last_failure = self.connecting.lock().await;
        if let Some(session) = self.live_session() {
            return Ok(session);
        }
        if let Some((failed, failure)) = &*last_failure
            && *failed > called
        {
            return Err(failure.error());
        }
        match Session::start(&self.address, &self.connector).await {
            Ok(session) => {
                *last_failure = None;
                tracing::info!(
                    server = %self.address,
                    durability = session.durability.as_str(),
                    "connected to redis"
                );
                let mut current = self.session.lock().unwrap_or_else(PoisonError::into_inner);
                *current = Some(Arc::clone(&session));
                Ok(session)
            }
            Err(error) => {
                *last_failure = Some((Instant::now(), Failure::of(&error)));
                Err(error)
            }
        }
    }

    /// Closes the session.
    pub(super) fn close(&self) {
        let session = self.session.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(session) = session {
            session.close();
        }
    }
}
