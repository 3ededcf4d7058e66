use std::{
    future::{Ready, ready},
    pin::pin,
    rc::Rc,
    time::Duration,
};

use actix_web::{
    FromRequest, HttpMessage as _, HttpRequest,
    dev::Payload,
    http::header,
    web::{Bytes, BytesMut, Data},
};
use futures_util::StreamExt as _;
use serde_json::{Map, Value};

use crate::{config::Config, error::ApiError, in_flight::RequestPermit, json};

/// The unread body of a request. A handler checks its length before it reads it.
pub(crate) struct BodyReader {
    /// `Content-Length`; 0 if the header is missing.
    length: usize,
    timeout: Duration,
    max_receiving: usize,
    permit: Rc<RequestPermit>,
    payload: Payload,
    /// The bytes that were received by [`during`](Self::during).
    early: BytesMut,
    /// Why [`during`](Self::during) stopped receiving.
    refusal: Option<ApiError>,
}

impl FromRequest for BodyReader {
    type Error = ApiError;
    type Future = Ready<Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let config =
            request.app_data::<Data<Config>>().expect("the application carries its config");
        let length = request
            .headers()
            .get(header::CONTENT_LENGTH)
            .and_then(|length| length.to_str().ok()?.parse().ok())
            .unwrap_or(0);
        let max_receiving = config.http.max_receiving.as_u64();
        ready(Ok(Self {
            length,
            timeout: config.http.body_timeout,
            max_receiving: usize::try_from(max_receiving).unwrap_or(usize::MAX),
            permit: permit(request),
            payload: payload.take(),
            early: BytesMut::new(),
            refusal: None,
        }))
    }
}

/// Returns the permit of a request.
pub(super) fn permit(request: &HttpRequest) -> Rc<RequestPermit> {
    request
        .extensions()
        .get::<Rc<RequestPermit>>()
        .cloned()
        .expect("the middleware gives every request a permit")
}

impl BodyReader {
    /// Returns the length that the client declares.
    pub(crate) const fn length(&self) -> usize {
        self.length
    }

    /// Awaits `work`, and receives the body meanwhile unless it is longer than `max`.
    ///
    /// A client may close its side as soon as its request is sent. The HTTP library then discards
    /// the part of the body that it has not handed over.
    pub(crate) async fn during<T>(&mut self, max: usize, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        let wanted = if self.length <= max { self.length } else { 0 };
        loop {
            let piece = tokio::select! {
                biased;
                done = &mut work => return done,
                piece = self.payload.next(),
                    if self.early.len() < wanted && self.refusal.is_none() => piece,
            };
            match piece {
                Some(Ok(piece))
                    if self.permit.reserve_body_bytes(piece.len(), self.max_receiving) =>
                {
                    self.early.extend_from_slice(&piece);
                }
                Some(Ok(_)) => self.refusal = Some(ApiError::Overloaded),
                Some(Err(_)) | None => self.refusal = Some(truncated()),
            }
        }
    }

    /// Reads the body. Returns `None` if there is none.
    ///
    /// # Errors
    /// [`ApiError::Timeout`] if it does not arrive in time, [`ApiError::Body`] if it is truncated,
    /// [`ApiError::Overloaded`] if the limit of memory for bodies is reached.
    pub(crate) async fn read(self) -> Result<Option<Bytes>, ApiError> {
        if self.length == 0 {
            return Ok(None);
        }
        self.permit.suspend();
        let (permit, timeout) = (Rc::clone(&self.permit), self.timeout);
        let body = tokio::time::timeout(timeout, self.collect())
            .await
            .map_err(|_| ApiError::Timeout)??;
        if permit.acquire() { Ok(Some(body)) } else { Err(ApiError::Overloaded) }
    }

    /// Reads a body of at most `limit` bytes.
    ///
    /// # Errors
    /// As [`read`](Self::read), and [`ApiError::Body`] if the body is larger than `limit`.
    pub(crate) async fn read_small(self, limit: usize) -> Result<Option<Bytes>, ApiError> {
        if self.length > limit {
            return Err(ApiError::Body(format!("the body is larger than {limit} bytes")));
        }
        self.read().await
    }

    /// Reads an optional JSON object. Returns an empty object if there is no body.
    ///
    /// # Errors
    /// As [`read_small`](Self::read_small), and as [`json::object`].
    pub(crate) async fn read_optional_object(
        self,
        limit: usize,
    ) -> Result<Map<String, Value>, ApiError> {
        match self.read_small(limit).await? {
            Some(bytes) => json::object(&bytes),
            None => Ok(Map::new()),
        }
    }

    /// Reads a required JSON object.
    ///
    /// # Errors
    /// As [`read_small`](Self::read_small), and as [`json::object`].
    pub(crate) async fn read_object(self, limit: usize) -> Result<Map<String, Value>, ApiError> {
        json::object(&self.read_small(limit).await?.unwrap_or_default())
    }

    async fn collect(self) -> Result<Bytes, ApiError> {
        let Self { length, max_receiving, permit, mut payload, early: mut body, .. } = self;
        if let Some(refusal) = self.refusal {
            return Err(refusal);
        }
        if body.len() >= length {
            return Ok(body.freeze());
        }
        let mut next = async || payload.next().await.transpose().map_err(|_| truncated());
        let mut piece = next().await?.unwrap_or_default();
        // Most bodies arrive in one piece, which is not copied.
        if piece.len() >= length {
            return Ok(piece);
        }
        // The buffer grows with the received bytes, not with the declared length.
        loop {
            if !permit.reserve_body_bytes(piece.len(), max_receiving) {
                return Err(ApiError::Overloaded);
            }
            body.extend_from_slice(&piece);
            match next().await? {
                Some(more) => piece = more,
                None => return Ok(body.freeze()),
            }
        }
    }
}

fn truncated() -> ApiError {
    ApiError::Body("the body is shorter than its Content-Length".into())
}
