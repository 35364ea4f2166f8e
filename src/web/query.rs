//! Parsing of requests: paths, queries and bodies.

use actix_web::http::StatusCode;
use actix_web::http::header::CONTENT_TYPE;
use actix_web::{Error, HttpMessage, HttpRequest, HttpResponse, web};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use utoipa::IntoParams;
use utoipa::openapi::schema::{Object, Schema};

use super::dashboard::Dashboard;
use super::error::ApiError;
use super::{Permission, Permissions};
use crate::model::{ConfigError, Cursor, OutcomeKind, Priority, WorkFilter, WorkId, WorkKey};
use crate::ops::schema::{size_or_nothing, words};
use crate::ops::{BulkAction, Range, key_of};

/// The default number of jobs on a page.
pub(super) const PAGE: usize = 50;

/// The maximum number of jobs on a page: lower than the limit for programs, since each job may include a result.
pub(super) const LARGEST_PAGE: usize = 200;

pub(super) type Board = web::Data<Dashboard>;
pub(super) type Answer = Result<HttpResponse, ApiError>;
pub(super) type Body = Result<web::Bytes, Error>;

/// The query of a list of jobs. Empty values count as left out, since forms send everything.
#[derive(Debug, Default, Deserialize, Serialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Filter {
    pub pool: String,
    #[param(schema_with = super::query::state_asked)]
    pub state: String,
    pub function: String,
    /// The outcome of finished jobs.
    #[param(schema_with = super::query::outcome_asked)]
    pub outcome: String,
    /// The priority of waiting or running jobs, -128 to 127, or empty.
    pub priority: String,
    /// The key of waiting or running jobs, as it is shown, or empty.
    pub key: String,
    /// The `next` of the previous page; all other parameters must be the same.
    pub cursor: String,
    #[param(schema_with = super::query::limit_asked)]
    pub limit: String,
}

impl Filter {
    pub fn works(&self) -> Result<WorkFilter, ApiError> {
        let outcome = match self.outcome.as_str() {
            "" => None,
            "success" => Some(OutcomeKind::Success),
            "failed" => Some(OutcomeKind::Failed),
            "canceled" => Some(OutcomeKind::Canceled),
            _ => return Err(ApiError::invalid("outcome is success, failed or canceled")),
        };
        let mut works = match (self.state.as_str(), outcome) {
            ("" | "finished", Some(outcome)) => WorkFilter::finished_with(outcome),
            ("finished", None) => WorkFilter::finished(),
            ("" | "pending", None) => WorkFilter::pending(),
            ("running", None) => WorkFilter::running(),
            ("pending" | "running", Some(_)) => {
                return Err(ApiError::invalid("only what is finished has an outcome"));
            }
            _ => return Err(ApiError::invalid("state is pending, running or finished")),
        };
        if !self.pool.is_empty() {
            works = works.pool(&self.pool);
        }
        if !self.function.is_empty() {
            works = works.function(&self.function);
        }
        if !self.priority.is_empty() {
            works = works.priority(priority(&self.priority)?);
        }
        let invalid = |error: ConfigError| ApiError::invalid(error.to_string());
        if !self.key.is_empty() {
            let key = key_of(&self.key);
            WorkKey::validate(&key).map_err(invalid)?;
            works = works.key(key);
        }
        if !self.cursor.is_empty() {
            let cursor: Cursor = self.cursor.parse().map_err(invalid)?;
            works = works.after(cursor).map_err(invalid)?;
        }
        let limit = match self.limit.as_str() {
            "" => Some(PAGE),
            limit => limit.parse().ok().filter(|limit| (1..=LARGEST_PAGE).contains(limit)),
        };
        let limit =
            limit.ok_or_else(|| ApiError::invalid(format!("limit is 1 to {LARGEST_PAGE}")))?;
        Ok(works.limit(limit))
    }
}

/// Parses the number of a priority.
pub(super) fn priority(text: &str) -> Result<Priority, ApiError> {
    match text.parse() {
        Ok(number) => Ok(Priority::new(number)),
        Err(_) => Err(ApiError::invalid("priority is a number from -128 to 127")),
    }
}

/// The query of the page of a list.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct ListQuery {
    pool: String,
    state: String,
    function: String,
    outcome: String,
    priority: String,
    key: String,
    cursor: String,
    limit: String,
    /// The action that led to the page, and the number of jobs that it has changed.
    did: String,
    done: Option<usize>,
}

impl ListQuery {
    pub fn split(self) -> (Filter, Option<Did>) {
        let ListQuery { pool, state, function, outcome, priority, key, cursor, limit, did, done } =
            self;
        let did = match (action_named(&did), done) {
            (Some(action), Some(done)) => Some(Did::Done { action, done }),
            (None, _) if did == NOTHING => Some(Did::Nothing),
            _ => None,
        };
        (Filter { pool, state, function, outcome, priority, key, cursor, limit }, did)
    }
}

