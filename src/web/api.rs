//! The JSON API.

use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::http::header::CONTENT_TYPE;
use actix_web::{Error, HttpRequest, HttpResponse, web};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Permission;
use super::dashboard::{Dashboard, demand, in_time};
use super::error::ApiError;
use super::view::{ConfigView, Overview, PageView, PoolView, WorkDetail};
use crate::config::PoolConfig;
use crate::engine::arrivals::{CancelAnswer, RetryAnswer, RunNowAnswer};
use crate::error::PoolError;
use crate::explain::{Explanation, Why};
use crate::list::{Cursor, OutcomeKind, WorkFilter};
use crate::model::WorkId;
use crate::pool::Workpool;

/// How many works a page has, if nothing else is asked for.
pub(super) const PAGE: usize = 50;

/// How many it may have: fewer than a program may ask for, since each may bring a result along.
pub(super) const LARGEST_PAGE: usize = 200;

/// How long an attempt that is aborted is given to end by itself.
const GRACE_MS: u64 = 5_000;

/// Longer than that is no abort.
const LONGEST_GRACE_MS: u64 = 60 * 60 * 1_000;

pub(super) type Board = web::Data<Dashboard>;
pub(super) type Answer = Result<HttpResponse, ApiError>;
pub(super) type Body = Result<web::Bytes, Error>;

/// Says no more than whether the store answers, since everybody may ask.
#[utoipa::path(
    get,
    path = "/healthz",
    responses(
        (status = 200, description = "The store answers.", body = Health),
        (status = 503, description = "It does not.", body = Health)
    )
)]
pub(super) async fn healthz(board: Board) -> Answer {
    let shared = board.runtime().shared();
    let is_well = !shared.is_closed()
        && shared.health.trouble().is_none()
        && shared.health.stalled_since(shared.seams.segment()).is_none();
    Ok(match is_well {
        true => HttpResponse::Ok().json(Health { status: "ok" }),
        false => HttpResponse::ServiceUnavailable().json(Health { status: "unavailable" }),
    })
}

#[utoipa::path(
    get,
    path = "/api/overview",
    summary = "Each pool in numbers",
    responses((status = 200, description = "All pools of the runtime.", body = Overview))
)]
pub(super) async fn overview(board: Board) -> Answer {
    Ok(HttpResponse::Ok().json(&*board.overview().await?))
}

#[utoipa::path(
    get,
    path = "/api/config",
    summary = "What is set, for each pool and for all",
    responses((status = 200, description = "The configuration in force.", body = ConfigView))
)]
pub(super) async fn config(board: Board) -> HttpResponse {
    HttpResponse::Ok().json(ConfigView::of(board.runtime()))
}

#[utoipa::path(
    get,
    path = "/api/works",
    summary = "Works by state, a page at a time",
    params(Filter),
    responses((status = 200, description = "A page.", body = PageView))
)]
pub(super) async fn works(board: Board, request: HttpRequest) -> Answer {
    let page = page(&board, &query(request.query_string())?).await?;
    Ok(HttpResponse::Ok().json(page))
}

#[utoipa::path(
    get,
    path = "/api/works/{id}",
    summary = "Where a work is, and why",
    params(("id" = uuid::Uuid, Path)),
    responses((status = 200, description = "All that is shown of it.", body = WorkDetail))
)]
pub(super) async fn work(board: Board, id: web::Path<String>) -> Answer {
    let detail = WorkDetail::of(explain(&board, work_id(&id)?).await?, &board);
    Ok(HttpResponse::Ok().json(detail))
}

#[utoipa::path(
    post,
    path = "/api/works/{id}/cancel",
    summary = "Cancels a work",
    params(("id" = uuid::Uuid, Path)),
    responses((status = 200, description = "What became of it.", body = Answered<CancelAnswer>))
)]
pub(super) async fn cancel(board: Board, request: HttpRequest, id: web::Path<String>) -> Answer {
    demand(&request, Permission::Cancel)?;
    answered(do_cancel(&board, work_id(&id)?).await?)
}

