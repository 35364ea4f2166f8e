//! The rows of each table. Each encoder stands before its decoder.

use super::parts::{
    Damaged, Decoded, Input, bytes, duration, failure, failure_kind, flag, number, put_id, put_key,
    put_priority, put_stand,
};
use crate::model::{
    Cursors, Epoch, FailedAttempt, Finished, FinishedDetails, FunctionKind, Generation, History,
    Key, LaneRow, Name, OnCompleteCall, Outcome, Payload, PoolConfig, PoolId, Priority, Report,
    Retry, RetryBehavior, RunNumber, RunResult, Segment, SpanLink, Spec, SpecHead, SpecOptions,
    StartKey, StartPlace, StateRow, Unique, UniqueHold, UniqueKey, UniqueRow, WorkId,
};

/// The part of a `work` row that changes. It comes first, so that it can be replaced in place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Head {
    pub attempts: u32,
    pub runs: RunNumber,
    /// The job's key in `pending_start`, unless it is in `running`.
    pub key: Key,
    /// Comes last, like the place and the history, because most jobs have none.
    pub priority: Priority,
    pub place: StartPlace,
    pub history: History,
}

impl Head {
    const LEN: usize = 24;

    /// Makes the head of a new job.
    pub fn new(key: StartKey) -> Head {
        Head::default().at(key)
    }

    /// Returns the head of the same job in another place.
    pub fn at(self, key: StartKey) -> Head {
        Head { key: key.key(), priority: key.priority, place: key.place, ..self }
    }

    /// Returns the job's key in `pending_start`, unless it is in `running`.
    pub fn start_key(&self) -> StartKey {
        StartKey::at(self.priority, self.key).in_place(self.place)
    }

    fn to_bytes(&self) -> [u8; Head::LEN] {
        let mut bytes = [0; Head::LEN];
        bytes[..4].copy_from_slice(&self.attempts.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.runs.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.key.segment.0.to_le_bytes());
        bytes[16..].copy_from_slice(&self.key.seq.to_le_bytes());
        bytes
    }
}

impl Input<'_> {
    fn head(&mut self) -> Decoded<Head> {
        Ok(Head {
            attempts: u32::from_le_bytes(self.array()?),
            runs: u32::from_le_bytes(self.array()?),
            key: Key {
                segment: Segment(u64::from_le_bytes(self.array()?)),
                seq: u64::from_le_bytes(self.array()?),
            },
            priority: Priority::NORMAL,
            place: StartPlace::Queue,
            history: History::default(),
        })
    }
}

/// Encodes a row of `work`.
pub fn work(out: &mut Vec<u8>, head: &Head, spec: &Spec) {
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
    let extra_cost = options.map_or(0, |options| options.extra_cost);
    let unique = spec.unique();
    let more = flag(spec.priority != Priority::NORMAL, 0)
        | flag(head.priority != spec.priority, 1)
        | flag(extra_cost != 0, 2)
        | flag(unique.is_some(), 3)
        | flag(head.place != StartPlace::Queue, 4)
        | flag(spec.key().is_some(), 5);
    out.push(
        kind | flag(retry.is_some(), 2)
            | flag(timeout.is_some(), 3)
            | flag(on_complete.is_some(), 4)
            | flag(!head.history.attempts().is_empty(), 5)
            | flag(more != 0, 6),
    );
    number(out, spec.pool.0.into());
    number(out, spec.enqueued_at.0);
    bytes(out, spec.function.as_str().as_bytes());
    bytes(out, spec.args());
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
    if more != 0 {
        out.push(more);
    }
    if more & 1 != 0 {
        put_priority(out, spec.priority);
    }
    if more & 2 != 0 {
        put_priority(out, head.priority);
    }
    if more & 4 != 0 {
        number(out, extra_cost.into());
    }
    if let Some(Unique { key, hold }) = unique {
        bytes(out, key.as_bytes());
        put_hold(out, *hold);
    }
    if more & 16 != 0 {
        put_stand(out, head.place);
    }
    if let Some(key) = spec.key() {
        bytes(out, key);
        number(out, spec.weight().into());
    }
}

pub fn decode_work(work_id: WorkId, row: &[u8]) -> Decoded<(Head, Spec)> {
    Input(row).work(work_id)
}

impl Input<'_> {
    pub fn work(&mut self, work_id: WorkId) -> Decoded<(Head, Spec)> {
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
        let args = self.bytes()?;
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
        let more = if flags & 64 != 0 { self.byte()? } else { 0 };
        let priority = if more & 1 != 0 { self.priority()? } else { Priority::NORMAL };
        head.priority = if more & 2 != 0 { self.priority()? } else { priority };
        let extra_cost = if more & 4 != 0 { self.small()? } else { 0 };
        let unique = match more & 8 {
            0 => None,
            _ => Some(Unique { key: UniqueKey::new(self.bytes()?), hold: self.hold()? }),
        };
        if more & 16 != 0 {
            head.place = self.stand()?;
        }
        let key = if more & 32 != 0 { Some((self.work_key()?, self.small()?)) } else { None };
        let plain = retry.is_none()
            && timeout.is_none()
            && on_complete.is_none()
            && extra_cost == 0
            && unique.is_none();
        let span = SpanLink::default();
        let options = SpecOptions { on_complete, retry, timeout, extra_cost, unique, span };
        let options = (!plain).then(|| Box::new(options));
        let common = SpecHead { pool, kind, function, enqueued_at, priority, options };
        let spec = match key {
            None => Spec::new(work_id, common, args),
            Some((key, weight)) => {
                let weight = u16::try_from(weight).map_err(|_| Damaged("weight is too large"))?;
                Spec::keyed(work_id, common, key.as_bytes(), weight, args)
            }
        };
        Ok((head, spec))
    }
}

