//! The API as an OpenAPI document. `docs/openapi.json` is a copy of it, for those who generate clients.

use std::borrow::Cow;

use actix_web::HttpResponse;
use serde::Serialize;
use utoipa::openapi::path::{Operation, Parameter, ParameterIn};
use utoipa::openapi::schema::{Object, ObjectBuilder, OneOfBuilder, Schema, SchemaType, Type};
use utoipa::openapi::{self, Components, Content, Ref, RefOr, ResponseBuilder};
use utoipa::{Modify, OpenApi, PartialSchema, ToSchema};

use super::view::Big;
use super::{api, bulk, events};
use crate::list::Cursor;
use crate::model::{Name, WorkId};

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
    // From where this document is.
    servers((url = "..", description = "The scope of the dashboard")),
    paths(
        api::healthz,
        api::overview,
        api::works,
        api::work,
        api::cancel,
        api::abort,
        api::run,
        api::retry,
        api::pool,
        api::configure,
        api::config,
        bulk::cancel,
        bulk::run,
        bulk::retry,
        events::events,
        document
    ),
    components(schemas(ErrorAnswer)),
    modifiers(&Refusals)
)]
struct Document;

/// What every error is answered with.
#[derive(Serialize, ToSchema)]
#[schema(as = Error)]
pub(super) struct ErrorAnswer<'a> {
    pub error: ErrorBody<'a>,
}

#[derive(Serialize, ToSchema)]
pub(super) struct ErrorBody<'a> {
    /// Stays the same from version to version.
    pub code: &'a str,
    pub message: &'a str,
}

/// What a request may be refused with: its status, the name of that, and why.
const REFUSALS: [(u16, &str, &str); 9] = [
    (400, "Invalid", "Something in the request is not what is taken."),
    (401, "Unauthorized", "The authorizer does not know who asks."),
    (403, "Forbidden", "Not with these permissions, or not from a page of another origin."),
    (404, "NotFound", "There is no such work or pool."),
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

/// Each operation tells how it may be refused.
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
                // Otherwise they are named after where the code is.
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
        // Open to everybody, and has its own words.
        _ => path != "/healthz",
    }
}

/// One of these words.
fn words(all: &[&str]) -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::String).enum_values(Some(all.iter().copied()))
}

pub(super) fn state() -> Object {
    words(&["pending", "running", "finished"]).build()
}

/// Empty is as good as left out.
pub(super) fn state_asked() -> Object {
    words(&["", "pending", "running", "finished"]).build()
}

pub(super) fn limit_asked() -> Schema {
    size_or_nothing(api::LARGEST_PAGE, api::PAGE)
}

pub(super) fn most_asked() -> Schema {
    size_or_nothing(bulk::MOST, bulk::MOST)
}

fn size_or_nothing(most: usize, usual: usize) -> Schema {
    let size = ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(1));
    let size = size.maximum(Some(most)).default(Some(usual.into()));
    OneOfBuilder::new().item(size).item(words(&[""])).build().into()
}

pub(super) fn run_status() -> Object {
    words(&["running", "scheduled", "idle"]).build()
}

pub(super) fn outcome_asked() -> Object {
    words(&["", "success", "failed", "canceled"]).build()
}

pub(super) fn outcome_if_any() -> Object {
    let all = [Some("success"), Some("failed"), Some("canceled"), None];
    let kinds = SchemaType::from_iter([Type::String, Type::Null]);
    ObjectBuilder::new().schema_type(kinds).enum_values(Some(all)).build()
}

/// Texts in JSON that are something else in Rust.
macro_rules! texts {
    ($($of:ty, $name:literal, $says:literal, $pattern:expr;)*) => { $(
        impl PartialSchema for $of {
            fn schema() -> RefOr<Schema> {
                let text = ObjectBuilder::new().schema_type(Type::String);
                text.description(Some($says)).pattern($pattern).build().into()
            }
        }

        impl ToSchema for $of {
            fn name() -> Cow<'static, str> {
                $name.into()
            }
        }
    )* };
}

texts! {
    Big, "Big", "A number of 64 bits.", Some("^(0|[1-9][0-9]{0,19})$");
    Name, "Name", "The name of a pool or a function.", None::<&str>;
    WorkId, "WorkId", "The id of a work, a UUID.", None::<&str>;
    Cursor, "Cursor", "Where a page ends and the next one begins.", None::<&str>;
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
