//! How rows become bytes: little-endian, lengths and small numbers as LEB128.

use std::sync::Arc;
use std::time::Duration;

use crate::model::PoolConfig;
use crate::model::{
    ArgBytes, Change, Cursors, Epoch, FailedAttempt, Failure, FailureKind, Finished,
    FinishedDetails, FunctionKind, Generation, History, Key, Name, OnCompleteCall, Outcome,
    Payload, PoolId, Report, Retry, RetryBehavior, RunNumber, RunResult, Segment, SpanLink, Spec,
    SpecOptions, StateRow, TableKey, WorkId,
};

/// A row that does not say what it should. The file was damaged, or written by something else.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("damaged row: {0}")]
pub struct Damaged(&'static str);

type Decoded<T> = Result<T, Damaged>;

/// The part of a `work` row that changes; it stands in front, so that it can be replaced in place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Head {
    pub attempts: u32,
    pub runs: RunNumber,
    /// The job's place in `pending_start`, unless it is in `running`.
    pub key: Key,
    /// Stands at the end, since most jobs have none.
    pub history: History,
}

impl Head {
    const LEN: usize = 24;

    fn to_bytes(&self) -> [u8; Head::LEN] {
        let mut bytes = [0; Head::LEN];
        bytes[..4].copy_from_slice(&self.attempts.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.runs.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.key.segment.0.to_le_bytes());
        bytes[16..].copy_from_slice(&self.key.seq.to_le_bytes());
        bytes
    }
}

/// A row of `work`.
pub(super) fn work(out: &mut Vec<u8>, head: &Head, spec: &Spec) {
    out.extend_from_slice(&head.to_bytes());
    let options = spec.options.as_deref();
    let retry = options.and_then(|options| options.retry);
    let timeout = options.and_then(|options| options.timeout);
    let on_complete = options.and_then(|options| options.on_complete.as_ref());
    let kind = match spec.kind {
        FunctionKind::Action => 0,
        FunctionKind::Mutation => 1,
        FunctionKind::Query => 2,
        FunctionKind::OnComplete => 3,
    };
    out.push(
        kind | flag(retry.is_some(), 2)
            | flag(timeout.is_some(), 3)
            | flag(on_complete.is_some(), 4)
            | flag(!head.history.attempts().is_empty(), 5),
    );
    number(out, spec.pool.0.into());
    number(out, spec.enqueued_at.0);
    bytes(out, spec.function.as_str().as_bytes());
    bytes(out, spec.args.as_bytes());
    if let Some(retry) = retry {
        number(out, retry.max_attempts.into());
        number(out, retry.initial_backoff_ms);
        out.extend_from_slice(&retry.base.to_bits().to_le_bytes());
    }
    if let Some(timeout) = timeout {
        duration(out, timeout);
    }
    if let Some(call) = on_complete {
        bytes(out, call.name.as_str().as_bytes());
        bytes(out, call.context.as_bytes());
    }
    if !head.history.attempts().is_empty() {
        put_history(out, &head.history);
    }
}

fn flag(set: bool, bit: u8) -> u8 {
    u8::from(set) << bit
}

fn put_history(out: &mut Vec<u8>, history: &History) {
    number(out, history.attempts().len() as u64);
    for failed in history.attempts() {
        number(out, failed.attempt.into());
        number(out, failed.started.0);
        number(out, failed.ended.0);
        out.push(failure_kind(failed.kind));
        bytes(out, failed.message.as_bytes());
    }
}

/// Only the pool of a `work` row.
pub(super) fn decode_pool(row: &[u8]) -> Decoded<PoolId> {
    let mut input = Input(row);
    input.take(Head::LEN + 1)?;
    Ok(PoolId(input.small()?))
}

pub(super) fn decode_work(work_id: WorkId, row: &[u8]) -> Decoded<(Head, Arc<Spec>)> {
    Input(row).work(work_id)
}

/// A row of `running`, with the completion that waits for its turn, if there is one.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct RunRow {
    pub pool: PoolId,
    pub run: RunNumber,
    pub started: Segment,
    pub generation: Generation,
    pub attempts: u32,
    pub canceled: bool,
    pub completion: Option<(Key, RunResult, Retry)>,
    pub history: History,
}

