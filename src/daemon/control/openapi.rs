//! The OpenAPI document of the control socket, made from the table of routes.

use serde_json::{Map, Value, json};

use crate::daemon::control::routes::{ROUTES, Route};

/// The schema of what `status --json` prints.
const STATUS_SCHEMA: &str = include_str!("../../../packaging/status.schema.json");

/// The document, as packaging/openapi.json has it.
pub fn document() -> String {
    let document = json!({
        "openapi": "3.1.0",
        "info": {
            "title": "The control socket of zg-tokend run",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "HTTP/1.1 over the Unix socket control.sock in $RUNTIME_DIRECTORY, else in \
                            $XDG_RUNTIME_DIR/zg-tokend. One request for each connection, at most 64 KiB, sent within \
                            10 s. Only the user who runs zg-tokend, and root, are served; others get 403. No reply \
                            holds a token.",
            "license": { "name": "MIT", "identifier": "MIT" },
        },
        "servers": [{ "url": "http://localhost" }],
        "paths": ROUTES.iter().map(path).collect::<Map<_, _>>(),
        "components": { "schemas": schemas() },
    });
    // Strings and numbers always encode.
    serde_json::to_string_pretty(&document).unwrap_or_default() + "\n"
}

fn path(route: &Route) -> (String, Value) {
    (route.path.to_owned(), json!({ route.method.to_ascii_lowercase(): operation(route) }))
}

fn operation(route: &Route) -> Value {
    let name = route.path.trim_start_matches("/v1/").replace('/', "_");
    let name = name.trim_start_matches('_');
    let mut operation = json!({
        "operationId": format!("{}_{name}", route.method.to_ascii_lowercase()),
        "summary": route.summary,
        "description": route.description,
        "responses": responses(route),
    });
    if route.of_account {
        operation["parameters"] = json!([{
            "name": "account",
            "in": "query",
            "description": "The account's name. Needed where there are several.",
            "schema": { "type": "string" },
        }]);
    }
    if let Some(schema) = route.body {
        operation["requestBody"] =
            json!({ "required": true, "content": { "application/json": { "schema": reference(schema) } } });
    }
    operation
}

fn responses(route: &Route) -> Value {
    let content = match route.reply {
        Some(schema) => json!({ "application/json": { "schema": reference(schema) } }),
        None => json!({ "text/plain": { "schema": { "type": "string" } } }),
    };
    let mut responses = Map::new();
    responses.insert("200".into(), json!({ "description": "Done", "content": content }));
    let of_account: &[u16] = if route.of_account { &[400, 404, 500] } else { &[] };
    let mut errors: Vec<u16> = [of_account, route.errors, &[405, 503]].concat();
    errors.sort_unstable();
    for status in errors {
        responses.insert(status.to_string(), error(status));
    }
    Value::Object(responses)
}

fn error(status: u16) -> Value {
    let description = match status {
        400 => "The request is wrong, or does not say which account is meant",
        404 => "There is no such account",
        405 => "Another method is served here",
        409 => "Only somebody can help: a login, the config or the client is to be mended",
        413 => "The body is over 64 KiB",
        415 => "The body must be JSON",
        429 => "Too soon",
        500 => "A file cannot be read or written",
        _ => "Not now: a server, a secret or a lock is not to be had, or zg-tokend begins or ends",
    };
    let mut error = json!({
        "description": description,
        "content": { "application/json": { "schema": reference("Error") } },
    });
    let header = match status {
        405 => Some(("Allow", json!({ "schema": { "type": "string" } }))),
        429 => {
            Some(("Retry-After", json!({ "required": true, "schema": { "type": "integer", "minimum": 1 } })))
        }
        503 => Some(("Retry-After", json!({ "schema": { "type": "integer", "minimum": 1 } }))),
        _ => None,
    };
    if let Some((name, header)) = header {
        error["headers"] = json!({ name: header });
    }
    error
}

fn reference(schema: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{schema}") })
}

/// The schemas that requests and replies refer to.
fn schemas() -> Map<String, Value> {
    let mut schemas = own_schemas();
    // An account is what it is in `status --json`.
    let mut status: Value = serde_json::from_str(STATUS_SCHEMA).unwrap_or_default();
    let definitions = status["$defs"].take();
    for (name, mut schema) in definitions.as_object().cloned().unwrap_or_default() {
        point_to_components(&mut schema);
        schemas.insert(component(&name).to_owned(), schema);
    }
    schemas
}

/// What a definition of the status schema is called here.
fn component(name: &str) -> &str {
    match name {
        "account" => "Status",
        "instant" => "Instant",
        "severity" => "Severity",
        other => other,
    }
}

fn point_to_components(schema: &mut Value) {
    match schema {
        Value::Object(members) => {
            for (name, member) in members {
                let target = member.as_str().and_then(|target| target.strip_prefix("#/$defs/"));
                match target.filter(|_| name == "$ref").map(component) {
                    Some(target) => *member = format!("#/components/schemas/{target}").into(),
                    None => point_to_components(member),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(point_to_components),
        _ => {}
    }
}

fn own_schemas() -> Map<String, Value> {
    let token = json!({ "type": "string", "minLength": 1, "maxLength": 16384, "pattern": "^[!-~]+$" });
    let text = json!({ "type": "string" });
    let schemas = json!({
        "Token": {
            "type": "object",
            "additionalProperties": false,
            "anyOf": [
                { "required": ["access_token"] },
                { "required": ["token"] },
                { "required": ["refresh_token"], "properties": { "expires_in": false, "expires_at": false } },
            ],
            "not": {
                "anyOf": [{ "required": ["access_token", "token"] }, { "required": ["expires_in", "expires_at"] }],
            },
            "description": "An access token, called either way, a refresh token, or both. Without expires_in and \
                            expires_at the account's default_lifetime counts.",
            "properties": {
                "access_token": token,
                "token": token,
                "refresh_token": token,
                "expires_in": { "type": "number", "minimum": 1, "description": "Seconds; a year at most counts" },
                "expires_at": { "type": "number", "description": "Unix seconds; 409 if that is over" },
            },
        },
        "Rejected": {
            "type": "object",
            "additionalProperties": false,
            "oneOf": [{ "required": ["access_token"] }, { "required": ["sha256"] }],
            "properties": {
                "access_token": token,
                "sha256": {
                    "type": "string",
                    "pattern": "^[0-9a-fA-F]{64}$",
                    "description": "Of the access token, or of the whole token file",
                },
            },
        },
        "Result": {
            "type": "object",
            "additionalProperties": false,
            "required": ["account", "result"],
            "properties": {
                "account": text,
                "result": { "enum": ["stored", "known", "replaced", "already_replaced", "reaffirmed"] },
            },
        },
        "Condition": {
            "type": "object",
            "additionalProperties": false,
            "required": ["status"],
            "properties": { "status": { "enum": ["ok", "ready"] } },
        },
        "Error": {
            "type": "object",
            "additionalProperties": false,
            "required": ["error", "error_description"],
            "properties": {
                "error": { "type": "string", "description": "A short name for machines" },
                "error_description": text,
                "hint": { "type": "string", "description": "What to do about it" },
            },
        },
    });
    schemas.as_object().cloned().unwrap_or_default()
}

#[cfg(test)]
mod tests;
