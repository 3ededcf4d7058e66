//! `/`: the versions of the API.

use actix_web::{HttpResponse, http::StatusCode};

use crate::extract::AcceptsJson;

const VERSIONS: &str = concat!(
    r#"{"versions":[{"id":"2","status":"CURRENT","updated":"2014-9-24T04:06:47Z","#,
    r#""media-types":[{"base":"application/json","#,
    r#""type":"application/vnd.openstack.messaging-v2+json"}],"#,
    r#""links":[{"href":"/v2/","rel":"self"}]}]}"#,
);

/// `GET /`: 300 with the only version of the API.
pub(super) async fn versions(_: AcceptsJson) -> HttpResponse {
    HttpResponse::build(StatusCode::MULTIPLE_CHOICES)
        .content_type("application/json")
        .body(VERSIONS)
}
