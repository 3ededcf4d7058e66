//! The words in which operations are described: parameters, bodies, answers, errors.

use serde_json::Value;
use utoipa::openapi::{
    ComponentsBuilder, ContentBuilder, Header, HeaderBuilder, Ref, RefOr, Required,
    ResponseBuilder, Schema,
    extensions::Extensions,
    path::{Operation, OperationBuilder, Parameter, ParameterBuilder, ParameterIn},
    request_body::RequestBodyBuilder,
};

use super::schemas::{array, format, integer, object, text};
use crate::config::{ClientIdRule, Config};

pub(super) const JSON: &str = "application/json";

/// The errors: status, name, and when they come.
const ERRORS: [(&str, &str, &str); 10] = [
    ("400", "BadRequest", "A header, a parameter or the body is not as it must be."),
    ("403", "Forbidden", "The caller may not do this."),
    ("404", "NotFound", "What the path names does not exist."),
    ("406", "NotAcceptable", "`Accept` does not admit `application/json`."),
    ("408", "Timeout", "The body did not arrive in time."),
    ("409", "Conflict", "The change contradicts what is there."),
    ("415", "MediaType", "The content type is not the one that is taken here."),
    ("431", "HeadersTooLarge", "The headers are larger than the bound."),
    ("500", "Failure", "The queue's metadata could not be read."),
    ("503", "Unavailable", "There is too much to do, or a store failed; try again."),
];

/// An operation that is being described.
pub(super) struct OperationDoc(OperationBuilder);

/// Begins to describe an operation.
pub(super) fn operation(tag: &str, id: &str, summary: &str, why: &str) -> OperationDoc {
    let operation = OperationBuilder::new()
        .tag(tag)
        .operation_id(Some(id))
        .summary(Some(summary))
        .description(Some(why));
    OperationDoc(operation).fails(["431", "503"])
}

impl OperationDoc {
    /// It asks for an answer in JSON.
    pub(super) fn in_json(self) -> Self {
        self.fails(["400", "406"])
    }

    /// It asks who is calling.
    pub(super) fn by_caller(self) -> Self {
        self.in_json().shared("ClientId").shared("AnyProjectId")
    }

    /// It asks who is calling, and for a queue.
    pub(super) fn in_queue(self) -> Self {
        self.in_json().shared("Queue").shared("ClientId").shared("ProjectId")
    }

    /// Takes a parameter that several operations take.
    pub(super) fn shared(self, name: &str) -> Self {
        Self(self.0.parameter_ref(Ref::new(format!("#/components/parameters/{name}"))))
    }

    /// Takes a parameter in the query.
    pub(super) fn query(self, name: &str, schema: impl Into<RefOr<Schema>>, why: &str) -> Self {
        Self(self.0.parameter(parameter(ParameterIn::Query, name, schema, why)))
    }

    /// Takes a flag in the query.
    pub(super) fn flag(self, name: &str, why: &str) -> Self {
        self.query(name, Ref::from_schema_name("Flag"), why)
    }

    /// Takes a list in the query, its items joined by commas.
    pub(super) fn list(self, name: &str, max: u32, why: &str) -> Self {
        let items = array(text().min_length(Some(1)).pattern(Some("^[^,]*$")))
            .min_items(Some(1))
            .max_items(Some(max as usize));
        let list = ParameterBuilder::from(parameter(ParameterIn::Query, name, items, why));
        Self(self.0.parameter(list.explode(Some(false))))
    }

    /// Takes any further parameter of the query, as text.
    pub(super) fn other_parameters(self, name: &str, why: &str) -> Self {
        let values = object().additional_properties(Some(text()));
        let filter = ParameterBuilder::from(parameter(ParameterIn::Query, name, values, why));
        Self(self.0.parameter(filter.explode(Some(true))))
    }

    /// Takes a body, with an example of one.
    pub(super) fn body(self, media: &str, schema: &str, needed: bool, example: Value) -> Self {
        let content = ContentBuilder::new()
            .schema(Some(Ref::from_schema_name(schema)))
            .example(Some(example))
            .build();
        let required = if needed { Required::True } else { Required::False };
        let body = RequestBodyBuilder::new().content(media, content).required(Some(required));
        Self(self.0.request_body(Some(body.build()))).fails(["408"])
    }

    /// Names a query for the example of a call.
    pub(super) fn example_query(self, query: &str) -> Self {
        let query = Extensions::builder().add("x-example-query", query);
        Self(self.0.extensions(Some(query.build())))
    }

    /// Answers without a body.
    pub(super) fn empty(self, status: &str, why: &str) -> Self {
        self.answer(status, response(why))
    }

    /// Answers with JSON.
    pub(super) fn json(self, status: &str, schema: &str, why: &str) -> Self {
        self.answer(status, in_json(why, schema))
    }

    /// Answers with a response of its own.
    pub(super) fn answer(self, status: &str, response: ResponseBuilder) -> Self {
        Self(self.0.response(status, response))
    }

