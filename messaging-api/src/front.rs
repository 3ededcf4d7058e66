//! What every request passes on its way in and out: the bounds, the request id, the metrics, the
//! form of errors.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Instant,
};

use actix_web::{
    Error, HttpResponse,
    body::{BoxBody, MessageBody},
    dev::{ServiceRequest, ServiceResponse},
    http::{ConnectionType, Method, StatusCode, header},
    middleware::Next,
    web::Data,
};
use tokio::sync::Notify;
use tracing::Instrument as _;

use crate::{
    accept,
    config::Config,
    error::ApiError,
    extract::accept_header,
    metrics::Metrics,
    routes::{NO_ROUTE, Route},
};

/// The requests under way on this node.
#[derive(Debug, Default)]
pub(crate) struct InFlight {
    count: AtomicUsize,
    stopping: AtomicBool,
    ended: Notify,
}

impl InFlight {
    /// Takes a place, if fewer than `max` are taken.
    fn enter(self: &Arc<Self>, max: usize) -> Option<Place> {
        let place = Place(Arc::clone(self));
        let before = self.count.fetch_add(1, Ordering::AcqRel);
        (before < max).then_some(place)
    }

    /// How many requests are under way.
    pub(crate) fn count(&self) -> usize {
        self.count.load(Ordering::Acquire)
    }

    /// Whether the node is about to stop.
    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// Says that the node is about to stop, and waits until nothing is under way.
    pub(crate) async fn drain(&self) {
        self.stopping.store(true, Ordering::Release);
        loop {
            let ended = self.ended.notified();
            if self.count.load(Ordering::Acquire) == 0 {
                return;
            }
            ended.await;
        }
    }
}

/// A place among the requests under way; given back when it is dropped, whatever became of the
/// request.
struct Place(Arc<InFlight>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.count.fetch_sub(1, Ordering::AcqRel);
        if self.0.is_stopping() {
            self.0.ended.notify_waiters();
        }
    }
}

/// Why shared data cannot be missing.
const CARRIED: &str = "the application carries what all requests share";

/// The outermost layer.
pub(crate) async fn front<B: MessageBody + 'static>(
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let start = Instant::now();
    let id = format!("req-{}", uuid::Uuid::new_v4());
    let in_flight = Arc::clone(request.app_data::<Data<Arc<InFlight>>>().expect(CARRIED));
    let metrics = request.app_data::<Data<Metrics>>().expect(CARRIED).clone();
    let config = request.app_data::<Data<Config>>().expect(CARRIED).clone();
    let method = request.method().clone();
    let max_head = config.http.max_header_bytes.as_u64();

    let place = in_flight.enter(config.http.max_in_flight);
    let refusal = match &place {
        None => Some(ApiError::Overloaded),
        Some(_) if head_bytes(&request) > max_head => Some(ApiError::HeadersTooLarge(max_head)),
        Some(_) => None,
    };
    let mut response = if let Some(refusal) = refusal {
        request.error_response(refusal)
    } else {
        let span = tracing::debug_span!("request", request.id = id, %method, path = request.path());
        match next.call(request).instrument(span).await {
            Ok(response) => response.map_into_boxed_body(),
            Err(error) => return Err(error),
        }
    };

    response = finish(response, &method, &id);
    if in_flight.is_stopping() {
        response.response_mut().head_mut().set_connection_type(ConnectionType::Close);
    }
    let route = response.request().app_data::<Route>().copied().unwrap_or(NO_ROUTE);
    metrics.request(route.0, &method, response.status(), start.elapsed());
    drop(place);
    Ok(response)
}

/// The bytes of the request line and the headers, near enough.
fn head_bytes(request: &ServiceRequest) -> u64 {
    let headers: usize =
        request.headers().iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    (headers + request.uri().path().len() + request.query_string().len()) as u64
}

/// Gives the response its request id, and an error the form that the client accepts.
fn finish(response: ServiceResponse, method: &Method, id: &str) -> ServiceResponse {
    let (request, mut response) = response.into_parts();
    let error = response.error().and_then(|error| error.as_error::<ApiError>());
    if let Some(failure) = error.and_then(ApiError::failure) {
        let error: &dyn std::error::Error = failure;
        let source = error.source().map(ToString::to_string);
        tracing::error!(request.id = id, %error, source, "a request failed");
    }
    if *method == Method::OPTIONS {
        // Always 200; with the methods where the request would have come to a handler.
        response = instead_of(&response, HttpResponse::build(StatusCode::OK).finish());
    } else if let Some(error) = error {
        let form = accept::error_form(accept_header(&request).as_deref());
        if form != crate::error::Form::Json {
            response = instead_of(&response, error.render(form));
        }
    }
    if let Ok(value) = header::HeaderValue::from_str(id) {
        response
            .headers_mut()
            .insert(header::HeaderName::from_static("x-openstack-request-id"), value);
    }
    ServiceResponse::new(request, response)
}

/// Another response in the place of one, with what was said about methods and origins.
fn instead_of(old: &HttpResponse, mut new: HttpResponse) -> HttpResponse {
    for (name, value) in old.headers() {
        if *name == header::ALLOW || name.as_str().starts_with("access-control-") {
            new.headers_mut().append(name.clone(), value.clone());
        }
    }
    new
}
