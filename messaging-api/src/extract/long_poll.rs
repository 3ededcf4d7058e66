use std::{
    future::{Ready, pending, ready},
    rc::Rc,
    time::Duration,
};

use actix_web::{FromRequest, HttpRequest, dev::Payload};
use async_trait::async_trait;

use super::{body::permit, query::Query};
use crate::{
    connections::{Peer, Tracked},
    error::ApiError,
    in_flight::RequestPermit,
    services::{MAX_WAIT, Suspend, WaitBudget},
};

/// A request that may wait: its permit, which it gives up meanwhile, and its client's connection,
/// whose close ends the wait.
pub(crate) struct LongPoll {
    permit: Rc<RequestPermit>,
    /// `None` if the connection is not tracked; its close is then not noticed.
    peer: Option<Peer>,
}

impl FromRequest for LongPoll {
    type Error = ApiError;
    type Future = Ready<Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let peer = request.conn_data::<Tracked>().map(Tracked::peer);
        ready(Ok(Self { permit: permit(request), peer }))
    }
}

impl LongPoll {
    /// Reads the parameter `wait`: 0 to 30 seconds.
    ///
    /// # Errors
    /// [`ApiError::Parameter`] if it is no integer, [`ApiError::Invalid`] if it is out of range.
    pub(crate) fn budget(self, query: &Query) -> Result<WaitBudget, ApiError> {
        match query.integer("wait")? {
            None | Some(0) => Ok(WaitBudget::none()),
            Some(seconds @ 1..=MAX_WAIT) => {
                let wait = Duration::from_secs(seconds.unsigned_abs());
                Ok(WaitBudget::new(wait, Rc::new(self)))
            }
            Some(_) => Err(ApiError::Invalid(format!("\"wait\" must be 0 to {MAX_WAIT} seconds"))),
        }
    }
}

#[async_trait(?Send)]
impl Suspend for LongPoll {
    fn suspend(&self) {
        self.permit.suspend();
    }

    fn resume(&self) -> bool {
        self.permit.acquire()
    }

    fn is_interrupted(&self) -> bool {
        self.permit.in_flight().is_stopping() || self.peer.as_ref().is_some_and(Peer::is_closed)
    }

    async fn interrupted(&self) {
        let closed = async {
            match &self.peer {
                Some(peer) => peer.closed().await,
                None => pending().await,
            }
        };
        self.permit.in_flight().stopping().run_until_cancelled(closed).await;
    }
}
