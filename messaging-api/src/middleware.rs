//! The outermost layer of every request: limits, request id, metrics, and the form of errors.

use std::{mem, rc::Rc, sync::Arc, time::Instant};

use actix_web::{
    Error, HttpMessage as _, HttpResponse,
    body::{BoxBody, MessageBody},
    dev::{ServiceRequest, ServiceResponse},
    http::{
        ConnectionType, Method, StatusCode,
        header::{self, HeaderMap},
    },
    middleware::Next,
    web::Data,
};
use tracing::Instrument as _;

use crate::{
    accept,
    config::Config,
    connections::Tracked,
    error::ApiError,
    extract::accept_header,
    in_flight::{InFlight, RequestPermit},
    metrics::{Metrics, NO_ROUTE, RouteLabel},
};

/// Why the shared data of a request cannot be missing.
const REGISTERED: &str = "startup registers the data that all requests share";

/// Handles a request within the limits, and completes its response.
pub(crate) async fn middleware<B: MessageBody + 'static>(
    mut request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let start = Instant::now();
    let id = format!("req-{}", uuid::Uuid::new_v4());
    let in_flight = Arc::clone(request.app_data::<Data<Arc<InFlight>>>().expect(REGISTERED));
    let metrics = request.app_data::<Data<Metrics>>().expect(REGISTERED).clone();
    let config = request.app_data::<Data<Config>>().expect(REGISTERED).clone();
    let method = request.method().clone();
    let max_head = config.http.max_header_bytes.as_u64();

    if let Some(connection) = request.conn_data::<Tracked>() {
        connection.busy();
    }
    let permit = Rc::new(RequestPermit::new(Arc::clone(&in_flight), config.http.max_in_flight));
    let refusal = if !permit.acquire() {
        Some(ApiError::Overloaded)
    } else if head_bytes(&request) > max_head {
        Some(ApiError::HeadersTooLarge(max_head))
    } else {
        None
    };
    request.extensions_mut().insert(Rc::clone(&permit));
    // A chunked body is never read. Its receiver is dropped at once, so that the HTTP library does
    // not wait for the body to be consumed.
    let chunked = request.headers().contains_key(header::TRANSFER_ENCODING);
    if chunked {
        drop(request.take_payload());
    }
    if request.query_string().contains("wait=") {
        shrink_to_fit(request.headers_mut());
    }
    let mut response = if let Some(refusal) = refusal {
        request.error_response(refusal)
    } else {
        let span = tracing::debug_span!("request", request.id = id, %method, path = request.path());
        match next.call(request).instrument(span).await {
            Ok(response) => response.map_into_boxed_body(),
            Err(error) => return Err(error),
        }
    };

    response = complete(response, &method, &id);
    if chunked || in_flight.is_stopping() {
        response.response_mut().head_mut().set_connection_type(ConnectionType::Close);
    }
    if let Some(connection) = response.request().conn_data::<Tracked>() {
        if chunked { connection.close_soon() } else { connection.idle() }
    }
    let route = response.request().app_data::<RouteLabel>().copied().unwrap_or(NO_ROUTE);
    metrics.request(route.0, &method, response.status(), start.elapsed());
    response.request().extensions_mut().remove::<Rc<RequestPermit>>();
    Ok(response)
}

/// Releases the spare capacity of a header map: thousands of requests may wait at once.
fn shrink_to_fit(headers: &mut HeaderMap) {
    let mut shrunk = HeaderMap::with_capacity(headers.len());
    for (name, value) in mem::take(headers) {
        shrunk.append(name, value);
    }
    *headers = shrunk;
}

/// Returns the approximate size of the request line and the headers, in bytes.
fn head_bytes(request: &ServiceRequest) -> u64 {
    let headers: usize =
        request.headers().iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    (headers + request.uri().path().len() + request.query_string().len()) as u64
}

/// Adds the request id to a response, and renders an error in the form that the client accepts.
fn complete(response: ServiceResponse, method: &Method, id: &str) -> ServiceResponse {
    let (request, mut response) = response.into_parts();
    let error = response.error().and_then(|error| error.as_error::<ApiError>());
    if let Some(failure) = error.and_then(ApiError::failure) {
        let error: &dyn std::error::Error = failure;
        let source = error.source().map(ToString::to_string);
        tracing::error!(request.id = id, %error, source, "a request failed");
    }
    if *method == Method::OPTIONS {
        // Always 200, with `Allow` if the path matches a route.
        response = replace_response(&response, HttpResponse::build(StatusCode::OK).finish());
    } else if let Some(error) = error {
        let form = accept::error_form(accept_header(&request).as_deref());
        if form != crate::error::Form::Json {
            response = replace_response(&response, error.render(form));
        }
    }
    if let Ok(value) = header::HeaderValue::from_str(id) {
        response
            .headers_mut()
            .insert(header::HeaderName::from_static("x-openstack-request-id"), value);
    }
    ServiceResponse::new(request, response)
}

/// Returns a response in place of another one, whose `Allow` and CORS headers it takes over.
fn replace_response(old: &HttpResponse, mut new: HttpResponse) -> HttpResponse {
    for (name, value) in old.headers() {
        if *name == header::ALLOW || name.as_str().starts_with("access-control-") {
            new.headers_mut().append(name.clone(), value.clone());
        }
    }
    new
}