pub(super) fn running(out: &mut Vec<u8>, row: &RunRow) {
    out.push(u8::from(row.canceled) | u8::from(row.completion.is_some()) << 1);
    number(out, row.pool.0.into());
    number(out, row.run.into());
    number(out, row.started.0);
    number(out, row.generation.0);
    number(out, row.attempts.into());
    if let Some((key, result, retry)) = &row.completion {
        put_key(out, *key);
        completion(out, result, *retry);
    }
    put_history(out, &row.history);
}

fn completion(out: &mut Vec<u8>, result: &RunResult, retry: Retry) {
    match retry {
        Retry::No => out.push(0),
        Retry::At(segment) => {
            out.push(1);
            number(out, segment.0);
        }
    }
    match result {
        RunResult::Success(output) => {
            out.push(0);
            bytes(out, output.as_bytes());
        }
        RunResult::Failed(cause) => {
            out.push(1);
            failure(out, cause);
        }
        RunResult::Canceled => out.push(2),
        RunResult::Snoozed(wait) => {
            out.push(3);
            duration(out, *wait);
        }
        RunResult::Returned => out.push(4),
    }
}

pub(super) fn decode_running(row: &[u8]) -> Decoded<RunRow> {
    let mut input = Input(row);
    let flags = input.byte()?;
    let mut row = RunRow {
        pool: PoolId(input.small()?),
        run: input.small()?,
        started: Segment(input.number()?),
        generation: Generation(input.number()?),
        attempts: input.small()?,
        canceled: flags & 1 != 0,
        completion: None,
        history: History::default(),
    };
    if flags & 2 != 0 {
        let key = input.key()?;
        let (result, retry) = input.completion()?;
        row.completion = Some((key, result, retry));
    }
    row.history = input.history()?;
    Ok(row)
}

/// A row of `finished`.
pub(super) fn finished(out: &mut Vec<u8>, row: &Finished) {
    number(out, row.pool.0.into());
    bytes(out, row.function.as_str().as_bytes());
    number(out, row.attempts.into());
    number(out, row.enqueued_at.0);
    number(out, row.finished_at.0);
    match &row.outcome {
        Outcome::Success(output) => {
            out.push(0);
            bytes(out, output.as_bytes());
        }
        Outcome::Failed(cause) => {
            out.push(1);
            failure(out, cause);
        }
        Outcome::Canceled => out.push(2),
    }
    number(out, row.started.map_or(0, |started| started.0.saturating_add(1)));
    let Some(details) = &row.details else { return out.push(0) };
    let FinishedDetails { history, on_complete, follow_up, retried_as, spec } = &**details;
    out.push(
        1 | flag(on_complete.is_some(), 1)
            | flag(follow_up.is_some(), 2)
            | flag(spec.is_some(), 3)
            | flag(retried_as.is_some(), 4),
    );
    put_history(out, history);
    if let Some(name) = on_complete {
        bytes(out, name.as_str().as_bytes());
    }
    if let Some(work_id) = follow_up {
        put_id(out, *work_id);
    }
    if let Some(spec) = spec {
        work(out, &Head::default(), spec);
    }
    if let Some(work_id) = retried_as {
        put_id(out, *work_id);
    }
}

pub(super) fn decode_finished(work_id: WorkId, row: &[u8]) -> Decoded<Finished> {
    Input(row).finished(work_id)
}

/// How many rows a pool has: jobs, waiting, in the unregistered lane.
pub(super) type RowCounts = [u64; 3];

/// A row of `state`: a pool's `internal_state`, and how many rows it has.
pub(super) fn state(out: &mut Vec<u8>, row: &StateRow, counts: RowCounts) {
    put_state(out, row);
    for count in counts {
        number(out, count);
    }
}

fn put_state(out: &mut Vec<u8>, row: &StateRow) {
    let report = row.report;
    let numbers = [
        row.generation.0,
        row.epoch.0,
        row.turn,
        row.cursors.incoming.0,
        row.cursors.completion.0,
        row.cursors.cancelation.0,
        row.last_recovery.0,
        report.completed,
        report.succeeded,
        report.failed,
        report.retries,
        report.canceled,
        report.last_report_ts.0,
    ];
    for value in numbers {
        number(out, value);
    }
}

pub(super) fn decode_state(row: &[u8]) -> Decoded<(StateRow, RowCounts)> {
    let mut input = Input(row);
    let state = input.state()?;
    Ok((state, [input.number()?, input.number()?, input.number()?]))
}

/// A row of `pools`.
pub(super) fn globals(out: &mut Vec<u8>, name: Name, config: &PoolConfig) {
    let config = serde_json::to_vec(config).unwrap_or_default();
    bytes(out, name.as_str().as_bytes());
    bytes(out, &config);
}