/// Decodes only the pool of a `work` row.
pub fn decode_pool(row: &[u8]) -> Decoded<PoolId> {
    let mut input = Input(row);
    input.take(Head::LEN + 1)?;
    Ok(PoolId(input.small()?))
}

fn put_hold(out: &mut Vec<u8>, hold: UniqueHold) {
    match hold {
        UniqueHold::WhileWaiting => out.push(0),
        UniqueHold::UntilFinished => out.push(1),
        UniqueHold::Within(period) => {
            out.push(2);
            duration(out, period);
        }
    }
}

impl Input<'_> {
    fn hold(&mut self) -> Decoded<UniqueHold> {
        Ok(match self.byte()? {
            0 => UniqueHold::WhileWaiting,
            1 => UniqueHold::UntilFinished,
            2 => UniqueHold::Within(self.duration()?),
            _ => return Err(Damaged("unknown kind of hold")),
        })
    }
}

/// Encodes a row of `unique`.
pub fn unique(out: &mut Vec<u8>, row: &UniqueRow) {
    put_id(out, row.work_id);
    number(out, row.enqueued_at.0);
    put_hold(out, row.hold);
}

pub fn decode_unique(row: &[u8]) -> Decoded<UniqueRow> {
    let mut input = Input(row);
    let (work_id, enqueued_at) = (input.id()?, Segment(input.number()?));
    Ok(UniqueRow { work_id, hold: input.hold()?, enqueued_at })
}

/// Encodes a row of `lanes`.
pub fn lane(out: &mut Vec<u8>, row: &LaneRow) {
    for count in [row.holders, row.running, row.waiting] {
        number(out, count.into());
    }
    for value in [row.tag, row.tat, row.rest.0] {
        number(out, value);
    }
    put_priority(out, row.tag_of);
}

pub fn decode_lane(row: &[u8]) -> Decoded<LaneRow> {
    Input(row).lane()
}

impl Input<'_> {
    pub fn lane(&mut self) -> Decoded<LaneRow> {
        let (holders, running, waiting) = (self.small()?, self.small()?, self.small()?);
        let (tag, tat, rest) = (self.number()?, self.number()?, Segment(self.number()?));
        let tag_of = self.priority()?;
        Ok(LaneRow { holders, running, waiting, tag, tag_of, tat, rest })
    }
}

pub fn put_history(out: &mut Vec<u8>, history: &History) {
    number(out, history.attempts().len() as u64);
    for failed in history.attempts() {
        number(out, failed.attempt.into());
        number(out, Segment::of(failed.started).0);
        number(out, Segment::of(failed.ended).0);
        out.push(failure_kind(failed.kind));
        bytes(out, failed.message.as_bytes());
    }
}

impl Input<'_> {
    pub fn history(&mut self) -> Decoded<History> {
        let attempts = self.number()?;
        let attempt = |_| {
            Ok(FailedAttempt {
                attempt: self.small()?,
                started: Segment(self.number()?).time(),
                ended: Segment(self.number()?).time(),
                kind: self.failure_kind()?,
                message: self.text()?.to_owned(),
            })
        };
        (0..attempts).map(attempt).collect()
    }
}

/// A row of `running`, with its waiting completion, if there is one.
#[derive(Clone, Debug, PartialEq)]
pub struct RunRow {
    pub pool: PoolId,
    pub run: RunNumber,
    pub started: Segment,
    pub generation: Generation,
    pub attempts: u32,
    pub canceled: bool,
    pub priority: Priority,
    pub completion: Option<(Key, RunResult, Retry)>,
    pub history: History,
}

pub fn running(out: &mut Vec<u8>, row: &RunRow) {
    let is_normal = row.priority == Priority::NORMAL;
    out.push(flag(row.canceled, 0) | flag(row.completion.is_some(), 1) | flag(!is_normal, 2));
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
    if !is_normal {
        put_priority(out, row.priority);
    }
}

pub fn decode_running(row: &[u8]) -> Decoded<RunRow> {
    let mut input = Input(row);
    let flags = input.byte()?;
    let mut row = RunRow {
        pool: PoolId(input.small()?),
        run: input.small()?,
        started: Segment(input.number()?),
        generation: Generation(input.number()?),
        attempts: input.small()?,
        canceled: flags & 1 != 0,
        priority: Priority::NORMAL,
        completion: None,
        history: History::default(),
    };
    if flags & 2 != 0 {
        let key = input.key()?;
        let (result, retry) = input.completion()?;
        row.completion = Some((key, result, retry));
    }
    row.history = input.history()?;
    if flags & 4 != 0 {
        row.priority = input.priority()?;
    }
    Ok(row)
}

