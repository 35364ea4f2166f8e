//! The operator: questions and actions on a runtime, paced so that they do not slow the pools down.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::Deserialize;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};
use utoipa::ToSchema;

use super::activity::Totals;
use super::pacing::{Turns, in_time, until_answered};
use super::views::{ConfigView, Overview, PageView, PoolView, WorkDetail};
use super::{CancelAnswer, OpsError, PriorityAnswer, Redaction, RetryAnswer, RunNowAnswer};
use crate::client::{Client, KeyStatus, Workpool};
use crate::engine::explain::Why;
use crate::model::{PoolConfig, Priority, Segment, WorkFilter, WorkId, WorkPage};
use crate::protocol::Listing;
use crate::shared::rates::Recent;

/// The minimum interval between two snapshots of the pools, however many callers ask.
const OVERVIEW_AGE: Duration = Duration::from_millis(250);

/// The maximum age of the totals beside other content.
const TOTALS_AGE: Duration = Duration::from_secs(2);

/// The maximum wait for those totals: the content is more important.
const TOTALS_PATIENCE: Duration = Duration::from_millis(150);

/// The pause after the look-up of one pool.
const PAUSE_AFTER_POOL: Duration = Duration::from_micros(20);

/// The pause after an explanation, which counts up to a thousand jobs that come first.
const PAUSE_AFTER_EXPLANATION: Duration = Duration::from_millis(4);

/// The pause after the look-up of keys, as a multiple of the time that it took, and its maximum.
const PAUSE_AFTER_KEYS: u32 = 10;
const LONGEST_PAUSE_AFTER_KEYS: Duration = Duration::from_millis(200);

/// A snapshot of the pools, with its time and the number of changes before it.
struct Look {
    at: Instant,
    changes: u64,
    overview: Arc<Overview>,
}

/// The operator of a runtime. Clones share one operator.
#[derive(Clone)]
pub(crate) struct Operator {
    client: Client,
    pub redaction: Redaction,
    /// The last snapshot of the pools. Locked while a caller takes one, so that no other caller does.
    last: Arc<Mutex<Option<Look>>>,
    /// The number of changes made by this operator.
    changes: Arc<AtomicU64>,
    reads: Turns,
    /// The queue for explanations. They work without an answer of the store, so they have their own queue.
    explanations: Turns,
}

/// A change of a pool.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[schema(as = Change)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct PoolChange {
    #[schema(maximum = 65_536)]
    pub max_parallelism: Option<usize>,
    pub paused: Option<bool>,
}

impl Operator {
    pub fn new(client: Client) -> Operator {
        Operator {
            client,
            redaction: Redaction::default(),
            last: Arc::default(),
            changes: Arc::default(),
            reads: Turns::default(),
            explanations: Turns::default(),
        }
    }

    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Returns the pools' time.
    pub fn now(&self) -> Segment {
        self.client.shared.seams.segment()
    }

    pub fn is_closed(&self) -> bool {
        self.client.shared.is_closed()
    }

    /// Returns `true` if the store answers and works.
    pub fn is_well(&self) -> bool {
        let health = &self.client.shared.health;
        !self.is_closed()
            && health.failing_since().is_none()
            && health.stalled_since(self.now()).is_none()
    }

    pub fn pool(&self, name: &str) -> Result<Workpool, OpsError> {
        Ok(Workpool::find(&self.client, name)?)
    }

    pub fn pools(&self) -> Vec<Workpool> {
        let pools = self.client.shared.pools().into_iter();
        pools.map(|pool| Workpool::new(self.client.clone(), pool)).collect()
    }

    pub fn pool_names(&self) -> Vec<String> {
        self.client.shared.pool_names().iter().map(ToString::to_string).collect()
    }

    /// Returns the names of the registered functions, in order.
    pub fn function_names(&self) -> Vec<String> {
        let mut names: Vec<_> =
            self.client.shared.catalog.iter().map(|(name, _)| name.to_string()).collect();
        names.sort_unstable();
        names
    }

    /// Returns the configuration of each pool and of the runtime.
    pub fn config(&self) -> ConfigView {
        ConfigView::of(&self.client.shared, &self.pools())
    }

    /// Returns a page of jobs, not redacted.
    pub(super) async fn list(&self, filter: WorkFilter) -> Result<WorkPage, OpsError> {
        let client = self.client.clone();
        let listed = async move {
            let Listing { page, pause } = client.list(filter).await?;
            Ok((page, pause))
        };
        self.reads.ask(listed).await
    }

    /// Returns a page of jobs as views.
    pub async fn page(&self, filter: WorkFilter) -> Result<PageView, OpsError> {
        Ok(PageView::of(self.list(filter).await?, &self.redaction))
    }

    /// Returns one pool in numbers, and its rates.
    pub async fn look_at(&self, pool: Workpool) -> Result<(PoolView, Recent), OpsError> {
        let look = async move { Ok((PoolView::of(&pool).await?, PAUSE_AFTER_POOL)) };
        self.reads.ask(look).await
    }

