//! Operations on many jobs at once: on those that wait, or have failed, and are of a pool, a function, or both.

use std::future::Future;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use utoipa::{IntoParams, ToSchema};

use super::pacing::in_time;
use super::{Operator, OpsError};
use crate::client::{Client, PoolError};
use crate::engine::arrivals::{CancelAnswer, RetryAnswer, RunNowAnswer};
use crate::model::{
    ConfigError, Cursor, Key, ListedWork, OutcomeKind, Place, WorkFilter, WorkId, WorkStatus,
};

/// So many are taken at once at most; whoever wants more asks again.
pub(crate) const MOST: usize = 1_000;

/// For so long jobs that have nothing to do with it are looked through to say how many there are.
pub(crate) const TO_SAY: Duration = Duration::from_millis(150);

/// And for so long to do it.
const TO_DO: Duration = Duration::from_secs(3);

/// So many are on their way to the store at a time. It commits them together.
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

/// To which jobs. Empty is as good as left out: forms send everything.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Bulk {
    pub pool: String,
    pub function: String,
    /// The maximum number of jobs.
    #[param(schema_with = super::bulk::most_asked)]
    pub limit: String,
    /// The place to begin at: the `next` of an answer before.
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

/// The jobs that something is to be done to.
pub(crate) struct Found {
    pub works: Vec<WorkId>,
    /// `true` if there are more, or may be: not all were looked at.
    pub more: bool,
    /// The place to go on at, if not at the front.
    pub next: Option<Cursor>,
}

/// The result of an action on many jobs.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Done {
    /// To how many jobs.
    pub done: usize,
    /// `true` if there are more, or may be: not all were looked at.
    pub more: bool,
    /// The `cursor` for those, if they are not looked for from the front.
    pub next: Option<Cursor>,
}

/// The schema of `limit`: a size, or nothing.
fn most_asked() -> utoipa::openapi::schema::Schema {
    super::schema::size_or_nothing(MOST, MOST)
}

impl Operator {
    /// Does it to as many jobs as may be.
    ///
    /// # Errors
    /// Fails if nothing says which jobs, the runtime is gone or the storage failed; then it may be done to a part of them.
    pub async fn act(&self, action: BulkAction, bulk: &Bulk) -> Result<Done, OpsError> {
        let Found { works, more, next } = self.find(action, bulk, TO_DO).await?;
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
            Ok(()) => Ok(Done { done, more, next }),
            Err(cause) => Err(OpsError::Partly { done, cause: Box::new(cause) }),
        }
    }

    /// Looks for the jobs that it would be done to, for about that long.
    ///
    /// # Errors
    /// Fails if nothing says which jobs, or they cannot be listed.
    pub async fn find(
        &self,
        action: BulkAction,
        bulk: &Bulk,
        patience: Duration,
    ) -> Result<Found, OpsError> {
        if bulk.pool.is_empty() && bulk.function.is_empty() {
            return Err(OpsError::NoFilter);
        }
        let limit = bulk.limit()?;
        let mut next = match action {
            _ if !bulk.cursor.is_empty() => {
                Some(bulk.cursor.parse().map_err(|error: ConfigError| OpsError::invalid(error))?)
            }
            BulkAction::Cancel | BulkAction::Retry => None,
            // What is due already has no wait that could end, and stands in front.
            BulkAction::Run => {
                let key = Key { segment: self.now(), seq: u64::MAX };
                Some(Cursor(Place::Pending(key)))
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

/// Does it to these jobs at the same time. Says to how many it was done.
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

/// Does it to each of them at the same time.
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
        // One that waits for its function has no time, and one that is canceled is about to go.
        (BulkAction::Run, WorkStatus::Pending { due: Some(_), .. }) => !work.canceling,
        (BulkAction::Run, _) => false,
        (BulkAction::Retry, WorkStatus::Finished(row)) => {
            row.can_be_retried() && row.retried_as().is_none()
        }
        (BulkAction::Retry, _) => false,
    }
}
