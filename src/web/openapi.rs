//! The API as an OpenAPI document. `docs/openapi.json` is a copy of it, for client generators.

use actix_web::HttpResponse;
use utoipa::openapi::path::{Operation, Parameter, ParameterIn};
use utoipa::openapi::{self, Components, Content, Ref, RefOr, ResponseBuilder};
use utoipa::{Modify, OpenApi};

use super::error::ErrorAnswer;
use super::{api, events};

/// Describes itself.
#[utoipa::path(
    get,
    path = "/api/openapi.json",
    summary = "This document",
    responses((status = 200, description = "An OpenAPI document.", body = Object))
)]
pub(super) async fn document() -> HttpResponse {
    HttpResponse::Ok().json(Document::openapi())
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "actix-workpool",
        description = "The JSON API of a dashboard. 64-bit numbers are strings, times are milliseconds since the Unix \
            epoch. Who may ask for what is decided by the service's own authorizer, which may also answer anything else. \
            What changes something, and events, must not be asked for by a page of another origin. Other methods than \
            those of a path are answered with 405, other paths with 404."
    ),
    // Relative to the address of this document.
    servers((url = "..", description = "The scope of the dashboard")),
    paths(
        api::healthz,
        api::overview,
        api::works,
        api::work,
        api::cancel,
        api::abort,
        api::run,
        api::set_priority,
        api::retry,
        api::schedules,
        api::pause_schedule,
        api::resume_schedule,
        api::trigger_schedule,
        api::pool,
        api::configure,
        api::keys,
        api::config,
        api::cancel_many,
        api::run_many,
        api::retry_many,
        events::events,
        document
    ),
    components(schemas(ErrorAnswer)),
    modifiers(&Refusals)
)]
struct Document;

/// The possible errors of a request: status, its name, and the reason.
const REFUSALS: [(u16, &str, &str); 9] = [
    (400, "Invalid", "Something in the request is not what is taken."),
    (401, "Unauthorized", "The authorizer does not know who asks."),
    (403, "Forbidden", "Not with these permissions, or not from a page of another origin."),
    (404, "NotFound", "There is no such job, pool or schedule."),
    (413, "TooLarge", "The body is too large."),
    (414, "UriTooLong", "The path and query are too long."),
    (415, "UnsupportedMediaType", "The body is of another type."),
    (421, "Misdirected", "The service is not asked for under one of its names."),
    (
        503,
        "Unavailable",
        "The store fails, does not answer in time, or is shut down; or too many listen.",
    ),
];

/// Adds the possible errors to each operation.
struct Refusals;

impl Modify for Refusals {
    fn modify(&self, document: &mut openapi::OpenApi) {
        let components = document.components.get_or_insert_with(Components::new);
        for (_, name, why) in REFUSALS {
            let content = Content::new(Some(Ref::from_schema_name("Error")));
            let response = ResponseBuilder::new().description(why);
            let response = response.content("application/json", content).build();
            components.responses.insert(name.to_owned(), response.into());
        }
        for (path, item) in &mut document.paths.paths {
            for operation in [&mut item.get, &mut item.post, &mut item.patch] {
                let Some(operation) = operation else { continue };
                // By default they are named after the module of the code.
                operation.tags = None;
                for (status, name, _) in REFUSALS {
                    if may_answer(operation, path, status) {
                        let refusal = RefOr::Ref(Ref::from_response_name(name));
                        operation.responses.responses.insert(status.to_string(), refusal);
                    }
                }
            }
        }
    }
}

fn may_answer(operation: &Operation, path: &str, status: u16) -> bool {
    let has = |place: ParameterIn| {
        let parameters = operation.parameters.iter().flatten();
        parameters.into_iter().any(|parameter| match parameter {
            RefOr::T(Parameter { parameter_in, .. }) => *parameter_in == place,
            RefOr::Ref(_) => false,
        })
    };
    match status {
        400 => has(ParameterIn::Path) || has(ParameterIn::Query),
        404 => has(ParameterIn::Path),
        413 | 415 => operation.request_body.is_some(),
        414 => true,
        // `healthz` is open to everybody, and has its own answers.
        _ => path != "/healthz",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_copy_is_what_is_served() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/openapi.json");
        let served = Document::openapi().to_pretty_json().expect("a document") + "\n";
        if std::env::var_os("WORKPOOL_WRITE_OPENAPI").is_some() {
            std::fs::write(path, &served).expect("written");
        }
        let copy = std::fs::read_to_string(path).unwrap_or_default();
        assert!(copy == served, "run this test with WORKPOOL_WRITE_OPENAPI=1, which writes {path}");
    }
}