pub fn completion(out: &mut Vec<u8>, result: &RunResult, retry: Retry) {
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
        RunResult::PoolLimited(wait) => {
            out.push(5);
            duration(out, *wait);
        }
        RunResult::KeyLimited(wait) => {
            out.push(6);
            duration(out, *wait);
        }
    }
}

impl Input<'_> {
    pub fn completion(&mut self) -> Decoded<(RunResult, Retry)> {
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
            5 => RunResult::PoolLimited(self.duration()?),
            6 => RunResult::KeyLimited(self.duration()?),
            _ => return Err(Damaged("unknown kind of result")),
        };
        Ok((result, retry))
    }
}

/// Encodes a row of `finished`.
pub fn finished(out: &mut Vec<u8>, row: &Finished) {
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
        work(out, &Head { priority: spec.priority, ..Head::default() }, spec);
    }
    if let Some(work_id) = retried_as {
        put_id(out, *work_id);
    }
}

pub fn decode_finished(work_id: WorkId, row: &[u8]) -> Decoded<Finished> {
    Input(row).finished(work_id)
}

impl Input<'_> {
    pub fn finished(&mut self, work_id: WorkId) -> Decoded<Finished> {
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
}

/// The number of rows that a pool has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RowCounts {
    pub works: u64,
    /// Those in `pending_start` of each priority.
    pub levels: Vec<LevelCounts>,
    /// The jobs in lanes.
    pub in_lanes: u64,
    /// The jobs whose function is not registered.
    pub unregistered: u64,
}

/// The number of jobs of one priority that wait for their time or for a slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LevelCounts {
    pub priority: Priority,
    pub queue: u64,
    pub ready: u64,
}

/// Stands for the number of jobs in a queue where the numbers of format 6 begin.
const MORE_COUNTS: u64 = u64::MAX;

/// Encodes a row of `state`: a pool's `internal_state`, and the number of its rows.
pub fn state(out: &mut Vec<u8>, row: &StateRow, counts: &RowCounts) {
    put_state(out, row);
    number(out, counts.works);
    number(out, counts.levels.iter().map(|level| level.queue).sum());
    number(out, counts.unregistered);
    number(out, row.tat);
    for level in &counts.levels {
        put_priority(out, level.priority);
        number(out, level.queue);
    }
    let has_ready = |level: &&LevelCounts| level.ready > 0;
    let ready = counts.levels.iter().filter(has_ready);
    if counts.in_lanes == 0 && ready.clone().next().is_none() {
        return;
    }
    put_priority(out, Priority::NORMAL);
    number(out, MORE_COUNTS);
    number(out, counts.in_lanes);
    for level in ready {
        put_priority(out, level.priority);
        number(out, level.ready);
    }
}

pub fn decode_state(row: &[u8]) -> Decoded<(StateRow, RowCounts)> {
    let mut input = Input(row);
    let mut state = input.state()?;
    let (works, queue, unregistered) = (input.number()?, input.number()?, input.number()?);
    let mut counts = RowCounts { works, unregistered, ..RowCounts::default() };
    if input.0.is_empty() {
        // Up to format 4 there was one priority, and no rate.
        counts.levels.push(LevelCounts { queue, ..LevelCounts::default() });
        return Ok((state, counts));
    }
    state.tat = input.number()?;
    while !input.0.is_empty() {
        let (priority, queue) = (input.priority()?, input.number()?);
        if queue == MORE_COUNTS {
            counts.in_lanes = input.number()?;
            break;
        }
        counts.levels.push(LevelCounts { priority, queue, ready: 0 });
    }
    while !input.0.is_empty() {
        let (priority, ready) = (input.priority()?, input.number()?);
        let level = counts.levels.iter_mut().find(|level| level.priority == priority);
        level.ok_or(Damaged("a priority has no queue"))?.ready = ready;
    }
    Ok((state, counts))
}

pub fn put_state(out: &mut Vec<u8>, row: &StateRow) {
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
        row.last_report.0,
    ];
    for value in numbers {
        number(out, value);
    }
}

impl Input<'_> {
    pub fn state(&mut self) -> Decoded<StateRow> {
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
            },
            last_report: Segment(next()?),
            tat: 0,
        })
    }
}

/// Encodes a row of `pools`.
pub fn globals(out: &mut Vec<u8>, name: Name, config: &PoolConfig) {
    let config = serde_json::to_vec(config).unwrap_or_default();
    bytes(out, name.as_str().as_bytes());
    bytes(out, &config);
}

pub fn decode_globals(row: &[u8]) -> Decoded<(Name, PoolConfig)> {
    Input(row).globals()
}

impl Input<'_> {
    pub fn globals(&mut self) -> Decoded<(Name, PoolConfig)> {
        let (name, config) = (self.name()?, self.bytes()?);
        Ok((name, serde_json::from_slice(config).map_err(|_| Damaged("not a configuration"))?))
    }
}
