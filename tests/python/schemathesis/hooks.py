"""Hooks for schemathesis: the media types and the data types of this API."""

import json

import schemathesis

# The media types of the JSON Patch dialect and the home document have no suffix +json.
schemathesis.serializer.alias(
    "application/openstack-messaging-v2.0-json-patch", "application/json"
)


@schemathesis.deserializer("application/json-home")
def json_home(ctx, response):
    return json.loads(response.content)


@schemathesis.hook
def map_body(ctx, body):
    """Makes numbers conform to the contract: integers have no decimal point and fit into 64 bits."""
    if isinstance(body, float) and body.is_integer() and abs(body) < 2**63:
        return int(body)
    if isinstance(body, int) and not -(2**63) <= body < 2**63:
        return float(body)
    if isinstance(body, list):
        return [map_body(ctx, item) for item in body]
    if isinstance(body, dict):
        return {key: map_body(ctx, value) for key, value in body.items()}
    return body


@schemathesis.hook
def filter_query(ctx, query):
    """Drops queries with blank names or values, which the service ignores."""
    return query is None or not is_blank(query)


def is_blank(value):
    if isinstance(value, dict):
        return any(not key or is_blank(item) for key, item in value.items())
    if isinstance(value, list):
        return not value or any(is_blank(item) for item in value)
    return value is None or value == ""