/// The result of an action on selected jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Did {
    /// No job was selected.
    Nothing,
    Done {
        action: BulkAction,
        done: usize,
    },
}

/// The word for [`Did::Nothing`].
pub(super) const NOTHING: &str = "nothing";

/// The form of an action on selected jobs, and the list to return to.
pub(super) struct Selected {
    pub action: BulkAction,
    pub works: Vec<WorkId>,
    pub list: Filter,
}

impl Selected {
    /// Parses the form, which has as many ids as jobs were selected.
    pub fn parse(form: &str) -> Result<Selected, ApiError> {
        let fields: Vec<(String, String)> = query(form)?;
        let (mut action, mut works, mut list) = (None, Vec::new(), Filter::default());
        for (name, value) in fields {
            match name.as_str() {
                "action" => action = action_named(&value),
                "id" => works.push(work_id(&value)?),
                "pool" => list.pool = value,
                "state" => list.state = value,
                "function" => list.function = value,
                "outcome" => list.outcome = value,
                "priority" => list.priority = value,
                "key" => list.key = value,
                "limit" => list.limit = value,
                _ => return Err(ApiError::invalid("the form has an unknown field")),
            }
        }
        let action = action.ok_or_else(|| ApiError::invalid("action is cancel, run or retry"))?;
        works.truncate(LARGEST_PAGE);
        Ok(Selected { action, works, list })
    }
}

fn action_named(name: &str) -> Option<BulkAction> {
    let all = [BulkAction::Cancel, BulkAction::Run, BulkAction::Retry];
    all.into_iter().find(|action| action.as_str() == name)
}

/// The range of the charts of a page.
#[derive(Deserialize)]
pub(super) struct RangeQuery {
    #[serde(default)]
    range: String,
}

impl RangeQuery {
    pub fn range(&self) -> Result<Range, ApiError> {
        match self.range.as_str() {
            "" | "10m" => Ok(Range::Minutes),
            "24h" => Ok(Range::Day),
            _ => Err(ApiError::invalid("range is 10m or 24h")),
        }
    }
}

pub(super) fn work_id(text: &str) -> Result<WorkId, ApiError> {
    text.parse().map_err(|_| ApiError::invalid("the id of a job is a UUID"))
}

/// Parses a query, or the body of a form.
pub(super) fn query<T: DeserializeOwned>(text: &str) -> Result<T, ApiError> {
    let query = web::Query::from_query(text);
    query.map(web::Query::into_inner).map_err(|error| ApiError::invalid(error.to_string()))
}

/// Returns the body, if it has that type and is not too large.
pub(super) fn body_of(
    request: &HttpRequest,
    body: Body,
    expected: &str,
) -> Result<web::Bytes, ApiError> {
    let kind = request.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let kind = kind.and_then(|kind| kind.split(';').next()).map(str::trim);
    if !kind.is_some_and(|kind| kind.eq_ignore_ascii_case(expected)) {
        let message = format!("the body is to be {expected}");
        let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
        return Err(ApiError::new(status, "unsupported_media_type", message));
    }
    body.map_err(|error| {
        let status = error.as_response_error().status_code();
        match status {
            StatusCode::PAYLOAD_TOO_LARGE => {
                ApiError::new(status, "too_large", "the body is too large")
            }
            _ => ApiError::invalid("the body could not be read"),
        }
    })
}

/// Fails unless the sender of the request has this permission.
pub(super) fn demand(request: &HttpRequest, permission: Permission) -> Result<(), ApiError> {
    match permissions(request).allow(permission) {
        true => Ok(()),
        false => Err(ApiError::forbidden("you may look, and not do this")),
    }
}

/// Returns the sender's permissions, as found by the guard.
pub(super) fn permissions(request: &HttpRequest) -> Permissions {
    request.extensions().get().copied().unwrap_or(Permissions::read_only())
}

/// Returns the permission that this action on many jobs needs.
pub(super) fn permission_of(action: BulkAction) -> Permission {
    match action {
        BulkAction::Cancel => Permission::Cancel,
        BulkAction::Run => Permission::RunNow,
        BulkAction::Retry => Permission::Retry,
    }
}

/// Returns the schema of `state`. Empty counts as left out.
pub(super) fn state_asked() -> Object {
    words(&["", "pending", "running", "finished"]).build()
}

pub(super) fn outcome_asked() -> Object {
    words(&["", "success", "failed", "canceled"]).build()
}

pub(super) fn limit_asked() -> Schema {
    size_or_nothing(LARGEST_PAGE, PAGE)
}