pub(super) fn decode_globals(row: &[u8]) -> Decoded<(Name, PoolConfig)> {
    Input(row).globals()
}

/// A change as the log keeps it.
pub(super) fn change(out: &mut Vec<u8>, change: &Change) {
    match change {
        Change::InsertWork { spec, key } => {
            out.push(0);
            put_id(out, spec.work_id);
            work(out, &Head { key: *key, ..Head::default() }, spec);
        }
        Change::InsertPendingCompletion { work_id, pool, key, run, result, retry, attempts } => {
            out.push(1);
            put_place(out, *work_id, *pool, *key);
            number(out, (*run).into());
            number(out, (*attempts).into());
            completion(out, result, *retry);
        }
        Change::InsertPendingCancelation { work_id, pool, key } => {
            out.push(2);
            put_place(out, *work_id, *pool, *key);
        }
        Change::StartWork { work_id, pool, key, run, started, generation } => {
            out.push(3);
            put_place(out, *work_id, *pool, *key);
            number(out, (*run).into());
            number(out, started.0);
            number(out, generation.0);
        }
        Change::MovePendingStart { work_id, pool, from, to } => {
            out.push(4);
            put_place(out, *work_id, *pool, *from);
            put_key(out, *to);
        }
        Change::RetryWork { work_id, pool, completion, key, attempts, history } => {
            out.push(5);
            put_place(out, *work_id, *pool, *key);
            number(out, (*attempts).into());
            out.push(completion.is_some().into());
            if let Some(key) = completion {
                put_key(out, *key);
            }
            put_history(out, history);
        }
        Change::CompleteWork { finished: row, .. } => {
            out.push(6);
            put_id(out, row.work_id);
            finished(out, row);
        }
        Change::MarkCanceled { work_id, pool, key } => {
            out.push(7);
            put_place(out, *work_id, *pool, *key);
        }
        Change::DeletePendingCancelation { pool, key } => {
            out.push(8);
            number(out, pool.0.into());
            put_key(out, *key);
        }
        Change::PutState { pool, state } => {
            out.push(9);
            number(out, pool.0.into());
            put_state(out, state);
        }
        Change::PutGlobals { pool, name, config } => {
            out.push(10);
            number(out, pool.0.into());
            globals(out, *name, config);
        }
        Change::MarkRetried { finished: row } => {
            out.push(14);
            put_id(out, row.work_id);
            finished(out, row);
        }
        Change::DeleteFinished { work_id } => {
            out.push(11);
            put_id(out, *work_id);
        }
        Change::PutRow { table, key, value } => {
            out.push(12);
            bytes(out, table.as_str().as_bytes());
            bytes(out, key.as_bytes());
            bytes(out, value.as_bytes());
        }
        Change::DeleteRow { table, key } => {
            out.push(13);
            bytes(out, table.as_str().as_bytes());
            bytes(out, key.as_bytes());
        }
    }
}

/// What the log says. All of a change is there, but for what is known of the job anyway.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Logged {
    Change(Change),
    /// [`Change::CompleteWork`]
    Complete(Arc<Finished>),
    /// [`Change::MarkRetried`]
    Retried(Arc<Finished>),
}

fn put_id(out: &mut Vec<u8>, work_id: WorkId) {
    out.extend_from_slice(work_id.as_uuid().as_bytes());
}

fn put_key(out: &mut Vec<u8>, key: Key) {
    number(out, key.segment.0);
    number(out, key.seq);
}

fn put_place(out: &mut Vec<u8>, work_id: WorkId, pool: PoolId, key: Key) {
    put_id(out, work_id);
    number(out, pool.0.into());
    put_key(out, key);
}

fn number(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn bytes(out: &mut Vec<u8>, value: &[u8]) {
    number(out, value.len() as u64);
    out.extend_from_slice(value);
}

fn duration(out: &mut Vec<u8>, value: Duration) {
    number(out, value.as_secs());
    number(out, value.subsec_nanos().into());
}

fn failure_kind(kind: FailureKind) -> u8 {
    match kind {
        FailureKind::Error => 0,
        FailureKind::Panic => 1,
        FailureKind::Timeout => 2,
        FailureKind::Lost => 3,
        FailureKind::Decode => 4,
        FailureKind::Encode => 5,
    }
}

fn failure(out: &mut Vec<u8>, value: &Failure) {
    let flags = u8::from(value.retryable) | u8::from(value.retry_after.is_some()) << 1;
    out.extend_from_slice(&[failure_kind(value.kind), flags]);
    bytes(out, value.message.as_bytes());
    if let Some(wait) = value.retry_after {
        duration(out, wait);
    }
}

/// What is left to decode.
pub(super) struct Input<'a>(pub &'a [u8]);

