//! Schedules, for people: their views, and what is done to them.

use serde::Serialize;
use utoipa::ToSchema;

use super::big::Big;
use super::pacing::in_time;
use super::{Operator, OpsError};
use crate::client::ScheduleStatus;
use crate::model::{Name, WorkId};

/// The number of next times that are shown.
const NEXT: usize = 5;

/// What people do to a schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ScheduleAction {
    Pause,
    Resume,
    Trigger,
}

impl ScheduleAction {
    pub fn as_str(self) -> &'static str {
        match self {
            ScheduleAction::Pause => "pause",
            ScheduleAction::Resume => "resume",
            ScheduleAction::Trigger => "trigger",
        }
    }
}

/// All schedules, in the order of their ids.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SchedulesView {
    pub schedules: Vec<ScheduleView>,
}

/// A schedule.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ScheduleView {
    pub id: String,
    /// The cron expression and the zone, or the period.
    pub times: String,
    /// `false` if it is stored, but not in the code of this process: then it does not fire.
    pub registered: bool,
    pub paused: bool,
    pub pool: Option<Name>,
    pub function: Option<Name>,
    /// The next times at which it fires; none while it is paused.
    pub next: Vec<Big>,
    #[schema(value_type = Option<uuid::Uuid>)]
    pub last_job: Option<String>,
    /// The nominal time of the last job.
    pub last_time: Option<Big>,
    /// The number of times that were skipped because the job before had no outcome yet.
    pub skipped: Big,
}

impl Operator {
    pub async fn schedules(&self) -> Result<SchedulesView, OpsError> {
        let all = in_time(self.client().schedule_statuses()).await?;
        Ok(SchedulesView { schedules: all.into_iter().map(|one| self.view(one)).collect() })
    }

    fn view(&self, status: ScheduleStatus) -> ScheduleView {
        let ScheduleStatus { id, times, registered, paused, job, last_job, .. } = status;
        let next = match self.client().schedule_handle(&id) {
            Ok(schedule) if !paused => schedule.next(NEXT),
            _ => Vec::new(),
        };
        ScheduleView {
            times,
            registered,
            paused,
            pool: job.map(|(pool, _)| pool),
            function: job.map(|(_, function)| function),
            next: next.into_iter().map(Big::from).collect(),
            last_job: last_job.map(|work_id| work_id.to_string()),
            last_time: status.last_time.map(Big::from),
            skipped: Big(status.skipped),
            id,
        }
    }

    /// Pauses, resumes or triggers a schedule. Returns the job that was enqueued.
    pub async fn act_on_schedule(
        &self,
        id: &str,
        action: ScheduleAction,
    ) -> Result<Option<WorkId>, OpsError> {
        let schedule = self.client().schedule_handle(id)?;
        let changed = match action {
            ScheduleAction::Pause => in_time(schedule.pause()).await.map(|()| None),
            ScheduleAction::Resume => in_time(schedule.resume()).await.map(|()| None),
            ScheduleAction::Trigger => in_time(schedule.trigger()).await.map(Some),
        };
        self.changed();
        changed
    }
}
