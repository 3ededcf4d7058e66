use std::future::{Ready, ready};

use actix_web::{FromRequest, HttpRequest, dev::Payload, http::header, web::Data};
use percent_encoding::percent_decode_str;
use storage_traits::domain::{ClientId, ProjectId, QueueKey, QueueName};

use crate::{
    accept,
    config::{ClientIdRule, Config},
    error::ApiError,
};

/// Admits a request whose client accepts JSON and does not post a form.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AcceptsJson;

/// The client and the project of a request.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    /// `Client-ID`.
    pub client: ClientId,
    /// `X-Project-ID`; `None` if it is too long for a project that has queues.
    pub project: Option<ProjectId>,
    /// `X-Roles`.
    pub roles: Vec<String>,
}

/// A caller, and the queue that the path names.
#[derive(Debug, Clone)]
pub(crate) struct InQueue {
    pub caller: Caller,
    pub key: QueueKey,
}

impl FromRequest for AcceptsJson {
    type Error = ApiError;
    type Future = Ready<Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(accepts_json(request))
    }
}

impl FromRequest for Caller {
    type Error = ApiError;
    type Future = Ready<Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(caller(request))
    }
}

impl FromRequest for InQueue {
    type Error = ApiError;
    type Future = Ready<Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(caller(request).and_then(|caller| {
            let key = queue_key(request, &caller)?;
            Ok(Self { caller, key })
        }))
    }
}

fn accepts_json(request: &HttpRequest) -> Result<AcceptsJson, ApiError> {
    const FORM: &str = "application/x-www-form-urlencoded";
    let headers = request.headers();
    // Signed URLs are not supported yet, so no signature is valid.
    if headers.get("url-signature").is_some_and(|signature| !signature.is_empty()) {
        return Err(ApiError::NoRoute);
    }
    let form = headers
        .get(header::CONTENT_TYPE)
        .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(FORM.as_bytes()));
    let has_body = headers.get(header::CONTENT_LENGTH).is_some_and(|length| length != "0");
    if form && has_body {
        return Err(ApiError::Form);
    }
    if accept::admits_json(accept_header(request).as_deref()) {
        Ok(AcceptsJson)
    } else {
        Err(ApiError::NotAcceptable)
    }
}

/// Returns the `Accept` header. Repeated headers are joined.
pub(crate) fn accept_header(request: &HttpRequest) -> Option<String> {
    let mut lines = request.headers().get_all(header::ACCEPT).map(|line| {
        // A header that is not text admits nothing.
        line.to_str().unwrap_or("?")
    });
    let first = lines.next()?;
    Some(lines.fold(first.to_owned(), |all, line| all + "," + line))
}

fn caller(request: &HttpRequest) -> Result<Caller, ApiError> {
    accepts_json(request)?;
    let config = request.app_data::<Data<Config>>().expect("the application carries its config");
    let client = client_id(request, config)?;
    let project = project(request)?;
    let roles = text_header(request, "x-roles")?
        .unwrap_or_default()
        .split(',')
        .map(|role| role.trim().to_ascii_lowercase())
        .filter(|role| !role.is_empty())
        .collect();
    Ok(Caller { client, project, roles })
}

fn text_header<'r>(request: &'r HttpRequest, name: &str) -> Result<Option<&'r str>, ApiError> {
    let mut values = request.headers().get_all(name);
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(ApiError::Invalid(format!("the header {name} stands twice")));
    }
    std::str::from_utf8(value.as_bytes())
        .map(Some)
        .map_err(|_| ApiError::Invalid(format!("the header {name} is not UTF-8")))
}

fn client_id(request: &HttpRequest, config: &Config) -> Result<ClientId, ApiError> {
    let missing = || {
        let text = "the \"Client-Id\" header is required".to_owned();
        ApiError::Header("Missing header value", text)
    };
    let wrong = |rule: String| {
        ApiError::Header("Wrong UUID value", format!("the \"Client-Id\" header must be {rule}"))
    };
    let id =
        text_header(request, "client-id").map_err(|_| wrong("text".into()))?.ok_or_else(missing)?;
    match config.compat.client_id_uuid_safe {
        ClientIdRule::Strict => {
            plain_uuid(id).map(|id| ClientId::new(&id)).ok_or_else(|| wrong("a UUID".into()))
        }
        ClientIdRule::Off => {
            let (min, max) =
                (config.limits.min_length_client_id, config.limits.max_length_client_id);
            if (min..=max).contains(&id.chars().count()) {
                Ok(ClientId::new(id))
            } else {
                Err(wrong(format!("{min} to {max} characters long")))
            }
        }
    }
}

/// Returns the 32 lower-case digits of a UUID, in any spelling that Python's parser accepts.
fn plain_uuid(text: &str) -> Option<String> {
    let is_plain = |b: u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
    if text.len() == 32 && text.bytes().all(is_plain) {
        return Some(text.to_owned());
    }
    let text = text.replace("urn:", "").replace("uuid:", "");
    let digits = text.trim_matches(['{', '}']).replace('-', "").to_ascii_lowercase();
    (digits.len() == 32 && digits.bytes().all(is_plain)).then_some(digits)
}

fn project(request: &HttpRequest) -> Result<Option<ProjectId>, ApiError> {
    let mut given = None;
    for name in ["x-project-id", "x-tenant-id", "x-tenant"] {
        given = text_header(request, name)?;
        if given.is_some() {
            break;
        }
    }
    match given {
        None => Err(ApiError::Header(
            "Project-Id Missing",
            "the \"X-Project-ID\" header is required".into(),
        )),
        Some("") => Err(ApiError::Header(
            "Empty project header not allowed",
            "the \"X-Project-ID\" header names no project".into(),
        )),
        Some(id) => Ok(id.parse().ok()),
    }
}

fn queue_key(request: &HttpRequest, caller: &Caller) -> Result<QueueKey, ApiError> {
    let name: QueueName =
        segment(request, "queue").parse().map_err(|e| ApiError::QueueName(format!("{e}")))?;
    let project = caller.project.clone().ok_or_else(|| {
        ApiError::QueueName(storage_traits::domain::InvalidName::Project.to_string())
    })?;
    Ok(QueueKey { project, name })
}

/// Returns a decoded segment of the path.
pub(crate) fn segment(request: &HttpRequest, name: &str) -> String {
    // The router has decoded all characters but `%`, `/` and `+`, which are decoded here.
    let raw = request.match_info().get(name).unwrap_or_default();
    percent_decode_str(raw).decode_utf8_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uuid_may_be_spelt_as_python_takes_it() {
        let plain = "3381af92255e40ac93ff7c8f1ad09b7a";
        for text in [
            plain,
            "3381af92-255e-40ac-93ff-7c8f1ad09b7a",
            "3381AF92-255E-40AC-93FF-7C8F1AD09B7A",
            "{3381af92-255e-40ac-93ff-7c8f1ad09b7a}",
            "urn:uuid:3381af92-255e-40ac-93ff-7c8f1ad09b7a",
        ] {
            assert_eq!(plain_uuid(text).as_deref(), Some(plain), "{text}");
        }
        for text in ["", "3381af92", "3381af92255e40ac93ff7c8f1ad09b7g", "{}"] {
            assert_eq!(plain_uuid(text), None, "{text}");
        }
    }
}