#[utoipa::path(
    post,
    path = "/api/works/{id}/abort",
    summary = "Cancels a work, and drops its attempt after a grace",
    params(("id" = uuid::Uuid, Path), Grace),
    responses((status = 200, description = "What became of it.", body = Answered<CancelAnswer>))
)]
pub(super) async fn abort(board: Board, request: HttpRequest, id: web::Path<String>) -> Answer {
    demand(&request, Permission::Abort)?;
    let Grace { grace_ms } = query(request.query_string())?;
    let grace_ms = grace_ms.unwrap_or(GRACE_MS);
    if grace_ms > LONGEST_GRACE_MS {
        return Err(ApiError::invalid(format!("grace_ms is at most {LONGEST_GRACE_MS}")));
    }
    answered(do_abort(&board, work_id(&id)?, Duration::from_millis(grace_ms)).await?)
}

#[utoipa::path(
    post,
    path = "/api/works/{id}/run",
    summary = "Ends the wait of a work",
    params(("id" = uuid::Uuid, Path)),
    responses((status = 200, description = "What became of it.", body = Answered<RunNowAnswer>))
)]
pub(super) async fn run(board: Board, request: HttpRequest, id: web::Path<String>) -> Answer {
    demand(&request, Permission::RunNow)?;
    answered(do_run(&board, work_id(&id)?).await?)
}

#[utoipa::path(
    post,
    path = "/api/works/{id}/retry",
    summary = "Enqueues a failed work once more, and once only",
    params(("id" = uuid::Uuid, Path)),
    responses((status = 200, description = "What became of it.", body = RetryAnswer))
)]
pub(super) async fn retry(board: Board, request: HttpRequest, id: web::Path<String>) -> Answer {
    demand(&request, Permission::Retry)?;
    Ok(HttpResponse::Ok().json(do_retry(&board, work_id(&id)?).await?))
}

#[utoipa::path(
    get,
    path = "/api/pools/{name}",
    summary = "One pool in numbers",
    params(("name" = String, Path)),
    responses((status = 200, description = "The pool.", body = PoolView))
)]
pub(super) async fn pool(board: Board, name: web::Path<String>) -> Answer {
    let pool = board.runtime().pool(&name)?;
    Ok(HttpResponse::Ok().json(board.pool(pool).await?))
}

#[utoipa::path(
    patch,
    path = "/api/pools/{name}",
    summary = "Changes a pool",
    params(("name" = String, Path)),
    request_body = Change,
    responses((status = 200, description = "The pool as it is then.", body = PoolView))
)]
pub(super) async fn configure(
    board: Board,
    request: HttpRequest,
    name: web::Path<String>,
    body: Body,
) -> Answer {
    demand(&request, Permission::Configure)?;
    let pool = board.runtime().pool(&name)?;
    let body = body_of(&request, body, "application/json")?;
    // Through an object: without that, a list of the values would do as well.
    let change = serde_json::from_slice::<serde_json::Map<_, _>>(&body)
        .and_then(|change| serde_json::from_value(change.into()))
        .map_err(|error| ApiError::invalid(format!("the body is not what is taken: {error}")))?;
    do_configure(&board, &pool, change).await?;
    Ok(HttpResponse::Ok().json(board.pool(pool).await?))
}

#[derive(Serialize, ToSchema)]
struct Health {
    status: &'static str,
}

/// What a control has answered.
#[derive(Serialize, ToSchema)]
struct Answered<T> {
    answer: T,
}

/// Which works are to be listed, as the query says. Empty is as good as left out: forms send everything.
#[derive(Debug, Default, Deserialize, Serialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Filter {
    pub pool: String,
    #[param(schema_with = super::openapi::state_asked)]
    pub state: String,
    pub function: String,
    /// Of those that have finished.
    #[param(schema_with = super::openapi::outcome_asked)]
    pub outcome: String,
    /// `next` of the page before, with the same of everything else.
    pub cursor: String,
    #[param(schema_with = super::openapi::limit_asked)]
    pub limit: String,
}

