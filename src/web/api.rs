//! The JSON API.

use std::time::Duration;

use actix_web::{HttpRequest, HttpResponse, web};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Permission;
use super::error::ApiError;
use super::query::{Answer, Board, Body, Filter, body_of, demand, permission_of, query, work_id};
use crate::model::Priority;
use crate::ops::{
    Bulk, BulkAction, CancelAnswer, ConfigView, Done, KeysView, Overview, PageView, PoolChange,
    PoolView, PriorityAnswer, RetryAnswer, RunNowAnswer, ScheduleAction, SchedulesView, WorkDetail,
};

/// The default time in which an aborted attempt may end by itself.
const GRACE_MS: u64 = 5_000;

/// The maximum grace of an abort.
const LONGEST_GRACE_MS: u64 = 60 * 60 * 1_000;

/// Reports only whether the store answers, since the path is open to everybody.
#[utoipa::path(
    get,
    path = "/healthz",
    responses(
        (status = 200, description = "The store answers.", body = Health),
        (status = 503, description = "It does not.", body = Health)
    )
)]
pub(super) async fn healthz(board: Board) -> Answer {
    Ok(match board.operator().is_well() {
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
    Ok(HttpResponse::Ok().json(&*board.operator().overview().await?))
}

#[utoipa::path(
    get,
    path = "/api/config",
    summary = "What is set, for each pool and for all",
    responses((status = 200, description = "The configuration in force.", body = ConfigView))
)]
pub(super) async fn config(board: Board) -> HttpResponse {
    HttpResponse::Ok().json(board.operator().config())
}

#[utoipa::path(
    get,
    path = "/api/works",
    summary = "Jobs by state, a page at a time",
    params(Filter),
    responses((status = 200, description = "A page.", body = PageView))
)]
pub(super) async fn works(board: Board, request: HttpRequest) -> Answer {
    let filter: Filter = query(request.query_string())?;
    Ok(HttpResponse::Ok().json(board.operator().page(filter.works()?).await?))
}

#[utoipa::path(
    get,
    path = "/api/works/{id}",
    summary = "Where a job is, and why",
    params(("id" = uuid::Uuid, Path)),
    responses((status = 200, description = "All that is shown of it.", body = WorkDetail))
)]
pub(super) async fn work(board: Board, id: web::Path<String>) -> Answer {
    Ok(HttpResponse::Ok().json(board.operator().job(work_id(&id)?).await?))
}

#[utoipa::path(
    post,
    path = "/api/works/{id}/cancel",
    summary = "Cancels a job",
    params(("id" = uuid::Uuid, Path)),
    responses((status = 200, description = "What became of it.", body = Answered<CancelAnswer>))
)]
pub(super) async fn cancel(board: Board, request: HttpRequest, id: web::Path<String>) -> Answer {
    demand(&request, Permission::Cancel)?;
    answered(board.operator().cancel(work_id(&id)?).await?)
}

#[utoipa::path(
    post,
    path = "/api/works/{id}/abort",
    summary = "Cancels a job, and drops its attempt after a grace",
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
    answered(board.operator().abort(work_id(&id)?, Duration::from_millis(grace_ms)).await?)
}

#[utoipa::path(
    post,
    path = "/api/works/{id}/run",
    summary = "Ends the wait of a job",
    params(("id" = uuid::Uuid, Path)),
    responses((status = 200, description = "What became of it.", body = Answered<RunNowAnswer>))
)]
pub(super) async fn run(board: Board, request: HttpRequest, id: web::Path<String>) -> Answer {
    demand(&request, Permission::RunNow)?;
    answered(board.operator().run_now(work_id(&id)?).await?)
}

#[utoipa::path(
    post,
    path = "/api/works/{id}/priority",
    summary = "Changes the priority of a job that waits",
    params(("id" = uuid::Uuid, Path), NewPriority),
    responses((status = 200, description = "What became of it.", body = Answered<PriorityAnswer>))
)]
pub(super) async fn set_priority(
    board: Board,
    request: HttpRequest,
    id: web::Path<String>,
) -> Answer {
    demand(&request, Permission::SetPriority)?;
    let NewPriority { priority } = query(request.query_string())?;
    answered(board.operator().set_priority(work_id(&id)?, Priority::new(priority)).await?)
}

#[utoipa::path(
    post,
    path = "/api/works/{id}/retry",
    summary = "Enqueues a failed job once more, and once only",
    params(("id" = uuid::Uuid, Path)),
    responses((status = 200, description = "What became of it.", body = RetryAnswer))
)]
pub(super) async fn retry(board: Board, request: HttpRequest, id: web::Path<String>) -> Answer {
    demand(&request, Permission::Retry)?;
    Ok(HttpResponse::Ok().json(board.operator().retry(work_id(&id)?).await?))
}

#[utoipa::path(
    get,
    path = "/api/pools/{name}",
    summary = "One pool in numbers",
    params(("name" = String, Path)),
    responses((status = 200, description = "The pool.", body = PoolView))
)]
pub(super) async fn pool(board: Board, name: web::Path<String>) -> Answer {
    let pool = board.operator().pool(&name)?;
    Ok(HttpResponse::Ok().json(board.operator().look_at(pool).await?.0))
}

