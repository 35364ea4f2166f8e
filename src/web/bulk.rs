//! What is done to many works at once: to those that wait, or have failed, and are of a pool, a function, or both.

use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use utoipa::{IntoParams, ToSchema};

use super::Permission;
use super::api::{self, Answer, Board};
use super::dashboard::{Dashboard, demand, in_time};
use super::error::ApiError;
use crate::board::WorkStatus;
use crate::engine::arrivals::{CancelAnswer, RetryAnswer, RunNowAnswer};
use crate::error::{ConfigError, PoolError};
use crate::list::{Cursor, ListedWork, OutcomeKind, Place, WorkFilter};
use crate::model::{Key, WorkId};
use crate::pool::Workpool;

/// So many are taken at once at most; whoever wants more asks again.
pub(super) const MOST: usize = 1_000;

/// For so long works that have nothing to do with it are looked through to say how many there are.
pub(super) const TO_SAY: Duration = Duration::from_millis(150);

/// And for so long to do it.
const TO_DO: Duration = Duration::from_secs(3);

/// So many are on their way to the store at a time. It commits them together.
const AT_ONCE: usize = 50;

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BulkAction {
    Cancel,
    Run,
    Retry,
}

impl BulkAction {
    pub fn as_str(self) -> &'static str {
        match self {
            BulkAction::Cancel => "cancel",
            BulkAction::Run => "run",
            BulkAction::Retry => "retry",
        }
    }

    pub fn permission(self) -> Permission {
        match self {
            BulkAction::Cancel => Permission::Cancel,
            BulkAction::Run => Permission::RunNow,
            BulkAction::Retry => Permission::Retry,
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
    /// Where to begin: the `next` of an answer before.
    pub cursor: String,
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
    /// Where to go on then, if not at the front.
    pub next: Option<Cursor>,
}

/// What was done.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Done {
    /// To how many works.
    pub done: usize,
    /// Whether there are more, or may be: not all were looked at.
    pub more: bool,
    /// The `cursor` for those, if they are not looked for from the front.
    pub next: Option<Cursor>,
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

#[utoipa::path(
    post,
    path = "/api/works/retry",
    operation_id = "retry_many",
    summary = "Enqueues many failed works once more",
    params(Bulk),
    responses((status = 200, description = "How many, and whether there are more.", body = Done))
)]
pub(super) async fn retry(board: Board, request: HttpRequest) -> Answer {
    answer(&board, &request, BulkAction::Retry).await
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
    let Found { works, more, next } = find(board, action, bulk, TO_DO).await?;
    let mut done = 0;
    let acted: Result<(), ApiError> = async {
        for some in works.chunks(AT_ONCE) {
            let pool = api::any_pool(board).ok_or(PoolError::Closed)?;
            let some = some.to_vec();
            done += in_time(async move {
                match action {
                    BulkAction::Cancel => Ok::<_, ApiError>(cancel_some(&pool, some).await?),
                    BulkAction::Run => {
                        let ran =
                            each(&pool, some, async |pool, id| pool.run_now(id).await).await?;
                        Ok(ran.into_iter().filter(|ran| *ran == RunNowAnswer::Moved).count())
                    }
                    BulkAction::Retry => {
                        let again =
                            each(&pool, some, async |pool, id| pool.retry(id).await).await?;
                        let enqueued = |one: &RetryAnswer| matches!(one, RetryAnswer::Enqueued(_));
                        Ok(again.iter().filter(|one| enqueued(one)).count())
                    }
                }
            })
            .await?;
        }
        Ok(())
    }
    .await;
    board.changed();
    match acted {
        Ok(()) => Ok(Done { done, more, next }),
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

/// Does it to each of them at the same time.
async fn each<T: 'static, E: Into<ApiError> + 'static>(
    pool: &Workpool,
    works: Vec<WorkId>,
    act: impl AsyncFn(Workpool, WorkId) -> Result<T, E> + Copy + 'static,
) -> Result<Vec<T>, ApiError> {
    let asked = works.into_iter().map(|work_id| {
        let pool = pool.clone();
        actix_web::rt::spawn(async move { act(pool, work_id).await })
    });
    let asked: Vec<_> = asked.collect();
    let mut answers = Vec::with_capacity(asked.len());
    for asked in asked {
        answers.push(asked.await.map_err(|_| PoolError::Closed)?.map_err(E::into)?);
    }
    Ok(answers)
}

/// Looks for the works that it would be done to, for about that long.
///
/// # Errors
/// When nothing says which works, or they cannot be listed.
pub(super) async fn find(
    board: &Dashboard,
    action: BulkAction,
    bulk: &Bulk,
    patience: Duration,
) -> Result<Found, ApiError> {
    if bulk.pool.is_empty() && bulk.function.is_empty() {
        return Err(ApiError::new(
            StatusCode::BAD_REQUEST,
            "no_filter",
            "name a pool, a function, or both",
        ));
    }
    let limit = bulk.limit()?;
    let invalid = |error: ConfigError| ApiError::invalid(error.to_string());
    let mut next = match action {
        _ if !bulk.cursor.is_empty() => Some(bulk.cursor.parse().map_err(invalid)?),
        BulkAction::Cancel | BulkAction::Retry => None,
        // What is due already has no wait that could end, and stands in front.
        BulkAction::Run => {
            let now = board.runtime().shared().seams.segment();
            Some(Cursor(Place::Pending(Key { segment: now, seq: u64::MAX })))
        }
    };
    let mut works = Vec::new();
    let begun = Instant::now();
    loop {
        let state = match action {
            BulkAction::Cancel | BulkAction::Run => WorkFilter::pending(),
            BulkAction::Retry => WorkFilter::finished_with(OutcomeKind::Failed),
        };
        let mut filter = state.limit(WorkFilter::MOST);
        if !bulk.pool.is_empty() {
            filter = filter.pool(&bulk.pool);
        }
        if !bulk.function.is_empty() {
            filter = filter.function(&bulk.function);
        }
        let begin = next;
        if let Some(next) = next {
            filter = filter.after(next).map_err(invalid)?;
        }
        let page = board.list(filter).await?;
        let some = page.works.iter().filter(|work| takes(action, work));
        let some = some.map(|work| work.work_id).collect();
        let some = match action {
            BulkAction::Retry => not_yet_again(board, some).await?,
            _ => some,
        };
        let room = limit - works.len();
        works.extend(some.iter().take(room));
        if some.len() > room {
            return Ok(Found { works, more: true, next: begin });
        }
        next = page.next;
        let more = next.is_some();
        if !more || begun.elapsed() >= patience {
            return Ok(Found { works, more, next });
        }
    }
}

fn takes(action: BulkAction, work: &ListedWork) -> bool {
    match (action, &work.status) {
        (BulkAction::Cancel, _) => !work.canceling,
        // One that waits for its function has no time, and one that is canceled is about to go.
        (BulkAction::Run, WorkStatus::Pending { due: Some(_), .. }) => !work.canceling,
        (BulkAction::Run, _) => false,
        (BulkAction::Retry, WorkStatus::Finished(row)) => row.can_be_retried(),
        (BulkAction::Retry, _) => false,
    }
}

/// Those that were not enqueued once more already: a failed work stays in the list.
async fn not_yet_again(board: &Dashboard, works: Vec<WorkId>) -> Result<Vec<WorkId>, ApiError> {
    let pool = api::any_pool(board).ok_or(PoolError::Closed)?;
    let again: Vec<_> = works.iter().map(|work_id| work_id.once_more()).collect();
    let statuses = board.statuses(pool, again).await?;
    let works = works.into_iter().zip(statuses);
    Ok(works
        .filter(|(_, again)| *again == WorkStatus::Unknown)
        .map(|(work_id, _)| work_id)
        .collect())
}
