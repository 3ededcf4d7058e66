//! The shared components of the OpenAPI document, and the builder of an operation.

use serde_json::Value;
use utoipa::openapi::{
    ComponentsBuilder, ContentBuilder, Header, HeaderBuilder, Ref, RefOr, Required,
    ResponseBuilder, Schema,
    extensions::Extensions,
    path::{Operation, OperationBuilder, Parameter, ParameterBuilder, ParameterIn},
    request_body::RequestBodyBuilder,
};

use super::types::{array, format, integer, object, text};
use crate::config::{ClientIdRule, Config};

pub(super) const JSON: &str = "application/json";

/// The errors: status, name of the component, and cause.
const ERRORS: [(&str, &str, &str); 10] = [
    ("400", "BadRequest", "A header, a parameter or the body is invalid."),
    ("403", "Forbidden", "The caller is not allowed to do this."),
    ("404", "NotFound", "The queue, message, claim or group does not exist."),
    ("406", "NotAcceptable", "`Accept` does not admit `application/json`."),
    ("408", "Timeout", "The body did not arrive in time."),
    ("409", "Conflict", "The change conflicts with the current state."),
    ("415", "MediaType", "The content type of the body is not supported here."),
    ("431", "HeadersTooLarge", "The headers exceed the limit."),
    ("500", "Failure", "The queue's metadata could not be read."),
    ("503", "Unavailable", "The service is overloaded, or a store failed. Try again later."),
];

/// A builder of an operation.
pub(super) struct OperationDoc(OperationBuilder);

/// Begins an operation with its id, summary and description.
pub(super) fn operation(tag: &str, id: &str, summary: &str, description: &str) -> OperationDoc {
    let operation = OperationBuilder::new()
        .tag(tag)
        .operation_id(Some(id))
        .summary(Some(summary))
        .description(Some(description));
    OperationDoc(operation).errors(["431", "503"])
}

impl OperationDoc {
    /// Requires that the client accepts JSON.
    pub(super) fn in_json(self) -> Self {
        self.errors(["400", "406"])
    }

    /// Requires a client and a project.
    pub(super) fn by_caller(self) -> Self {
        self.in_json().shared("ClientId").shared("AnyProjectId")
    }

    /// Requires a client, a project and a queue.
    pub(super) fn in_queue(self) -> Self {
        self.in_json().shared("Queue").shared("ClientId").shared("ProjectId")
    }

    /// Adds a parameter that several operations share.
    pub(super) fn shared(self, name: &str) -> Self {
        Self(self.0.parameter_ref(Ref::new(format!("#/components/parameters/{name}"))))
    }

    /// Adds a query parameter.
    pub(super) fn query(
        self,
        name: &str,
        schema: impl Into<RefOr<Schema>>,
        description: &str,
    ) -> Self {
        Self(self.0.parameter(parameter(ParameterIn::Query, name, schema, description)))
    }

    /// Adds a boolean query parameter.
    pub(super) fn flag(self, name: &str, description: &str) -> Self {
        self.query(name, Ref::from_schema_name("Flag"), description)
    }

    /// Adds a query parameter whose values are separated by commas.
    pub(super) fn list(self, name: &str, max: u32, description: &str) -> Self {
        let items = array(text().min_length(Some(1)).pattern(Some("^[^,]*$")))
            .min_items(Some(1))
            .max_items(Some(max as usize));
        let list = ParameterBuilder::from(parameter(ParameterIn::Query, name, items, description));
        Self(self.0.parameter(list.explode(Some(false))))
    }

    /// Documents that any further query parameter is accepted, as text.
    pub(super) fn other_parameters(self, name: &str, description: &str) -> Self {
        let values = object().additional_properties(Some(text()));
        let filter =
            ParameterBuilder::from(parameter(ParameterIn::Query, name, values, description));
        Self(self.0.parameter(filter.explode(Some(true))))
    }

    /// Adds a request body with an example.
    pub(super) fn body(self, media: &str, schema: &str, required: bool, example: Value) -> Self {
        let content = ContentBuilder::new()
            .schema(Some(Ref::from_schema_name(schema)))
            .example(Some(example))
            .build();
        let required = if required { Required::True } else { Required::False };
        let body = RequestBodyBuilder::new().content(media, content).required(Some(required));
        Self(self.0.request_body(Some(body.build()))).errors(["408"])
    }

    /// Sets the query of the example call.
    pub(super) fn example_query(self, query: &str) -> Self {
        let query = Extensions::builder().add("x-example-query", query);
        Self(self.0.extensions(Some(query.build())))
    }

    /// Adds a response without a body.
    pub(super) fn empty(self, status: &str, description: &str) -> Self {
        self.response(status, response(description))
    }

    /// Adds a JSON response.
    pub(super) fn json(self, status: &str, schema: &str, description: &str) -> Self {
        self.response(status, json_response(description, schema))
    }

    /// Adds a response.
    pub(super) fn response(self, status: &str, response: ResponseBuilder) -> Self {
        Self(self.0.response(status, response))
    }

    /// Adds the errors with these statuses.
    pub(super) fn errors<const N: usize>(self, statuses: [&str; N]) -> Self {
        Self(statuses.into_iter().fold(self.0, |operation, status| {
            let (_, name, _) = ERRORS
                .into_iter()
                .find(|(known, ..)| *known == status)
                .expect("operations name only errors of the table");
            operation.response(status, Ref::from_response_name(name))
        }))
    }