    /// Returns the busiest keys of a pool, not redacted.
    pub(super) async fn busiest_keys(
        &self,
        pool: Workpool,
        limit: usize,
    ) -> Result<Vec<KeyStatus>, OpsError> {
        let look = async move {
            let begun = Instant::now();
            let keys = pool.busiest_keys(limit).await?;
            Ok((keys, (begun.elapsed() * PAUSE_AFTER_KEYS).min(LONGEST_PAUSE_AFTER_KEYS)))
        };
        self.reads.ask(look).await
    }

    /// Returns a recent snapshot of the pools in numbers.
    pub async fn overview(&self) -> Result<Arc<Overview>, OpsError> {
        self.snapshot(OVERVIEW_AGE).await
    }

    /// Returns the totals of a recent snapshot; `None` if the store does not answer at once.
    pub async fn totals(&self) -> Option<Totals> {
        let snapshot = timeout(TOTALS_PATIENCE, self.snapshot(TOTALS_AGE)).await;
        snapshot.ok()?.ok().map(|overview| Totals::of(&overview.pools, &overview.rates))
    }

    async fn snapshot(&self, age: Duration) -> Result<Arc<Overview>, OpsError> {
        // A caller that waits behind another one gives up at the same time.
        in_time(async {
            let mut last = self.last.clone().lock_owned().await;
            let changes = self.changes.load(Ordering::SeqCst);
            if let Some(look) = &*last
                && look.at.elapsed() < age
                && look.changes == changes
            {
                return Ok(look.overview.clone());
            }
            let (now, pools) = (self.now(), self.pools());
            until_answered(async move {
                let overview = Arc::new(Overview::of(now, &pools).await?);
                let at = Instant::now();
                *last = Some(Look { at, changes, overview: overview.clone() });
                Ok::<_, OpsError>(overview)
            })
            .await
        })
        .await
    }

    /// Returns the view of a job with its explanation.
    pub async fn job(&self, work_id: WorkId) -> Result<WorkDetail, OpsError> {
        let client = self.client.clone();
        let explained =
            async move { Ok((client.explain(work_id).await?, PAUSE_AFTER_EXPLANATION)) };
        let explained = self.explanations.ask(explained).await?;
        match explained.why {
            Why::Unknown => Err(OpsError::UnknownWork(work_id)),
            _ => Ok(WorkDetail::of(explained, &self.redaction)),
        }
    }

    pub async fn cancel(&self, work_id: WorkId) -> Result<CancelAnswer, OpsError> {
        let answer = in_time(self.client.cancel(work_id)).await?;
        self.canceled(work_id, answer.into())
    }

    /// Cancels a job and drops its attempt after `grace`, even if the caller no longer waits.
    pub async fn abort(&self, work_id: WorkId, grace: Duration) -> Result<CancelAnswer, OpsError> {
        let client = self.client.clone();
        let aborted = until_answered(async move { client.abort(work_id, grace).await });
        let answer = in_time(aborted).await?;
        self.canceled(work_id, answer.into())
    }

    fn canceled(&self, work_id: WorkId, answer: CancelAnswer) -> Result<CancelAnswer, OpsError> {
        self.changed();
        match answer {
            CancelAnswer::NotFound => Err(OpsError::UnknownWork(work_id)),
            answer => Ok(answer),
        }
    }

    pub async fn run_now(&self, work_id: WorkId) -> Result<RunNowAnswer, OpsError> {
        let answer = in_time(self.client.run_now(work_id)).await?;
        self.changed();
        match answer.into() {
            RunNowAnswer::NotFound => Err(OpsError::UnknownWork(work_id)),
            answer => Ok(answer),
        }
    }

    pub async fn set_priority(
        &self,
        work_id: WorkId,
        priority: Priority,
    ) -> Result<PriorityAnswer, OpsError> {
        let answer = in_time(self.client.set_priority(work_id, priority)).await?;
        self.changed();
        match answer.into() {
            PriorityAnswer::NotFound => Err(OpsError::UnknownWork(work_id)),
            answer => Ok(answer),
        }
    }

    pub async fn retry(&self, work_id: WorkId) -> Result<RetryAnswer, OpsError> {
        let answer = in_time(self.client.retry(work_id)).await?;
        self.changed();
        match answer.into() {
            RetryAnswer::NotFound => Err(OpsError::UnknownWork(work_id)),
            answer => Ok(answer),
        }
    }

    pub async fn configure(&self, pool: &Workpool, change: PoolChange) -> Result<(), OpsError> {
        let mut config = PoolConfig::default();
        if let Some(attempts) = change.max_parallelism {
            config = config.max_parallelism(attempts);
        }
        if let Some(paused) = change.paused {
            config = config.paused(paused);
        }
        in_time(pool.update(config)).await?;
        self.changed();
        Ok(())
    }

    /// Records a change, so that the next snapshot is a new one.
    pub(super) fn changed(&self) {
        self.changes.fetch_add(1, Ordering::SeqCst);
    }
}
