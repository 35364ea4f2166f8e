//! What the API's description needs to say beside the views.

use serde::Serialize;
use utoipa::ToSchema;
use utoipa::openapi::schema::{Object, Schema};

use super::query::{LARGEST_PAGE, PAGE};
use crate::ops::schema::{size_or_nothing, words};

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

/// Empty is as good as left out.
pub(super) fn state_asked() -> Object {
    words(&["", "pending", "running", "finished"]).build()
}

pub(super) fn outcome_asked() -> Object {
    words(&["", "success", "failed", "canceled"]).build()
}

pub(super) fn limit_asked() -> Schema {
    size_or_nothing(LARGEST_PAGE, PAGE)
}
