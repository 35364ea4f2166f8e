//! Bulk operations: actions on all waiting or failed jobs of a pool, a function, or both.

use std::future::Future;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use utoipa::{IntoParams, ToSchema};

use super::pacing::in_time;
use super::{Operator, OpsError};
use crate::client::{Client, PoolError};
use crate::engine::arrivals::{CancelAnswer, RetryAnswer, RunNowAnswer};
use crate::model::{ConfigError, Cursor, ListedWork, OutcomeKind, WorkFilter, WorkId, WorkStatus};

/// The maximum number of jobs per request.
pub(crate) const MOST: usize = 1_000;

/// The time limit for searching jobs to count them.
pub(crate) const TO_SAY: Duration = Duration::from_millis(150);

/// The time limit for searching jobs to act on them.
const TO_DO: Duration = Duration::from_secs(3);

/// The number of concurrent requests to the store, which commits them together.
const AT_ONCE: usize = 50;

/// An action on many jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BulkAction {
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
}

/// The filter of a bulk operation. Empty values count as left out, since forms send everything.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Bulk {
    pub pool: String,
    pub function: String,
    /// The maximum number of jobs.
    #[param(schema_with = super::bulk::most_asked)]
    pub limit: String,
    /// The place to begin: the `next` of a previous answer.
    pub cursor: String,
}

impl Bulk {
    fn limit(&self) -> Result<usize, OpsError> {
        let limit = match self.limit.as_str() {
            "" => Some(MOST),
            limit => limit.parse().ok().filter(|limit| (1..=MOST).contains(limit)),
        };
        limit.ok_or_else(|| OpsError::Invalid(format!("limit is 1 to {MOST}")))
    }
}

/// The jobs that match a bulk operation.
pub(crate) struct Found {
    pub works: Vec<WorkId>,
    /// `true` if more jobs match, or may match because the search stopped early.
    pub more: bool,
    /// The place to continue, if not at the front.
    pub next: Option<Cursor>,
}

/// The result of an action on many jobs.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Done {
    /// The number of changed jobs.
    pub done: usize,
    /// `true` if more jobs match, or may match because the search stopped early.
    pub more: bool,
    /// The `cursor` of the next request, if it does not begin at the front.
    pub next: Option<Cursor>,
}

/// Returns the schema of `limit`: a size, or empty.
fn most_asked() -> utoipa::openapi::schema::Schema {
    super::schema::size_or_nothing(MOST, MOST)
}

impl Operator {
    /// Acts on the matching jobs, up to the limit.
    ///
    /// # Errors
    /// Fails if neither pool nor function is given, except for a retry. Also fails if the runtime is gone or the storage
    /// failed; then some jobs may be done.
    pub async fn act(&self, action: BulkAction, bulk: &Bulk) -> Result<Done, OpsError> {
        let Found { works, more, next } = self.find(action, bulk, TO_DO).await?;
        let done = self.act_on_these(action, &works).await?;
        Ok(Done { done, more, next })
    }

    /// Acts on these jobs. Returns the number of changed jobs.
    ///
    /// # Errors
    /// Fails if the runtime is gone or the storage failed; then some jobs may be done.
    pub async fn act_on_these(
        &self,
        action: BulkAction,
        works: &[WorkId],
    ) -> Result<usize, OpsError> {
        let mut done = 0;
        let mut acted = Ok(());
        for some in works.chunks(AT_ONCE) {
            match in_time(act_on(self.client(), action, some)).await {
                Ok(some) => done += some,
                Err(error) => {
                    acted = Err(error);
                    break;
                }
            }
        }
        self.changed();
        match acted {
            Ok(()) => Ok(done),
            Err(cause) => Err(OpsError::Partly { done, cause: Box::new(cause) }),
        }
    }

    /// Searches the matching jobs, for about that long.
    ///
    /// # Errors
    /// Fails if neither pool nor function is given, except for a retry, or the jobs cannot be listed.
    pub async fn find(
        &self,
        action: BulkAction,
        bulk: &Bulk,
        patience: Duration,
    ) -> Result<Found, OpsError> {
        // Only failed jobs are few, and a retry can be repeated.
        let needs_filter = action != BulkAction::Retry;
        if needs_filter && bulk.pool.is_empty() && bulk.function.is_empty() {
            return Err(OpsError::NoFilter);
        }
        let limit = bulk.limit()?;
        let mut next: Option<Cursor> = match bulk.cursor.as_str() {
            "" => None,
            cursor => Some(cursor.parse().map_err(|error: ConfigError| OpsError::invalid(error))?),
        };
        // Of jobs that are already due there is no wait to end.
        let later_than = (action == BulkAction::Run).then(|| self.now());
        let mut works = Vec::new();
        let begun = Instant::now();
        loop {
            let state = match action {
                BulkAction::Cancel | BulkAction::Run => WorkFilter::pending(),
                BulkAction::Retry => WorkFilter::finished_with(OutcomeKind::Failed),
            };
            let mut filter = state.limit(WorkFilter::MOST);
            filter.later_than = later_than;
            if !bulk.pool.is_empty() {
                filter = filter.pool(&bulk.pool);
            }
            if !bulk.function.is_empty() {
                filter = filter.function(&bulk.function);
            }
            let begin = next;
            if let Some(next) = next {
                filter = filter.after(next).map_err(OpsError::invalid)?;
            }
            let page = self.list(filter).await?;
            let some = page.works.iter().filter(|work| takes(action, work));
            let some: Vec<_> = some.map(|work| work.work_id).collect();
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
}

/// Acts on these jobs concurrently. Returns the number of changed jobs.
async fn act_on(client: &Client, action: BulkAction, works: &[WorkId]) -> Result<usize, OpsError> {
    Ok(match action {
        BulkAction::Cancel => {
            let answers = client.cancel_batch(works.to_vec()).await?;
            answers.iter().filter(|answer| **answer == CancelAnswer::Requested).count()
        }
        BulkAction::Run => {
            let ran =
                each(client, works, |client, id| async move { client.run_now(id).await }).await?;
            ran.into_iter().filter(|ran| *ran == RunNowAnswer::Moved).count()
        }
        BulkAction::Retry => {
            let again =
                each(client, works, |client, id| async move { client.retry(id).await }).await?;
            again.iter().filter(|one| matches!(one, RetryAnswer::Enqueued(_))).count()
        }
    })
}

/// Acts on each of them concurrently.
async fn each<T, E, F>(
    client: &Client,
    works: &[WorkId],
    act: impl Fn(Client, WorkId) -> F,
) -> Result<Vec<T>, OpsError>
where
    T: Send + 'static,
    E: Into<OpsError> + Send + 'static,
    F: Future<Output = Result<T, E>> + Send + 'static,
{
    let asked: Vec<_> =
        works.iter().map(|work_id| tokio::spawn(act(client.clone(), *work_id))).collect();
    let mut answers = Vec::with_capacity(asked.len());
    for asked in asked {
        answers.push(asked.await.map_err(|_| PoolError::Closed)?.map_err(E::into)?);
    }
    Ok(answers)
}

fn takes(action: BulkAction, work: &ListedWork) -> bool {
    match (action, &work.status) {
        (BulkAction::Cancel, _) => !work.canceling,
        // A job that waits for its function has no due time, and a canceled job is about to end.
        (BulkAction::Run, WorkStatus::Pending { due: Some(_), .. }) => !work.canceling,
        (BulkAction::Run, _) => false,
        (BulkAction::Retry, WorkStatus::Finished(row)) => {
            row.can_be_retried() && row.retried_as().is_none()
        }
        (BulkAction::Retry, _) => false,
    }
}