    /// Returns the operation.
    pub(super) fn build(self) -> Operation {
        self.0.build()
    }
}

/// Returns a response without a body.
pub(super) fn response(description: &str) -> ResponseBuilder {
    let id = Ref::new("#/components/headers/RequestId");
    ResponseBuilder::new().description(description).header_ref("x-openstack-request-id", id)
}

/// Returns a response with a JSON body.
pub(super) fn json_response(description: &str, schema: &str) -> ResponseBuilder {
    let content = ContentBuilder::new().schema(Some(Ref::from_schema_name(schema)));
    response(description).content(JSON, content.build())
}

/// Returns a response header.
pub(super) fn header(schema: impl Into<RefOr<Schema>>, description: &str) -> Header {
    HeaderBuilder::new().schema(Some(schema)).description(Some(description)).build()
}

/// Returns a `Location` header with the path of the created object.
pub(super) fn location(description: &str) -> Header {
    header(text().pattern(Some("^/v2/queues/")), description)
}

/// Returns a parameter. Path parameters are always required.
fn parameter(
    location: ParameterIn,
    name: &str,
    schema: impl Into<RefOr<Schema>>,
    description: &str,
) -> Parameter {
    let required = if location == ParameterIn::Path { Required::True } else { Required::False };
    ParameterBuilder::new()
        .name(name)
        .parameter_in(location)
        .required(required)
        .description(Some(description))
        .schema(Some(schema))
        .build()
}

/// Adds the parameters, headers and errors that operations refer to.
pub(super) fn add(components: ComponentsBuilder, config: &Config) -> ComponentsBuilder {
    let components = parameters(config)
        .into_iter()
        .fold(components, |all, (name, parameter)| all.parameter(name, parameter));
    let id =
        header(text().pattern(Some("^req-[0-9a-f-]{36}$")), "Identifies the request in the log.");
    ERRORS.into_iter().fold(
        components.header("RequestId", id),
        |all, (status, name, description)| {
            let error = ContentBuilder::new().schema(Some(Ref::from_schema_name("Error"))).build();
            let vary = header(text(), "`Accept`, which selects JSON or XML.");
            let mut error = response(description)
                .header("Vary", vary)
                .content(JSON, error.clone())
                .content("application/xml", error.clone())
                .content("text/xml", error);
            if status == "503" {
                let seconds = integer(0, 60);
                error = error.header(
                    "Retry-After",
                    header(seconds, "Seconds to wait before the next attempt."),
                );
            }
            all.response(name, error)
        },
    )
}

fn parameters(config: &Config) -> [(&'static str, Parameter); 10] {
    use ParameterIn::{Header, Path, Query};
    let limits = &config.limits;
    let required = |parameter: Parameter, example: &str| {
        let parameter = ParameterBuilder::from(parameter).required(Required::True);
        parameter.example(Some(example.into())).build()
    };
    let client = match config.compat.client_id_uuid_safe {
        ClientIdRule::Strict => format("uuid"),
        ClientIdRule::Off => text()
            .min_length(Some(limits.min_length_client_id))
            .max_length(Some(limits.max_length_client_id)),
    };
    let client = parameter(Header, "Client-ID", client, "The id of the client.");
    let project = |schema| {
        let description =
            "The project whose queues the request uses. Projects are isolated from each other.";
        required(parameter(Header, "X-Project-ID", schema, description), "demo")
    };
    let id = |name, description| {
        let example = "00001978b7d3c1a50000000000000001";
        required(parameter(Path, name, text().min_length(Some(1)), description), example)
    };
    let queue = text().pattern(Some("^[A-Za-z0-9_.-]{1,64}$"));
    let queue = parameter(Path, "queue", queue, "The name of the queue.");
    let group = text().pattern(Some("^[A-Za-z0-9_.-]{1,64}$"));
    let group = parameter(Path, "group", group, "The name of the group.");
    let roles =
        parameter(Header, "X-Roles", text(), "The roles of the caller, separated by commas.");
    let marker = "The marker of the `next` link of the previous page.";
    let wait = integer(0, crate::services::MAX_WAIT).default(Some(0.into()));
    let wait_text = "How many seconds to wait for messages if there are none. Closing the \
                     connection ends the wait.";
    [
        ("ClientId", required(client, "3381af92-255e-40ac-93ff-7c8f1ad09b7a")),
        ("ProjectId", project(text().min_length(Some(1)).max_length(Some(256)))),
        ("AnyProjectId", project(text().min_length(Some(1)))),
        ("Roles", required(roles, "admin")),
        ("Queue", required(queue, "orders")),
        ("Group", required(group, "billing")),
        ("Message", id("message", "The id of the message.")),
        ("Claim", id("claim", "The id of the claim.")),
        ("Marker", parameter(Query, "marker", text(), marker)),
        ("Wait", parameter(Query, "wait", wait, wait_text)),
    ]
}

/// Returns the schema of a `limit`.
pub(super) fn count(max: u32) -> utoipa::openapi::ObjectBuilder {
    integer(1, i64::from(max)).default(Some(10.min(max).into()))
}
