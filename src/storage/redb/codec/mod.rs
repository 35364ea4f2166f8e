//! Encoding of rows as bytes: little-endian, lengths and small numbers as LEB128.

mod change;
mod parts;
mod rows;

pub(super) use change::{Logged, change};
pub use parts::Damaged;
pub(super) use parts::Input;
pub(super) use rows::{
    Head, LevelCounts, RowCounts, RunRow, decode_finished, decode_globals, decode_lane,
    decode_pool, decode_running, decode_state, decode_unique, decode_work, finished, globals, lane,
    running, state, unique, work,
};

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::{
        Change, FailedAttempt, Failure, FailureKind, Finished, FinishedDetails, FunctionKind,
        Generation, History, Key, LaneRow, Name, OnCompleteCall, Outcome, Payload, PoolId,
        Priority, Retry, RetryBehavior, RunResult, Segment, SpanLink, Spec, SpecHead, SpecOptions,
        StartKey, StartPlace, StateRow, Unique, UniqueHold, UniqueKey, UniqueRow, WorkId, WorkKey,
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

    const PLACES: [StartPlace; 5] = [
        StartPlace::Queue,
        StartPlace::Held,
        StartPlace::Ready { tag: 0 },
        StartPlace::Ready { tag: u64::MAX },
        StartPlace::Lane,
    ];

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
        let specs = [spec(None), spec(Some(full))];
        let of_key = |spec: &Spec, key: &[u8], weight| {
            Spec::keyed(spec.work_id, SpecHead::clone(spec), key, weight, spec.args())
        };
        let keyed = [of_key(&specs[0], b"\0", 1), of_key(&specs[1], &[255; 256], u16::MAX)];
        for history in [History::default(), history()] {
            for (priority, place) in [Priority::NORMAL, Priority::LOW, Priority::new(-128)]
                .into_iter()
                .flat_map(|priority| PLACES.map(|place| (priority, place)))
            {
                let history = history.clone();
                let head = Head { attempts: 3, runs: u32::MAX, key, priority, place, history };
                for spec in specs.iter().chain(&keyed).cloned() {
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
            (RunResult::KeyLimited(Duration::MAX), Retry::At(Segment(4))),
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

    /// All parts of a change, also of places that are equal in their order.
    fn parts(change: &Logged) -> String {
        format!("{change:?}")
    }

    #[test]
    fn changes_of_every_place_and_of_lanes_come_back_as_they_were() {
        let (work_id, pool) = (WorkId::from_uuid(uuid::Uuid::from_u128(7)), PoolId(3));
        let (started, generation) = (Segment(8), Generation(2));
        let key = WorkKey::new(&[7; 256]);
        let row = LaneRow {
            holders: 1,
            running: u32::MAX,
            waiting: 3,
            tag: 4,
            tag_of: Priority::LOW,
            tat: u64::MAX,
            rest: Segment(5),
        };
        let mut changes = vec![
            Change::PutLane { pool, key: WorkKey::new(b"\0"), row: None },
            Change::PutLane { pool, key, row: Some(row) },
        ];
        let places = PLACES.iter().flat_map(|from| PLACES.iter().map(move |to| (*from, *to)));
        for (number, (from, to)) in (0_i8..).zip(places) {
            let priority = |number: i8| Priority::new(number % 3);
            let at = |place, seq, priority| StartKey {
                seq,
                place,
                ..StartKey::new(priority, Segment(900))
            };
            let (from, to) = (at(from, 1, priority(number)), at(to, 2, priority(number / 2)));
            let spec = Spec::keyed(work_id, SpecHead::clone(&spec(None)), b"key", 9, b"1");
            changes.extend([
                Change::InsertWork { spec: spec.clone(), key: from },
                Change::ReplaceWork { spec, from, to },
                Change::MovePendingStart { work_id, pool, from, to },
                Change::StartWork { work_id, pool, key: from, run: 3, started, generation },
                Change::RetryWork {
                    work_id,
                    pool,
                    completion: None,
                    key: to,
                    attempts: 2,
                    history: history(),
                },
            ]);
        }
        let log = written(|out| changes.iter().for_each(|one| change(out, one)));
        let mut input = Input(&log);
        for expected in changes {
            let read = input.change().expect("decodes").expect("not the end");
            let expected = Logged::Change(expected);
            assert_eq!((&read, parts(&read)), (&expected, parts(&expected)));
        }
        assert_eq!(input.change(), Ok(None));
    }

    #[test]
    fn what_has_no_key_takes_no_byte_for_it() {
        let (spec, key) = (spec(None), StartKey::new(Priority::NORMAL, Segment(9)));
        let pool = PoolId(1);
        let (head, work_id) = (Head::new(key), spec.work_id);
        let plain = written(|out| work(out, &head, &spec)).len();
        // 24 for the head, and the function and the arguments with a length before each.
        assert_eq!(plain, 24 + 1 + 2 + 10 + 12 + 9);
        for (place, more) in [(StartPlace::Held, 2), (StartPlace::Ready { tag: 1 << 16 }, 5)] {
            let head = Head::new(key.in_place(place));
            assert_eq!(written(|out| work(out, &head, &spec)).len(), plain + more);
        }
        let moved = Change::MovePendingStart { work_id, pool, from: key, to: key };
        assert_eq!(written(|out| change(out, &moved)).len(), 1 + 16 + 1 + 2 + 2);
        let row = StateRow { tat: 1, ..StateRow::default() };
        let levels = vec![LevelCounts { queue: 3, ..LevelCounts::default() }];
        let counts = RowCounts { works: 3, levels, ..RowCounts::default() };
        assert_eq!(written(|out| state(out, &row, &counts)).len(), 13 + 4 + 2);
    }

    #[test]
    fn a_row_of_lanes_comes_back_as_it_was() {
        let full = LaneRow {
            holders: u32::MAX,
            running: u32::MAX,
            waiting: u32::MAX,
            tag: u64::MAX,
            tag_of: Priority::HIGH,
            tat: u64::MAX,
            rest: Segment(u64::MAX),
        };
        for row in [LaneRow::default(), full] {
            assert_eq!(decode_lane(&written(|out| lane(out, &row))), Ok(row));
        }
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
        let level = |priority, queue, ready| LevelCounts {
            priority: Priority::new(priority),
            queue,
            ready,
        };
        let plain = vec![level(-128, 1, 0), level(0, u64::MAX >> 1, 0)];
        let ready = vec![level(-128, 0, 7), level(0, 2, 0), level(127, 3, u64::MAX)];
        for levels in [Vec::new(), plain, ready] {
            for in_lanes in [0, 9] {
                let counts =
                    RowCounts { works: 9, levels: levels.clone(), in_lanes, unregistered: 3 };
                let row = StateRow { tat: 77, turn: 5, ..StateRow::default() };
                let bytes = written(|out| state(out, &row, &counts));
                assert_eq!(decode_state(&bytes), Ok((row, counts)));
            }
        }
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
        let spec = Spec::keyed(spec.work_id, SpecHead::clone(&spec), b"key", 2, spec.args());
        let key = StartKey::new(Priority::HIGH, Segment(1));
        let key = key.in_place(StartPlace::Ready { tag: 300 });
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
            let _ = decode_lane(&row);
            let _ = decode_globals(&row);
            let _ = Input(&row).change();
        }
    }
}
