//! Schedules: their rows, and the jobs that they enqueue.

use super::Store;
use super::group::{Group, receipt};
use crate::engine::schedules::{Tick, tick};
use crate::functions::{Reader, TransactionError};
use crate::model::{
    Conflict, Name, Payload, SCHEDULES, ScheduleRow, Segment, TableKey, WorkFact, encode,
};
use crate::protocol::{Command, RegisterSchedules, ScheduleChange, TickAnswer, TickSchedule};
use crate::storage::StorageError;

/// The number of schedules that are listed.
const MOST_LISTED: usize = 100_000;

impl Store {
    /// Stores the schedules of a process, and answers with the state of each.
    pub(super) fn register_schedules(
        &mut self,
        group: &mut Group,
        request: RegisterSchedules,
    ) -> Result<(), StorageError> {
        let RegisterSchedules { schedules, now, reply } = request;
        let mut rows = Vec::with_capacity(schedules.len());
        let mut failed = None;
        for (id, times) in &schedules {
            let known = match self.schedule_row(group, *id) {
                Ok(known) => known.unwrap_or_default(),
                Err(error) => {
                    failed = Some(error);
                    break;
                }
            };
            let row = match known.times == *times {
                true => known,
                // A new one, or one whose times were changed, has missed nothing.
                false => {
                    let row =
                        ScheduleRow { last: now.max(known.last), times: times.clone(), ..known };
                    put(group, *id, Some(&row));
                    row
                }
            };
            rows.push(row);
        }
        group.taken.push(receipt(reply, rows, move |reply| {
            Command::RegisterSchedules(RegisterSchedules { schedules, now, reply })
        }));
        failed.map_or(Ok(()), Err)
    }

    /// Handles a nominal time of a schedule.
    pub(super) fn tick(
        &mut self,
        group: &mut Group,
        request: TickSchedule,
    ) -> Result<(), StorageError> {
        let TickSchedule { id, nominal, overlap, spec, reply } = request;
        let mut handle = || -> Result<TickAnswer, StorageError> {
            let row = self.schedule_row(group, id)?;
            let before = row.as_ref().and_then(|row| row.run).map(|(work_id, _)| work_id);
            let before: Option<WorkFact> = match before {
                Some(work_id) => self.fact_of(group, work_id)?,
                None => None,
            };
            let decided = tick(row.as_ref(), nominal, overlap, before.as_ref());
            let mut row = row.unwrap_or_default();
            match decided {
                Tick::Handled => return Ok(TickAnswer { last: Some(row.last), enqueued: false }),
                Tick::Off => {
                    let last = (!row.times.is_empty()).then_some(nominal);
                    return Ok(TickAnswer { last, enqueued: false });
                }
                Tick::Skip => row.skipped += 1,
                Tick::Enqueue { cancel } => {
                    if let Some(work_id) = cancel {
                        self.cancel(group, work_id);
                    }
                    row.run = Some((spec.work_id, nominal));
                    self.enqueue_one(group, spec.clone(), group.now, Conflict::Keep)?;
                }
            }
            row.last = row.last.max(nominal);
            put(group, id, Some(&row));
            let enqueued = matches!(decided, Tick::Enqueue { .. });
            Ok(TickAnswer { last: Some(row.last), enqueued })
        };
        let (answer, failed) = match handle() {
            Ok(answer) => (answer, None),
            Err(error) => (TickAnswer { last: None, enqueued: false }, Some(error)),
        };
        group.taken.push(receipt(reply, answer, move |reply| {
            Command::TickSchedule(TickSchedule { id, nominal, overlap, spec, reply })
        }));
        failed.map_or(Ok(()), Err)
    }

    pub(super) fn change_schedule(
        &mut self,
        group: &mut Group,
        id: Name,
        change: ScheduleChange,
        now: Segment,
    ) -> Result<(), StorageError> {
        let Some(row) = self.schedule_row(group, id)? else { return Ok(()) };
        let row = match change {
            ScheduleChange::Pause => Some(ScheduleRow { paused: true, ..row }),
            ScheduleChange::Resume if !row.paused => return Ok(()),
            ScheduleChange::Resume => {
                Some(ScheduleRow { paused: false, last: row.last.max(now), ..row })
            }
            ScheduleChange::Remove => None,
        };
        put(group, id, row.as_ref());
        Ok(())
    }

    fn schedule_row(
        &mut self,
        group: &Group,
        id: Name,
    ) -> Result<Option<ScheduleRow>, StorageError> {
        let mut reader = Reader::new(&mut *self.storage, &group.writes);
        reader.get(SCHEDULES.as_str(), id.as_str()).map_err(|error| match error {
            TransactionError::Storage(error) => error,
            error => StorageError::Poisoned(error.to_string()),
        })
    }

    /// Returns the rows of all schedules, in the order of their ids.
    pub(super) fn schedules(&mut self) -> Result<Vec<(String, ScheduleRow)>, StorageError> {
        let everything = (std::ops::Bound::Unbounded, std::ops::Bound::Unbounded);
        let rows = self.storage.scan(SCHEDULES, &everything, MOST_LISTED)?;
        let decoded = |(key, value): (TableKey, Payload)| {
            let row = serde_json::from_slice(value.as_bytes()).map_err(|error| {
                StorageError::Poisoned(format!("the row of a schedule is damaged: {error}"))
            })?;
            Ok((String::from_utf8_lossy(key.as_bytes()).into_owned(), row))
        };
        rows.into_iter().map(decoded).collect()
    }
}

fn put(group: &mut Group, id: Name, row: Option<&ScheduleRow>) {
    let value = row.and_then(|row| encode(row).ok());
    group.writes.put(SCHEDULES, TableKey::from(id.as_str()), value);
}