    /// May fail in these ways.
    pub(super) fn fails<const N: usize>(self, statuses: [&str; N]) -> Self {
        Self(statuses.into_iter().fold(self.0, |operation, status| {
            let (_, name, _) = ERRORS
                .into_iter()
                .find(|(known, ..)| *known == status)
                .expect("every error that is named is in the table");
            operation.response(status, Ref::from_response_name(name))
        }))
    }

    pub(super) fn done(self) -> Operation {
        self.0.build()
    }
}

/// A response without a body.
pub(super) fn response(why: &str) -> ResponseBuilder {
    let id = Ref::new("#/components/headers/RequestId");
    ResponseBuilder::new().description(why).header_ref("x-openstack-request-id", id)
}

/// A response in JSON.
pub(super) fn in_json(why: &str, schema: &str) -> ResponseBuilder {
    let content = ContentBuilder::new().schema(Some(Ref::from_schema_name(schema)));
    response(why).content(JSON, content.build())
}

/// A header of a response.
pub(super) fn header(schema: impl Into<RefOr<Schema>>, why: &str) -> Header {
    HeaderBuilder::new().schema(Some(schema)).description(Some(why)).build()
}

/// The path of what was made, as a header.
pub(super) fn location(why: &str) -> Header {
    header(text().pattern(Some("^/v2/queues/")), why)
}

/// A parameter; those of paths are always needed.
fn parameter(
    place: ParameterIn,
    name: &str,
    schema: impl Into<RefOr<Schema>>,
    why: &str,
) -> Parameter {
    let required = if place == ParameterIn::Path { Required::True } else { Required::False };
    ParameterBuilder::new()
        .name(name)
        .parameter_in(place)
        .required(required)
        .description(Some(why))
        .schema(Some(schema))
        .build()
}

/// Adds what operations refer to.
pub(super) fn add(components: ComponentsBuilder, config: &Config) -> ComponentsBuilder {
    let components = parameters(config)
        .into_iter()
        .fold(components, |all, (name, parameter)| all.parameter(name, parameter));
    let id = header(text().pattern(Some("^req-[0-9a-f-]{36}$")), "Names the request in the log.");
    ERRORS.into_iter().fold(components.header("RequestId", id), |all, (status, name, why)| {
        let error = ContentBuilder::new().schema(Some(Ref::from_schema_name("Error"))).build();
        let vary = header(text(), "`Accept`, which decides on JSON or XML.");
        let mut error = response(why)
            .header("Vary", vary)
            .content(JSON, error.clone())
            .content("application/xml", error.clone())
            .content("text/xml", error);
        if status == "503" {
            let seconds = integer(0, 60);
            error = error.header("Retry-After", header(seconds, "Seconds to wait before."));
        }
        all.response(name, error)
    })
}

fn parameters(config: &Config) -> [(&'static str, Parameter); 10] {
    use ParameterIn::{Header, Path, Query};
    let limits = &config.limits;
    let needed = |parameter: Parameter, example: &str| {
        let parameter = ParameterBuilder::from(parameter).required(Required::True);
        parameter.example(Some(example.into())).build()
    };
    let client = match config.compat.client_id_uuid_safe {
        ClientIdRule::Strict => format("uuid"),
        ClientIdRule::Off => text()
            .min_length(Some(limits.min_length_client_id))
            .max_length(Some(limits.max_length_client_id)),
    };
    let client = parameter(Header, "Client-ID", client, "The client that is asking.");
    let project = |schema| {
        let why = "The project that the request is for: no other sees what it has.";
        needed(parameter(Header, "X-Project-ID", schema, why), "demo")
    };
    let id = |name, why| {
        let example = "00001978b7d3c1a50000000000000001";
        needed(parameter(Path, name, text().min_length(Some(1)), why), example)
    };
    let queue = text().pattern(Some("^[A-Za-z0-9_.-]{1,64}$"));
    let queue = parameter(Path, "queue", queue, "The name of the queue.");
    let group = text().pattern(Some("^[A-Za-z0-9_.-]{1,64}$"));
    let group = parameter(Path, "group", group, "The name of the group.");
    let roles = parameter(Header, "X-Roles", text(), "The caller's roles, joined by commas.");
    let marker = "The marker of the `next` link: where the page before ended.";
    let wait = integer(0, crate::services::MAX_WAIT).default(Some(0.into()));
    let wait_text = "How many seconds to wait for messages if there are none.";
    [
        ("ClientId", needed(client, "3381af92-255e-40ac-93ff-7c8f1ad09b7a")),
        ("ProjectId", project(text().min_length(Some(1)).max_length(Some(256)))),
        ("AnyProjectId", project(text().min_length(Some(1)))),
        ("Roles", needed(roles, "admin")),
        ("Queue", needed(queue, "orders")),
        ("Group", needed(group, "billing")),
        ("Message", id("message", "The id of the message.")),
        ("Claim", id("claim", "The id of the claim.")),
        ("Marker", parameter(Query, "marker", text(), marker)),
        ("Wait", parameter(Query, "wait", wait, wait_text)),
    ]
}

/// The schema of a `limit`, or of another count that has a bound.
pub(super) fn count(max: u32) -> utoipa::openapi::ObjectBuilder {
    integer(1, i64::from(max)).default(Some(10.min(max).into()))
}