#[utoipa::path(
    patch,
    path = "/api/pools/{name}",
    summary = "Changes a pool",
    params(("name" = String, Path)),
    request_body = PoolChange,
    responses((status = 200, description = "The pool as it is then.", body = PoolView))
)]
pub(super) async fn configure(
    board: Board,
    request: HttpRequest,
    name: web::Path<String>,
    body: Body,
) -> Answer {
    demand(&request, Permission::Configure)?;
    let pool = board.operator().pool(&name)?;
    let body = body_of(&request, body, "application/json")?;
    // Parsed through an object, since serde would also accept a list of the values.
    let change: PoolChange = serde_json::from_slice::<serde_json::Map<_, _>>(&body)
        .and_then(|change| serde_json::from_value(change.into()))
        .map_err(|error| ApiError::invalid(format!("the body is not what is taken: {error}")))?;
    board.operator().configure(&pool, change).await?;
    Ok(HttpResponse::Ok().json(board.operator().look_at(pool).await?.0))
}

#[utoipa::path(
    get,
    path = "/api/pools/{name}/keys",
    summary = "The busiest keys of a pool",
    params(("name" = String, Path)),
    responses((status = 200, description = "At most 100 of them.", body = KeysView))
)]
pub(super) async fn keys(board: Board, name: web::Path<String>) -> Answer {
    let pool = board.operator().pool(&name)?;
    Ok(HttpResponse::Ok().json(board.operator().keys(pool).await?))
}

#[utoipa::path(
    get,
    path = "/api/schedules",
    summary = "Schedules, with their next times and last jobs",
    responses((status = 200, description = "All of them.", body = SchedulesView))
)]
pub(super) async fn schedules(board: Board) -> Answer {
    Ok(HttpResponse::Ok().json(board.operator().schedules().await?))
}

#[utoipa::path(
    post,
    path = "/api/schedules/{id}/pause",
    summary = "Pauses a schedule",
    params(("id" = String, Path)),
    responses((status = 200, description = "It is paused.", body = Scheduled))
)]
pub(super) async fn pause_schedule(
    board: Board,
    request: HttpRequest,
    id: web::Path<String>,
) -> Answer {
    act_on_schedule(&board, &request, &id, ScheduleAction::Pause).await
}

#[utoipa::path(
    post,
    path = "/api/schedules/{id}/resume",
    summary = "Resumes a schedule; what it did not fire meanwhile is not missed",
    params(("id" = String, Path)),
    responses((status = 200, description = "It is resumed.", body = Scheduled))
)]
pub(super) async fn resume_schedule(
    board: Board,
    request: HttpRequest,
    id: web::Path<String>,
) -> Answer {
    act_on_schedule(&board, &request, &id, ScheduleAction::Resume).await
}

#[utoipa::path(
    post,
    path = "/api/schedules/{id}/trigger",
    summary = "Enqueues the job of a schedule now",
    params(("id" = String, Path)),
    responses((status = 200, description = "The job.", body = Scheduled))
)]
pub(super) async fn trigger_schedule(
    board: Board,
    request: HttpRequest,
    id: web::Path<String>,
) -> Answer {
    act_on_schedule(&board, &request, &id, ScheduleAction::Trigger).await
}

async fn act_on_schedule(
    board: &Board,
    request: &HttpRequest,
    id: &str,
    action: ScheduleAction,
) -> Answer {
    demand(request, Permission::Schedule)?;
    let job = board.operator().act_on_schedule(id, action).await?;
    Ok(HttpResponse::Ok().json(Scheduled { work_id: job.map(|job| job.to_string()) }))
}

/// The answer of an action on a schedule.
#[derive(Serialize, ToSchema)]
struct Scheduled {
    /// The job that was enqueued, if it was triggered.
    #[schema(value_type = Option<uuid::Uuid>)]
    work_id: Option<String>,
}

#[derive(Serialize, ToSchema)]
struct Health {
    status: &'static str,
}

/// The answer of an action on a job.
#[derive(Serialize, ToSchema)]
struct Answered<T> {
    answer: T,
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Grace {
    /// The time in which the attempt may end by itself.
    #[param(maximum = 3_600_000, default = 5_000)]
    grace_ms: Option<u64>,
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct NewPriority {
    /// The number of the priority; the smallest number starts first.
    #[param(minimum = -128, maximum = 127)]
    priority: i8,
}

fn answered(answer: impl Serialize) -> Answer {
    Ok(HttpResponse::Ok().json(Answered { answer }))
}

#[utoipa::path(
    post,
    path = "/api/works/cancel",
    summary = "Cancels many jobs that wait",
    params(Bulk),
    responses((status = 200, description = "How many, and whether there are more.", body = Done))
)]
pub(super) async fn cancel_many(board: Board, request: HttpRequest) -> Answer {
    act_on_many(&board, &request, BulkAction::Cancel).await
}

#[utoipa::path(
    post,
    path = "/api/works/run",
    summary = "Ends the wait of many jobs",
    params(Bulk),
    responses((status = 200, description = "How many, and whether there are more.", body = Done))
)]
pub(super) async fn run_many(board: Board, request: HttpRequest) -> Answer {
    act_on_many(&board, &request, BulkAction::Run).await
}

#[utoipa::path(
    post,
    path = "/api/works/retry",
    summary = "Enqueues many failed jobs once more",
    params(Bulk),
    responses((status = 200, description = "How many, and whether there are more.", body = Done))
)]
pub(super) async fn retry_many(board: Board, request: HttpRequest) -> Answer {
    act_on_many(&board, &request, BulkAction::Retry).await
}

async fn act_on_many(board: &Board, request: &HttpRequest, action: BulkAction) -> Answer {
    demand(request, permission_of(action))?;
    let bulk = query(request.query_string())?;
    Ok(HttpResponse::Ok().json(board.operator().act(action, &bulk).await?))
}
