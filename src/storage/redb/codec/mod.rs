//! Encoding of rows as bytes: little-endian, lengths and small numbers as LEB128.

mod change;
mod parts;
mod rows;

pub(super) use change::{Logged, change};
pub use parts::Damaged;
pub(super) use parts::Input;
pub(super) use rows::{
    Head, RowCounts, RunRow, decode_finished, decode_globals, decode_pool, decode_running,
    decode_state, decode_unique, decode_work, finished, globals, running, state, unique, work,
};

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::{
        Change, FailedAttempt, Failure, FailureKind, Finished, FinishedDetails, FunctionKind,
        Generation, History, Key, Name, OnCompleteCall, Outcome, Payload, PoolId, Priority, Retry,
        RetryBehavior, RunResult, Segment, SpanLink, Spec, SpecHead, SpecOptions, StartKey,
        StateRow, Unique, UniqueHold, UniqueKey, UniqueRow, WorkId,
    };

    fn spec(options: Option<SpecOptions>) -> Spec {
        let priority = if options.is_some() { Priority::LOW } else { Priority::NORMAL };
        Spec::new(
            WorkId::from_uuid(uuid::Uuid::from_u128(7)),
            SpecHead {
                pool: PoolId(300),
                kind: FunctionKind::Mutation,
                function: Name::from_static("bank.credit"),
                enqueued_at: Segment(u64::MAX),
                priority,
                options: options.map(Box::new),
            },
            br#"{"to":1}"#,
        )
    }

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut out = Vec::new();
        write(&mut out);
        out
    }

    #[test]
    fn a_job_comes_back_as_it_was() {
        let full = SpecOptions {
            on_complete: Some(OnCompleteCall {
                name: Name::from_static("done"),
                context: Payload::new(b"[1,2]"),
            }),
            retry: Some(RetryBehavior { max_attempts: u32::MAX, initial_backoff_ms: 0, base: 1.5 }),
            timeout: Some(Duration::new(u64::MAX, 999_999_999)),
            extra_cost: u32::MAX,
            unique: Some(Unique::key("k\0ey").within(Duration::new(7, 5))),
            span: SpanLink::default(),
        };
        let key = Key { segment: Segment(9), seq: 8 };
        for history in [History::default(), history()] {
            for priority in [Priority::NORMAL, Priority::LOW, Priority::new(-128)] {
                let history = history.clone();
                let head = Head { attempts: 3, runs: u32::MAX, key, priority, history };
                for spec in [spec(None), spec(Some(full.clone()))] {
                    let row = written(|out| work(out, &head, &spec));
                    let (read_head, read) = decode_work(spec.work_id, &row).expect("decodes");
                    assert_eq!((&read_head, &read), (&head, &spec));
                }
            }
        }
    }

    fn history() -> History {
        let attempt = |attempt, kind| FailedAttempt {
            attempt,
            started: Segment(u64::MAX).time(),
            ended: Segment(0).time(),
            kind,
            message: "näh".repeat(attempt as usize),
        };
        History::from_iter([attempt(1, FailureKind::Lost), attempt(7, FailureKind::Encode)])
    }

    #[test]
    fn a_finished_job_comes_back_as_it_was() {
        let spec = spec(None);
        let details = FinishedDetails {
            history: history(),
            on_complete: Some(Name::from_static("done")),
            follow_up: Some(spec.work_id),
            retried_as: Some(WorkId::from_uuid(uuid::Uuid::from_u128(8))),
            spec: Some(spec.clone()),
        };
        let outcomes = [
            Outcome::Success(Payload::new(b"[]")),
            Outcome::Failed(Failure::permanent(FailureKind::Panic, "")),
            Outcome::Canceled,
        ];
        let history_only = FinishedDetails { history: history(), ..FinishedDetails::default() };
        let details = [None, Some(Box::new(details)), Some(Box::new(history_only))];
        for (outcome, details) in outcomes.into_iter().zip(details) {
            let row = Finished {
                work_id: spec.work_id,
                pool: PoolId(1),
                function: spec.function,
                outcome,
                attempts: 2,
                enqueued_at: Segment(3),
                started: details.is_some().then_some(Segment(4)),
                finished_at: Segment(5),
                details,
            };
            let read = decode_finished(row.work_id, &written(|out| finished(out, &row)));
            assert_eq!(read, Ok(row));
        }
    }

    #[test]
    fn every_result_comes_back_as_it_was() {
        let failure = Failure {
            retry_after: Some(Duration::from_millis(5)),
            ..Failure::permanent(FailureKind::Decode, "näh")
        };
        let key = Key { segment: Segment(1), seq: 2 };
        for (result, retry) in [
            (RunResult::Success(Payload::new(b"\"x\"")), Retry::No),
            (RunResult::Success(Payload::NULL), Retry::No),
            (RunResult::Failed(failure), Retry::At(Segment(77))),
            (RunResult::Canceled, Retry::No),
            (RunResult::Snoozed(Duration::from_secs(3)), Retry::At(Segment(0))),
            (RunResult::Returned, Retry::At(Segment(u64::MAX))),
            (RunResult::PoolLimited(Duration::MAX), Retry::At(Segment(3))),
        ] {
            let row = RunRow {
                pool: PoolId(0),
                run: 9,
                started: Segment(4),
                generation: Generation(5),
                attempts: 6,
                canceled: true,
                priority: Priority::new(127),
                completion: Some((key, result, retry)),
                history: history(),
            };
            assert_eq!(decode_running(&written(|out| running(out, &row))), Ok(row));
        }
    }

    #[test]
    fn changes_of_every_priority_and_of_a_rate_come_back_as_they_were() {
        let (work_id, pool) = (WorkId::from_uuid(uuid::Uuid::from_u128(7)), PoolId(3));
        let at = |priority, seq| StartKey { seq, ..StartKey::new(priority, Segment(900)) };
        let [low, normal] = [Priority::LOW, Priority::NORMAL];
        let mut changes = vec![Change::PutState { pool, state: StateRow::default() }];
        changes.push(Change::PutState {
            pool,
            state: StateRow { tat: u64::MAX, ..StateRow::default() },
        });
        for (from, to) in [(low, normal), (normal, low), (low, low), (normal, normal)] {
            let (started, generation) = (Segment(8), Generation(2));
            let (from, to) = (at(from, 1), at(to, 2));
            changes.extend([
                Change::MovePendingStart { work_id, pool, from, to },
                Change::StartWork { work_id, pool, key: to, run: 3, started, generation },
                Change::RetryWork {
                    work_id,
                    pool,
                    completion: Some(Key { segment: Segment(1), seq: 9 }),
                    key: from,
                    attempts: 2,
                    history: history(),
                },
            ]);
        }
        let log = written(|out| changes.iter().for_each(|one| change(out, one)));
        let mut input = Input(&log);
        for expected in changes {
            let read = input.change().expect("decodes");
            // Keys of different priorities are different.
            assert_eq!(read, Some(Logged::Change(expected)));
        }
        assert_eq!(input.change(), Ok(None));
    }

    #[test]
    fn what_is_unique_comes_back_as_it_was() {
        let holds = [
            UniqueHold::WhileWaiting,
            UniqueHold::UntilFinished,
            UniqueHold::Within(Duration::MAX),
        ];
        for hold in holds {
            let row = UniqueRow { work_id: WorkId::random(), hold, enqueued_at: Segment(u64::MAX) };
            assert_eq!(decode_unique(&written(|out| unique(out, &row))), Ok(row));
        }
        let options = SpecOptions { unique: Some(Unique::key([0; 256])), ..SpecOptions::default() };
        let at = |priority, seq| StartKey { seq, ..StartKey::new(priority, Segment(900)) };
        let place = (PoolId(300), UniqueKey::new(b"x"));
        let mut changes = vec![Change::DeleteUnique { place }];
        for from in [Priority::LOW, Priority::NORMAL] {
            let (spec, from) = (spec(Some(options.clone())), at(from, 1));
            changes.push(Change::ReplaceWork { spec: spec.clone(), from, to: from });
            changes.push(Change::ReplaceWork { spec, from, to: at(Priority::HIGH, 2) });
        }
        let log = written(|out| changes.iter().for_each(|one| change(out, one)));
        let mut input = Input(&log);
        for expected in changes {
            assert_eq!(input.change(), Ok(Some(Logged::Change(expected))));
        }
        assert_eq!(input.change(), Ok(None));
    }

    #[test]
    fn the_number_of_rows_of_each_priority_comes_back_as_it_was() {
        let waiting = vec![(Priority::new(-128), 1), (Priority::NORMAL, u64::MAX >> 1)];
        let counts = RowCounts { works: 9, waiting, lane: 3 };
        let row = StateRow { tat: 77, turn: 5, ..StateRow::default() };
        let bytes = written(|out| state(out, &row, &counts));
        assert_eq!(decode_state(&bytes), Ok((row, counts)));
    }

    #[test]
    fn a_damaged_row_is_an_error_and_never_a_panic() {
        let work_id = WorkId::from_uuid(uuid::Uuid::nil());
        let mut rng = fastrand::Rng::with_seed(11);
        let options = SpecOptions {
            timeout: Some(Duration::ZERO),
            unique: Some(Unique::key("key").within(Duration::MAX)),
            ..SpecOptions::default()
        };
        let spec = spec(Some(options));
        let key = StartKey::new(Priority::HIGH, Segment(1));
        let whole = written(|out| change(out, &Change::InsertWork { spec, key }));
        for _ in 0..20_000 {
            let mut row = whole.clone();
            row.truncate(rng.usize(..=row.len()));
            for _ in 0..rng.usize(..4) {
                if !row.is_empty() {
                    let place = rng.usize(..row.len());
                    row[place] = rng.u8(..);
                }
            }
            let _ = decode_work(work_id, &row);
            let _ = decode_running(&row);
            let _ = decode_finished(work_id, &row);
            let _ = decode_state(&row);
            let _ = decode_unique(&row);
            let _ = decode_globals(&row);
            let _ = Input(&row).change();
        }
    }
}