impl Filter {
    fn works(&self) -> Result<WorkFilter, ApiError> {
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
        let invalid = |error: crate::error::ConfigError| ApiError::invalid(error.to_string());
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

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Grace {
    /// How long the attempt is given to end by itself.
    #[param(maximum = 3_600_000, default = 5_000)]
    grace_ms: Option<u64>,
}

/// What is to be changed of a pool.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Change {
    #[schema(maximum = 65_536)]
    pub max_parallelism: Option<usize>,
    pub paused: Option<bool>,
}

pub(super) async fn page(board: &Dashboard, filter: &Filter) -> Result<PageView, ApiError> {
    let page = board.list(filter.works()?).await?;
    Ok(PageView::of(page, board))
}

/// Why a work is where it is.
///
/// # Errors
/// When it is not known.
pub(super) async fn explain(board: &Dashboard, work_id: WorkId) -> Result<Explanation, ApiError> {
    let pool = any_pool(board).ok_or_else(|| ApiError::no_such_work(work_id))?;
    let explained = board.explain(pool, work_id).await?;
    match explained.why {
        Why::Unknown => Err(ApiError::no_such_work(work_id)),
        _ => Ok(explained),
    }
}

/// Does something to a work that is known, by its own pool: only that one has its attempt.
async fn control<T>(
    board: &Dashboard,
    work_id: WorkId,
    act: impl AsyncFnOnce(Workpool) -> Result<T, PoolError>,
) -> Result<T, ApiError> {
    let explained = explain(board, work_id).await?;
    let own = explained.pool.and_then(|name| board.runtime().pool(name.as_str()).ok());
    let pool = own.or_else(|| any_pool(board)).ok_or_else(|| ApiError::no_such_work(work_id))?;
    let answer = in_time(act(pool)).await?;
    board.changed();
    Ok(answer)
}

pub(super) async fn do_cancel(
    board: &Dashboard,
    work_id: WorkId,
) -> Result<CancelAnswer, ApiError> {
    control(board, work_id, async |pool| pool.cancel(work_id).await).await
}

pub(super) async fn do_abort(
    board: &Dashboard,
    work_id: WorkId,
    grace: Duration,
) -> Result<CancelAnswer, ApiError> {
    // In two steps, of which the second is not to be lost because nobody waits for the first any more.
    control(board, work_id, async |pool| {
        let aborting = actix_web::rt::spawn(async move { pool.abort(work_id, grace).await });
        aborting.await.map_err(|_| PoolError::Closed)?
    })
    .await
}

pub(super) async fn do_run(board: &Dashboard, work_id: WorkId) -> Result<RunNowAnswer, ApiError> {
    control(board, work_id, async |pool| pool.run_now(work_id).await).await
}

pub(super) async fn do_retry(board: &Dashboard, work_id: WorkId) -> Result<RetryAnswer, ApiError> {
    let pool = any_pool(board).ok_or_else(|| ApiError::no_such_work(work_id))?;
    let answer = in_time(pool.retry(work_id)).await?;
    board.changed();
    match answer {
        RetryAnswer::NotFound => Err(ApiError::no_such_work(work_id)),
        answer => Ok(answer),
    }
}

pub(super) async fn do_configure(
    board: &Dashboard,
    pool: &Workpool,
    change: Change,
) -> Result<(), ApiError> {
    let mut config = PoolConfig::default();
    if let Some(attempts) = change.max_parallelism {
        config = config.max_parallelism(attempts);
    }
    if let Some(paused) = change.paused {
        config = config.paused(paused);
    }
    in_time(pool.update(config)).await?;
    board.changed();
    Ok(())
}

pub(super) fn work_id(text: &str) -> Result<WorkId, ApiError> {
    text.parse().map_err(|_| ApiError::invalid("the id of a work is a UUID"))
}

/// What a query, or the body of a form, says.
pub(super) fn query<T: DeserializeOwned>(text: &str) -> Result<T, ApiError> {
    let query = web::Query::from_query(text);
    query.map(web::Query::into_inner).map_err(|error| ApiError::invalid(error.to_string()))
}

/// A body of that type that is not too large.
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

fn answered(answer: impl Serialize) -> Answer {
    Ok(HttpResponse::Ok().json(Answered { answer }))
}

/// Ids are those of a runtime, whichever pool is asked.
pub(super) fn any_pool(board: &Dashboard) -> Option<Workpool> {
    board.runtime().pools().into_iter().next()
}
