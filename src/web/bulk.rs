//! What is done to many works at once: to those that wait and are of a pool, a function, or both.

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Permission;
use super::api::{self, Answer, Board};
use super::dashboard::{Dashboard, demand, in_time};
use super::error::ApiError;
use crate::board::WorkStatus;
use crate::engine::arrivals::{CancelAnswer, RunNowAnswer};
use crate::error::PoolError;
use crate::list::{Cursor, Place, WorkFilter};
use crate::model::{Key, WorkId};
use crate::pool::Workpool;

/// So many are taken at once at most; whoever wants more asks again.
pub(super) const MOST: usize = 1_000;

/// So many pages of the listing are looked through, which is so many works that have nothing to do with it.
const MOST_PAGES: usize = 50;

/// So many are on their way to the store at a time. It commits them together.
const AT_ONCE: usize = 50;

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BulkAction {
    Cancel,
    Run,
}

impl BulkAction {
    pub fn as_str(self) -> &'static str {
        match self {
            BulkAction::Cancel => "cancel",
            BulkAction::Run => "run",
        }
    }

    pub fn permission(self) -> Permission {
        match self {
            BulkAction::Cancel => Permission::Cancel,
            BulkAction::Run => Permission::RunNow,
        }
    }
}

/// To which works. Empty is as good as left out: forms send everything.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Bulk {
    pub pool: String,
    pub function: String,
    /// How many at most.
    #[param(schema_with = super::openapi::most_asked)]
    pub limit: String,
}

impl Bulk {
    fn limit(&self) -> Result<usize, ApiError> {
        let limit = match self.limit.as_str() {
            "" => Some(MOST),
            limit => limit.parse().ok().filter(|limit| (1..=MOST).contains(limit)),
        };
        limit.ok_or_else(|| ApiError::invalid(format!("limit is 1 to {MOST}")))
    }
}

/// The works that something is to be done to.
pub(super) struct Found {
    pub works: Vec<WorkId>,
    /// Whether there are more, or may be: not all were looked at.
    pub more: bool,
}

/// What was done.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Done {
    /// To how many works.
    pub done: usize,
    /// Whether there are more, or may be.
    pub more: bool,
}

#[utoipa::path(
    post,
    path = "/api/works/cancel",
    operation_id = "cancel_many",
    summary = "Cancels many works that wait",
    params(Bulk),
    responses((status = 200, description = "How many, and whether there are more.", body = Done))
)]
pub(super) async fn cancel(board: Board, request: HttpRequest) -> Answer {
    answer(&board, &request, BulkAction::Cancel).await
}

#[utoipa::path(
    post,
    path = "/api/works/run",
    operation_id = "run_many",
    summary = "Ends the wait of many works",
    params(Bulk),
    responses((status = 200, description = "How many, and whether there are more.", body = Done))
)]
pub(super) async fn run(board: Board, request: HttpRequest) -> Answer {
    answer(&board, &request, BulkAction::Run).await
}

async fn answer(board: &Dashboard, request: &HttpRequest, action: BulkAction) -> Answer {
    demand(request, action.permission())?;
    let bulk = api::query(request.query_string())?;
    Ok(HttpResponse::Ok().json(act(board, action, &bulk).await?))
}

/// Does it to as many works as may be.
///
/// # Errors
/// When nothing says which works, the runtime is gone or the storage failed; then it may be done to a part of them.
pub(super) async fn act(
    board: &Dashboard,
    action: BulkAction,
    bulk: &Bulk,
) -> Result<Done, ApiError> {
    let Found { works, more } = find(board, action, bulk).await?;
    let mut done = 0;
    let acted: Result<(), ApiError> = async {
        for some in works.chunks(AT_ONCE) {
            let pool = api::any_pool(board).ok_or(PoolError::Closed)?;
            let some = some.to_vec();
            done += in_time(async move {
                match action {
                    BulkAction::Cancel => cancel_some(&pool, some).await,
                    BulkAction::Run => run_some(&pool, some).await,
                }
            })
            .await?;
        }
        Ok(())
    }
    .await;
    board.changed().await;
    match acted {
        Ok(()) => Ok(Done { done, more }),
        Err(error) => {
            let message = format!("{}; {done} works were done before", error.message);
            Err(ApiError::new(error.status, error.code, message))
        }
    }
}

async fn cancel_some(pool: &Workpool, works: Vec<WorkId>) -> Result<usize, PoolError> {
    let answers = pool.cancel_batch(works).await?;
    Ok(answers.iter().filter(|answer| **answer == CancelAnswer::Requested).count())
}

async fn run_some(pool: &Workpool, works: Vec<WorkId>) -> Result<usize, PoolError> {
    let asked: Vec<_> = works
        .into_iter()
        .map(|work_id| {
            let pool = pool.clone();
            actix_web::rt::spawn(async move { pool.run_now(work_id).await })
        })
        .collect();
    let mut moved = 0;
    for asked in asked {
        let answer = asked.await.map_err(|_| PoolError::Closed)??;
        moved += usize::from(answer == RunNowAnswer::Moved);
    }
    Ok(moved)
}

/// Looks for the works that it would be done to.
///
/// # Errors
/// When nothing says which works, or they cannot be listed.
pub(super) async fn find(
    board: &Dashboard,
    action: BulkAction,
    bulk: &Bulk,
) -> Result<Found, ApiError> {
    if bulk.pool.is_empty() && bulk.function.is_empty() {
        return Err(ApiError::new(
            StatusCode::BAD_REQUEST,
            "no_filter",
            "name a pool, a function, or both",
        ));
    }
    let limit = bulk.limit()?;
    let mut next = match action {
        BulkAction::Cancel => None,
        // What is due already has no wait that could end, and stands in front.
        BulkAction::Run => {
            let now = board.runtime().shared().seams.segment();
            Some(Cursor(Place::Pending(Key { segment: now, seq: u64::MAX })))
        }
    };
    let mut works = Vec::new();
    for _ in 0..MOST_PAGES {
        let mut filter = WorkFilter::pending().limit(WorkFilter::MOST);
        if !bulk.pool.is_empty() {
            filter = filter.pool(&bulk.pool);
        }
        if !bulk.function.is_empty() {
            filter = filter.function(&bulk.function);
        }
        if let Some(next) = next {
            filter = filter.after(next).map_err(|error| ApiError::invalid(error.to_string()))?;
        }
        let page = board.list(filter).await?;
        for work in page.works {
            // One that waits for its function has no time, and one that is canceled is about to go.
            let has_time = matches!(work.status, WorkStatus::Pending { due: Some(_), .. });
            if work.canceling || action == BulkAction::Run && !has_time {
                continue;
            }
            if works.len() == limit {
                return Ok(Found { works, more: true });
            }
            works.push(work.work_id);
        }
        next = page.next;
        if next.is_none() {
            return Ok(Found { works, more: false });
        }
    }
    Ok(Found { works, more: true })
}
