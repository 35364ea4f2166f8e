//! Groups in doubt: the commit returned an error, but may have succeeded.
//!
//! Before anybody is told, the store looks for a trace of the group ([`Witness`]), which exists if, and only if, the
//! group was committed.

use super::group::Group;
use super::{Settled, Store};
use crate::model::{Change, PoolId, RunNumber, Spec, StartKey, Turn, WorkId};
use crate::storage::StorageError;

/// A group that may have been committed.
pub(super) struct InDoubt {
    pub group: Group,
    pub witness: Witness,
    pub error: StorageError,
}

/// A trace that exists if, and only if, a group was committed. One is enough, because a commit is all or nothing.
pub(super) enum Witness {
    /// The pool's state is from this turn.
    Turn(PoolId, Turn),
    /// The job exists or existed.
    Work(WorkId),
    /// The job has this row in `pending_completion`, or is past it.
    Completion(WorkId, RunNumber),
    /// The job has a row in `pending_cancelation`, or is past it.
    Cancelation(WorkId),
    /// The job has this row in `pending_start`: its key is never reused.
    Start(WorkId, StartKey),
    /// The job has this content, at the place that it had before.
    Replaced(Spec, StartKey),
    /// The group left no trace to look for.
    Nothing,
}

impl Witness {
    pub fn of(changes: &[Change]) -> Witness {
        let trace = |change: &Change| match change {
            Change::PutState { pool, state } => Some(Witness::Turn(*pool, state.fence())),
            Change::InsertWork { spec, .. } | Change::InsertRunning { spec, .. } => {
                Some(Witness::Work(spec.work_id))
            }
            Change::InsertPendingCompletion { work_id, run, .. } => {
                Some(Witness::Completion(*work_id, *run))
            }
            Change::InsertPendingCancelation { work_id, .. } => {
                Some(Witness::Cancelation(*work_id))
            }
            Change::MovePendingStart { work_id, to, .. } => Some(Witness::Start(*work_id, *to)),
            Change::ReplaceWork { spec, from, to } => Some(match from == to {
                true => Witness::Replaced(spec.clone(), *to),
                false => Witness::Start(spec.work_id, *to),
            }),
            _ => None,
        };
        // A turn is the most reliable trace: what the other changes wrote, a turn of the same group may have moved on.
        let is_turn = |change: &&Change| matches!(change, Change::PutState { .. });
        let turn = changes.iter().rfind(is_turn).and_then(trace);
        // Of a job that was moved twice, the last place counts. A replacement in place shows the least: its job may have
        // had this content before, two changes ago.
        let is_replaced = |witness: &Witness| matches!(witness, Witness::Replaced(..));
        let mut traces = changes.iter().rev().filter_map(trace);
        let first = turn.or_else(|| traces.next());
        let sure = match first.as_ref().is_some_and(is_replaced) {
            true => traces.find(|witness| !is_replaced(witness)),
            false => None,
        };
        sure.or(first).unwrap_or(Witness::Nothing)
    }
}

impl Store {
    /// Finds out whether a group in doubt was committed, and settles it accordingly.
    pub(super) fn resolve(&mut self, in_doubt: InDoubt) -> Settled {
        match self.happened(&in_doubt.witness) {
            Ok(true) => {
                self.unsynced = true;
                self.wrote = true;
                self.committed(in_doubt.group)
            }
            Ok(false) => self.refused(in_doubt.group, in_doubt.error),
            Err(StorageError::Poisoned(error)) => {
                self.refused(in_doubt.group, StorageError::Poisoned(error))
            }
            Err(error) => {
                self.in_doubt = Some(in_doubt);
                Settled {
                    failed: Some(error),
                    write_failed: true,
                    unfinished: true,
                    ..Settled::default()
                }
            }
        }
    }

    fn happened(&mut self, witness: &Witness) -> Result<bool, StorageError> {
        if planted!(WitnessDenies) {
            return Ok(false);
        }
        let work_id = match witness {
            Witness::Nothing => return Ok(false),
            Witness::Turn(pool, turn) => {
                return Ok(self.storage.state(*pool)?.fence() == *turn);
            }
            Witness::Work(work_id)
            | Witness::Completion(work_id, _)
            | Witness::Cancelation(work_id)
            | Witness::Start(work_id, _) => *work_id,
            Witness::Replaced(spec, _) => spec.work_id,
        };
        let Some(work) = self.storage.facts(&[work_id])?.pop().flatten() else {
            return Ok(self.storage.finished(&[work_id])?.pop().flatten().is_some());
        };
        Ok(match witness {
            Witness::Completion(_, run) => work.runs == *run && work.pending_completion.is_some(),
            Witness::Start(_, key) => work.pending_start.is_some_and(|at| at.is_same(*key)),
            Witness::Replaced(spec, key) => work.spec == *spec && work.pending_start == Some(*key),
            Witness::Cancelation(_) => work.is_canceled(),
            _ => true,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{
        FunctionKind, Generation, Name, Payload, Priority, Segment, SpecHead, StateRow, TableKey,
    };

    /// Regression: of a group that moves a job and starts it, the moved row was looked for.
    #[test]
    fn the_trace_of_a_group_with_a_turn_is_the_turn() {
        let (work_id, pool) = (WorkId::random(), PoolId(0));
        let key = |seq| StartKey { segment: Segment(1), seq, ..StartKey::default() };
        let (started, generation) = (Segment(1), Generation(1));
        let value = Payload::new(b"1");
        let changes = [
            Change::MovePendingStart { work_id, pool, from: key(1), to: key(2) },
            Change::StartWork { work_id, pool, key: key(2), run: 1, started, generation },
            Change::PutState { pool, state: StateRow::default() },
            Change::PutRow { table: Name::from_static("t"), key: TableKey::from("k"), value },
        ];
        assert!(matches!(Witness::of(&changes), Witness::Turn(..)));
        assert!(matches!(Witness::of(&changes[..1]), Witness::Start(..)));
    }

    /// Regression: of a job that was replaced elsewhere and then in its new place, the first content was looked for.
    #[test]
    fn the_trace_of_a_job_that_was_replaced_twice_is_its_new_place() {
        let head = SpecHead {
            pool: PoolId(0),
            kind: FunctionKind::Action,
            function: Name::from_static("f"),
            enqueued_at: Segment(1),
            priority: Priority::NORMAL,
            options: None,
        };
        let spec = |args: &[u8]| Spec::new(WorkId::from_name("job"), head.clone(), args);
        let key = |seq| StartKey { segment: Segment(1), seq, ..StartKey::default() };
        let replace = |args, from, to| Change::ReplaceWork { spec: spec(args), from, to };
        let changes = [replace(b"1", key(1), key(2)), replace(b"2", key(2), key(2))];
        assert!(matches!(Witness::of(&changes), Witness::Start(_, at) if at == key(2)));
        let in_place = [replace(b"1", key(1), key(1)), replace(b"2", key(1), key(1))];
        assert!(matches!(Witness::of(&in_place), Witness::Replaced(it, _) if it == spec(b"2")));
    }
}
