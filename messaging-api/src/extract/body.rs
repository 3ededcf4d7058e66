use std::{
    future::{Ready, ready},
    time::Duration,
};

use actix_web::{
    FromRequest, HttpRequest,
    dev::Payload,
    http::header,
    web::{Bytes, BytesMut, Data},
};
use futures_util::StreamExt as _;

use crate::{config::Config, error::ApiError};

/// The body of a request, not yet read: a handler checks its size first.
pub(crate) struct BodyReader {
    /// `Content-Length`; without one there is no body.
    length: usize,
    timeout: Duration,
    payload: Payload,
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
        ready(Ok(Self { length, timeout: config.http.body_timeout, payload: payload.take() }))
    }
}

impl BodyReader {
    /// How long the client says that the body is.
    pub(crate) const fn length(&self) -> usize {
        self.length
    }

    /// Reads the body, if there is one.
    ///
    /// # Errors
    /// [`ApiError::Timeout`] if it does not arrive in time, [`ApiError::Body`] if it is cut short.
    pub(crate) async fn read(self) -> Result<Option<Bytes>, ApiError> {
        if self.length == 0 {
            return Ok(None);
        }
        let (length, timeout) = (self.length, self.timeout);
        tokio::time::timeout(timeout, collect(self.payload, length))
            .await
            .map_err(|_| ApiError::Timeout)?
            .map(Some)
    }

    /// Reads the body of a route that takes small ones only.
    ///
    /// # Errors
    /// As [`read`](Self::read), and [`ApiError::Body`] if the body is larger than `limit`.
    pub(crate) async fn read_small(self, limit: usize) -> Result<Option<Bytes>, ApiError> {
        if self.length > limit {
            return Err(ApiError::Body(format!("the body is larger than {limit} bytes")));
        }
        self.read().await
    }
}

async fn collect(mut payload: Payload, length: usize) -> Result<Bytes, ApiError> {
    let cut_short = |_| ApiError::Body("the body is shorter than its Content-Length".into());
    let mut next = async || payload.next().await.transpose().map_err(cut_short);
    // Most bodies come in one piece, which then is not copied.
    let first = next().await?.unwrap_or_default();
    if first.len() >= length {
        return Ok(first);
    }
    let mut body = BytesMut::with_capacity(length);
    body.extend_from_slice(&first);
    while let Some(piece) = next().await? {
        body.extend_from_slice(&piece);
    }
    Ok(body.freeze())
}