impl<'a> Input<'a> {
    /// The next change of the log; `None` at its end.
    pub fn change(&mut self) -> Decoded<Option<Logged>> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let change = match self.byte()? {
            0 => {
                let work_id = self.id()?;
                let (head, spec) = self.work(work_id)?;
                Change::InsertWork { spec, key: head.key }
            }
            1 => {
                let (work_id, pool, key) = self.place()?;
                let (run, attempts) = (self.small()?, self.small()?);
                let (result, retry) = self.completion()?;
                Change::InsertPendingCompletion { work_id, pool, key, run, result, retry, attempts }
            }
            2 => {
                let (work_id, pool, key) = self.place()?;
                Change::InsertPendingCancelation { work_id, pool, key }
            }
            3 => {
                let (work_id, pool, key) = self.place()?;
                let (run, started) = (self.small()?, Segment(self.number()?));
                let generation = Generation(self.number()?);
                Change::StartWork { work_id, pool, key, run, started, generation }
            }
            4 => {
                let (work_id, pool, from) = self.place()?;
                Change::MovePendingStart { work_id, pool, from, to: self.key()? }
            }
            5 => {
                let (work_id, pool, key) = self.place()?;
                let attempts = self.small()?;
                let completion = match self.byte()? {
                    0 => None,
                    _ => Some(self.key()?),
                };
                let history = self.history()?;
                Change::RetryWork { work_id, pool, completion, key, attempts, history }
            }
            6 => {
                let work_id = self.id()?;
                return Ok(Some(Logged::Complete(Arc::new(self.finished(work_id)?))));
            }
            7 => {
                let (work_id, pool, key) = self.place()?;
                Change::MarkCanceled { work_id, pool, key }
            }
            8 => {
                let pool = PoolId(self.small()?);
                Change::DeletePendingCancelation { pool, key: self.key()? }
            }
            9 => {
                let pool = PoolId(self.small()?);
                Change::PutState { pool, state: self.state()? }
            }
            10 => {
                let pool = PoolId(self.small()?);
                let (name, config) = self.globals()?;
                Change::PutGlobals { pool, name, config }
            }
            11 => Change::DeleteFinished { work_id: self.id()? },
            12 => {
                let (table, key) = (self.name()?, TableKey::from(self.bytes()?));
                Change::PutRow { table, key, value: Payload::new(self.bytes()?) }
            }
            13 => {
                let (table, key) = (self.name()?, TableKey::from(self.bytes()?));
                Change::DeleteRow { table, key }
            }
            14 => {
                let work_id = self.id()?;
                return Ok(Some(Logged::Retried(Arc::new(self.finished(work_id)?))));
            }
            _ => return Err(Damaged("unknown kind of change")),
        };
        Ok(Some(Logged::Change(change)))
    }

    fn head(&mut self) -> Decoded<Head> {
        Ok(Head {
            attempts: u32::from_le_bytes(self.array()?),
            runs: u32::from_le_bytes(self.array()?),
            key: Key {
                segment: Segment(u64::from_le_bytes(self.array()?)),
                seq: u64::from_le_bytes(self.array()?),
            },
            history: History::default(),
        })
    }

    fn work(&mut self, work_id: WorkId) -> Decoded<(Head, Arc<Spec>)> {
        let mut head = self.head()?;
        let flags = self.byte()?;
        let kind = match flags & 3 {
            0 => FunctionKind::Action,
            1 => FunctionKind::Mutation,
            2 => FunctionKind::Query,
            _ => FunctionKind::OnComplete,
        };
        let pool = PoolId(self.small()?);
        let enqueued_at = Segment(self.number()?);
        let function = self.name()?;
        let args = ArgBytes::new(self.bytes()?);
        let retry = match flags & 4 {
            0 => None,
            _ => Some(RetryBehavior {
                max_attempts: self.small()?,
                initial_backoff_ms: self.number()?,
                base: f64::from_bits(u64::from_le_bytes(self.array()?)),
            }),
        };
        let timeout = match flags & 8 {
            0 => None,
            _ => Some(self.duration()?),
        };
        let on_complete = match flags & 16 {
            0 => None,
            _ => Some(OnCompleteCall { name: self.name()?, context: Payload::new(self.bytes()?) }),
        };
        if flags & 32 != 0 {
            head.history = self.history()?;
        }
        let plain = retry.is_none() && timeout.is_none() && on_complete.is_none();
        let options = SpecOptions { on_complete, retry, timeout, span: SpanLink::default() };
        let options = (!plain).then(|| Box::new(options));
        let spec = Spec { work_id, pool, kind, function, args, enqueued_at, options };
        Ok((head, Arc::new(spec)))
    }

    fn history(&mut self) -> Decoded<History> {
        let attempts = self.number()?;
        let attempt = |_| {
            Ok(FailedAttempt {
                attempt: self.small()?,
                started: Segment(self.number()?),
                ended: Segment(self.number()?),
                kind: self.failure_kind()?,
                message: self.text()?.to_owned(),
            })
        };
        (0..attempts).map(attempt).collect()
    }

    fn id(&mut self) -> Decoded<WorkId> {
        Ok(WorkId::from_uuid(uuid::Uuid::from_bytes(self.array()?)))
    }

    fn key(&mut self) -> Decoded<Key> {
        Ok(Key { segment: Segment(self.number()?), seq: self.number()? })
    }

    fn place(&mut self) -> Decoded<(WorkId, PoolId, Key)> {
        Ok((self.id()?, PoolId(self.small()?), self.key()?))
    }

    fn completion(&mut self) -> Decoded<(RunResult, Retry)> {
        let retry = match self.byte()? {
            0 => Retry::No,
            1 => Retry::At(Segment(self.number()?)),
            _ => return Err(Damaged("unknown kind of retry")),
        };
        let result = match self.byte()? {
            0 => RunResult::Success(Payload::new(self.bytes()?)),
            1 => RunResult::Failed(self.failure()?),
            2 => RunResult::Canceled,
            3 => RunResult::Snoozed(self.duration()?),
            4 => RunResult::Returned,
            _ => return Err(Damaged("unknown kind of result")),
        };
        Ok((result, retry))
    }

    fn finished(&mut self, work_id: WorkId) -> Decoded<Finished> {
        Ok(Finished {
            work_id,
            pool: PoolId(self.small()?),
            function: self.name()?,
            attempts: self.small()?,
            enqueued_at: Segment(self.number()?),
            finished_at: Segment(self.number()?),
            outcome: match self.byte()? {
                0 => Outcome::Success(Payload::new(self.bytes()?)),
                1 => Outcome::Failed(self.failure()?),
                2 => Outcome::Canceled,
                _ => return Err(Damaged("unknown kind of outcome")),
            },
            started: self.number()?.checked_sub(1).map(Segment),
            details: self.details(work_id)?,
        })
    }

    fn details(&mut self, work_id: WorkId) -> Decoded<Option<Box<FinishedDetails>>> {
        let flags = self.byte()?;
        if flags == 0 {
            return Ok(None);
        }
        let history = self.history()?;
        let on_complete = if flags & 2 != 0 { Some(self.name()?) } else { None };
        let follow_up = if flags & 4 != 0 { Some(self.id()?) } else { None };
        let spec = if flags & 8 != 0 { Some(self.work(work_id)?.1) } else { None };
        let retried_as = if flags & 16 != 0 { Some(self.id()?) } else { None };
        let details = FinishedDetails { history, on_complete, follow_up, retried_as, spec };
        Ok(Some(Box::new(details)))
    }

    fn state(&mut self) -> Decoded<StateRow> {
        let mut next = || self.number();
        Ok(StateRow {
            generation: Generation(next()?),
            epoch: Epoch(next()?),
            turn: next()?,
            cursors: Cursors {
                incoming: Segment(next()?),
                completion: Segment(next()?),
                cancelation: Segment(next()?),
            },
            last_recovery: Segment(next()?),
            report: Report {
                completed: next()?,
                succeeded: next()?,
                failed: next()?,
                retries: next()?,
                canceled: next()?,
                last_report_ts: Segment(next()?),
            },
        })
    }

    fn globals(&mut self) -> Decoded<(Name, PoolConfig)> {
        let (name, config) = (self.name()?, self.bytes()?);
        Ok((name, serde_json::from_slice(config).map_err(|_| Damaged("not a configuration"))?))
    }

    fn take(&mut self, len: usize) -> Decoded<&'a [u8]> {
        let (taken, left) = self.0.split_at_checked(len).ok_or(Damaged("row is too short"))?;
        self.0 = left;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Decoded<[u8; N]> {
        self.take(N)?.try_into().map_err(|_| Damaged("row is too short"))
    }

    fn byte(&mut self) -> Decoded<u8> {
        Ok(self.take(1)?[0])
    }

    fn number(&mut self) -> Decoded<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let part = u64::from(byte & 0x7f);
            if shift == 63 && part > 1 {
                break;
            }
            value |= part << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Damaged("number is too long"))
    }

    fn small(&mut self) -> Decoded<u32> {
        u32::try_from(self.number()?).map_err(|_| Damaged("number is too large"))
    }

    fn bytes(&mut self) -> Decoded<&'a [u8]> {
        let len = usize::try_from(self.number()?).map_err(|_| Damaged("length is too large"))?;
        self.take(len)
    }

    fn text(&mut self) -> Decoded<&'a str> {
        std::str::from_utf8(self.bytes()?).map_err(|_| Damaged("text is not UTF-8"))
    }

    fn name(&mut self) -> Decoded<Name> {
        Ok(Name::intern(self.text()?))
    }

    fn duration(&mut self) -> Decoded<Duration> {
        let (secs, nanos) = (self.number()?, self.small()?);
        if nanos >= 1_000_000_000 {
            return Err(Damaged("duration has too many nanoseconds"));
        }
        Ok(Duration::new(secs, nanos))
    }

    fn failure_kind(&mut self) -> Decoded<FailureKind> {
        Ok(match self.byte()? {
            0 => FailureKind::Error,
            1 => FailureKind::Panic,
            2 => FailureKind::Timeout,
            3 => FailureKind::Lost,
            4 => FailureKind::Decode,
            5 => FailureKind::Encode,
            _ => return Err(Damaged("unknown kind of failure")),
        })
    }

    fn failure(&mut self) -> Decoded<Failure> {
        let kind = self.failure_kind()?;
        let flags = self.byte()?;
        let message = self.text()?.to_owned();
        let retry_after = match flags & 2 {
            0 => None,
            _ => Some(self.duration()?),
        };
        Ok(Failure { kind, message, retryable: flags & 1 != 0, retry_after })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(options: Option<SpecOptions>) -> Spec {
        Spec {
            work_id: WorkId::from_uuid(uuid::Uuid::from_u128(7)),
            pool: PoolId(300),
            kind: FunctionKind::Mutation,
            function: Name::from_static("bank.credit"),
            args: ArgBytes::new(br#"{"to":1}"#),
            enqueued_at: Segment(u64::MAX),
            options: options.map(Box::new),
        }
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
            span: SpanLink::default(),
        };
        let key = Key { segment: Segment(9), seq: 8 };
        for history in [History::default(), history()] {
            let head = Head { attempts: 3, runs: u32::MAX, key, history };
            for spec in [spec(None), spec(Some(full.clone()))] {
                let row = written(|out| work(out, &head, &spec));
                let (read_head, read) = decode_work(spec.work_id, &row).expect("decodes");
                assert_eq!((&read_head, &*read), (&head, &spec));
            }
        }
    }

    fn history() -> History {
        let attempt = |attempt, kind| FailedAttempt {
            attempt,
            started: Segment(u64::MAX),
            ended: Segment(0),
            kind,
            message: "näh".repeat(attempt as usize),
        };
        History::from_iter([attempt(1, FailureKind::Lost), attempt(7, FailureKind::Encode)])
    }

    #[test]
    fn a_finished_job_comes_back_as_it_was() {
        let spec = Arc::new(spec(None));
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
        ] {
            let row = RunRow {
                pool: PoolId(0),
                run: 9,
                started: Segment(4),
                generation: Generation(5),
                attempts: 6,
                canceled: true,
                completion: Some((key, result, retry)),
                history: history(),
            };
            assert_eq!(decode_running(&written(|out| running(out, &row))), Ok(row));
        }
    }

    #[test]
    fn a_damaged_row_is_an_error_and_never_a_panic() {
        let work_id = WorkId::from_uuid(uuid::Uuid::nil());
        let mut rng = fastrand::Rng::with_seed(11);
        let options = SpecOptions { timeout: Some(Duration::ZERO), ..SpecOptions::default() };
        let spec = Arc::new(spec(Some(options)));
        let whole = written(|out| change(out, &Change::InsertWork { spec, key: Key::default() }));
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
            let _ = decode_globals(&row);
            let _ = Input(&row).change();
        }
    }
}
