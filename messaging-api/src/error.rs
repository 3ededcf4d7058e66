//! The errors of the HTTP API: one table from each error to its status, title and body.

use actix_web::{
    HttpResponse, ResponseError,
    http::{StatusCode, header},
};
use storage_traits::StoreError;

use crate::services;

/// Why a request is refused or fails. The text is a clause that says what is wrong with what.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApiError {
    /// A value is out of range, or not allowed here.
    #[error("{0}")]
    Invalid(String),
    /// The body cannot be parsed, or has the wrong structure.
    #[error("{0}")]
    Body(String),
    /// A query parameter is not of its type.
    #[error("{0}")]
    Parameter(String),
    /// A header is missing or invalid. The first text is the title.
    #[error("{1}")]
    Header(&'static str, String),
    /// The body is an HTML form.
    #[error("the content type application/x-www-form-urlencoded is not accepted")]
    Form,
    /// The client does not accept JSON.
    #[error("this service answers with application/json; the Accept header must admit it")]
    NotAcceptable,
    /// The queue name or the project id breaks its rule.
    #[error("{0}")]
    QueueName(String),
    /// The object that the path names does not exist.
    #[error("{0}")]
    NotFound(String),
    /// The caller lacks the role that the call requires.
    #[error("{0}")]
    Forbidden(String),
    /// The content type of the body is not the one that the route requires.
    #[error("{0}")]
    MediaType(String),
    /// The path matches no route.
    #[error("there is no such route")]
    NoRoute,
    /// The route does not serve this method. The text lists its methods, as in `Allow`.
    #[error("the methods of this route are {0}")]
    Method(&'static str),
    /// The body did not arrive in time.
    #[error("the body of the request did not arrive in time")]
    Timeout,
    /// The headers exceed the limit, in bytes.
    #[error("the headers of the request are larger than {0} bytes")]
    HeadersTooLarge(u64),
    /// Too many requests are in flight.
    #[error("too many requests are in flight")]
    Overloaded,
    /// A service refused or failed the call.
    #[error(transparent)]
    Service(#[from] services::Error),
}

impl ApiError {
    /// Returns the status and the title of each error.
    fn kind(&self) -> (StatusCode, &'static str) {
        match self {
            Self::Invalid(_) => (StatusCode::BAD_REQUEST, "Invalid API request"),
            Self::Body(_) => (StatusCode::BAD_REQUEST, "Invalid request body"),
            Self::Parameter(_) => (StatusCode::BAD_REQUEST, "Invalid parameter"),
            Self::Header(title, _) => (StatusCode::BAD_REQUEST, title),
            Self::Form => (StatusCode::BAD_REQUEST, "Invalid Content-Type"),
            Self::NotAcceptable => (StatusCode::NOT_ACCEPTABLE, "406 Not Acceptable"),
            Self::QueueName(_) => (StatusCode::BAD_REQUEST, "Invalid queue identification"),
            Self::NotFound(_) => (StatusCode::NOT_FOUND, "Not found"),
            Self::Forbidden(_) => (StatusCode::FORBIDDEN, "Not authorized"),
            Self::MediaType(_) => {
                (StatusCode::UNSUPPORTED_MEDIA_TYPE, "415 Unsupported Media Type")
            }
            Self::NoRoute => (StatusCode::NOT_FOUND, "404 Not Found"),
            Self::Method(_) => (StatusCode::METHOD_NOT_ALLOWED, "405 Method Not Allowed"),
            Self::Timeout => (StatusCode::REQUEST_TIMEOUT, "408 Request Timeout"),
            Self::HeadersTooLarge(_) => {
                (StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "431 Request Header Fields Too Large")
            }
            Self::Overloaded => UNAVAILABLE,
            Self::Service(error) => service_kind(error),
        }
    }

    /// Returns the text for the client; `None` where the framework answers. The text of a store's
    /// failure is for the log only.
    fn description(&self) -> Option<String> {
        use services::Error as S;
        match self {
            Self::NoRoute | Self::Method(_) => None,
            Self::Overloaded
            | Self::Service(S::Overloaded | S::Store(StoreError::Overloaded { .. })) => {
                Some("The service has too much to do. Please try again in a few seconds.".into())
            }
            Self::Service(S::Store(
                StoreError::Unavailable { .. } | StoreError::Unexpected { .. },
            )) => Some("The message store failed. Please try again in a few seconds.".into()),
            _ => Some(sentence(&self.to_string())),
        }
    }

    /// Returns the failure of a store, which an operator must see.
    pub(crate) fn failure(&self) -> Option<&StoreError> {
        use services::Error as S;
        let Self::Service(error) = self else { return None };
        match error {
            S::QueueLookup(error)
            | S::Store(error @ (StoreError::Unavailable { .. } | StoreError::Unexpected { .. })) => {
                Some(error)
            }
            _ => None,
        }
    }

    /// Renders the error in a form.
    pub(crate) fn render(&self, form: Form) -> HttpResponse {
        let (status, title) = self.kind();
        let mut response = HttpResponse::build(status);
        response.insert_header((header::VARY, "Accept"));
        match self {
            Self::Method(allow) => {
                response.insert_header((header::ALLOW, *allow));
            }
            Self::Timeout | Self::HeadersTooLarge(_) => {
                response.force_close();
            }
            _ if status == StatusCode::SERVICE_UNAVAILABLE => {
                response.insert_header((header::RETRY_AFTER, "1"));
            }
            _ => {}
        }
        let description = self.description();
        let help = matches!(self, Self::NotAcceptable);
        match form {
            Form::Json => response.content_type("application/json").body(as_json(
                title,
                description.as_deref(),
                help,
            )),
            Form::Xml(content_type) => response.content_type(content_type).body(as_xml(
                title,
                description.as_deref(),
                help,
            )),
            Form::Empty => response.finish(),
        }
    }
}

const UNAVAILABLE: (StatusCode, &str) =
    (StatusCode::SERVICE_UNAVAILABLE, "Service temporarily unavailable");

/// Returns the status and the title of each error of a service.
fn service_kind(error: &services::Error) -> (StatusCode, &'static str) {
    use services::Error as S;
    match error {
        S::InvalidValue(_) => (StatusCode::BAD_REQUEST, "Invalid API request"),
        S::WrongType(_) | S::InvalidPatch(_) => (StatusCode::BAD_REQUEST, "Invalid request body"),
        S::MessageClaimed(_) => (StatusCode::FORBIDDEN, "Unable to delete"),
        S::ClaimMismatch(_) => (StatusCode::BAD_REQUEST, "Unable to delete"),
        S::NotFound(_) | S::Store(StoreError::NotFound { .. }) => {
            (StatusCode::NOT_FOUND, "Not found")
        }
        S::Conflict(_) | S::Store(StoreError::Conflict { .. }) => {
            (StatusCode::CONFLICT, "Resource conflict")
        }
        // Zaqar v2 API, posting messages: this failure is not answered with 503.
        S::QueueLookup(_) => (StatusCode::INTERNAL_SERVER_ERROR, "Internal server error"),
        S::Overloaded
        | S::Store(
            StoreError::Overloaded { .. }
            | StoreError::Unavailable { .. }
            | StoreError::Unexpected { .. },
        ) => UNAVAILABLE,
    }
}

impl ResponseError for ApiError {
    fn status_code(&self) -> StatusCode {
        self.kind().0
    }

    /// Renders JSON. The middleware renders the error again for a client that prefers another form.
    fn error_response(&self) -> HttpResponse {
        self.render(Form::Json)
    }
}

/// The form of an error's body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    Json,
    /// XML, with the media type that the client prefers.
    Xml(&'static str),
    /// No body: the client accepts neither.
    Empty,
}

const HELP: [(&str, &str); 3] =
    [("text", "Media types of this API"), ("href", "/v2/"), ("rel", "help")];

fn as_json(title: &str, description: Option<&str>, help: bool) -> String {
    let mut body = serde_json::Map::new();
    body.insert("title".into(), title.into());
    if let Some(description) = description {
        body.insert("description".into(), description.into());
    }
    if help {
        let link = HELP.map(|(key, value)| (key.to_owned(), value.into()));
        body.insert("link".into(), serde_json::Map::from_iter(link).into());
    }
    serde_json::Value::Object(body).to_string()
}

fn as_xml(title: &str, description: Option<&str>, help: bool) -> String {
    let element = |name: &str, text: &str| format!("<{name}>{}</{name}>", escape(text));
    let description = description.map_or(String::new(), |text| element("description", text));
    let link: String = HELP.iter().map(|(name, text)| element(name, text)).collect();
    let link = if help { format!("<link>{link}</link>") } else { String::new() };
    format!("<error>{}{description}{link}</error>", element("title", title))
}

/// Escapes a text for XML, and replaces the characters that XML does not allow.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '\t' | '\n' | '\r' | ' '..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'.. => {
                escaped.push(c);
            }
            _ => escaped.push('\u{fffd}'),
        }
    }
    escaped
}

/// Turns the clause of an error, as the log shows it, into a sentence for the client.
fn sentence(clause: &str) -> String {
    let mut chars = clause.chars();
    let first = chars.next().map(|c| c.to_ascii_uppercase());
    let end = if clause.ends_with(['.', '?', '!']) { "" } else { "." };
    first.into_iter().chain(chars).chain(end.chars()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_its_title_before_its_description() {
        let json = as_json("Invalid parameter", Some("\"limit\" must be a number."), false);
        assert_eq!(
            json,
            r#"{"title":"Invalid parameter","description":"\"limit\" must be a number."}"#
        );
    }

    #[test]
    fn xml_is_escaped() {
        assert_eq!(
            as_xml("a<b", Some("c&\u{1}"), false),
            "<error><title>a&lt;b</title><description>c&amp;\u{fffd}</description></error>"
        );
    }

    #[test]
    fn a_clause_becomes_a_sentence() {
        assert_eq!(sentence("the name is too long"), "The name is too long.");
        assert_eq!(sentence("\"limit\" is off"), "\"limit\" is off.");
    }
}
