//! How rows become bytes: little-endian, lengths and small numbers as LEB128.

use std::sync::Arc;
use std::time::Duration;

use crate::model::{
    ArgBytes, Cursors, Epoch, Failure, FailureKind, Finished, FunctionKind, Generation, Key, Name,
    OnCompleteCall, Outcome, Payload, PoolId, Report, Retry, RetryBehavior, RunNumber, RunResult,
    Segment, SpanLink, Spec, SpecOptions, StateRow, WorkId,
};

/// A row that does not say what it should. The file was damaged, or written by something else.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("damaged row: {0}")]
pub struct Damaged(&'static str);

type Decoded<T> = Result<T, Damaged>;

/// The part of a `work` row that changes; it stands in front, so that it can be replaced in place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Head {
    pub attempts: u32,
    pub runs: RunNumber,
    /// The work's place in `pending_start`, unless it is in `running`.
    pub key: Key,
}

impl Head {
    const LEN: usize = 24;

    fn to_bytes(self) -> [u8; Head::LEN] {
        let mut bytes = [0; Head::LEN];
        bytes[..4].copy_from_slice(&self.attempts.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.runs.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.key.segment.0.to_le_bytes());
        bytes[16..].copy_from_slice(&self.key.seq.to_le_bytes());
        bytes
    }
}

pub(super) fn work(head: Head, spec: &Spec) -> Vec<u8> {
    let mut out = Vec::with_capacity(Head::LEN + 64 + spec.args.as_bytes().len());
    out.extend_from_slice(&head.to_bytes());
    let options = spec.options.as_deref();
    let retry = options.and_then(|options| options.retry);
    let timeout = options.and_then(|options| options.timeout);
    let on_complete = options.and_then(|options| options.on_complete.as_ref());
    let kind = match spec.kind {
        FunctionKind::Action => 0,
        FunctionKind::Mutation => 1,
        FunctionKind::Query => 2,
    };
    let flag = |set: bool, bit: u8| u8::from(set) << bit;
    out.push(
        kind | flag(retry.is_some(), 2)
            | flag(timeout.is_some(), 3)
            | flag(on_complete.is_some(), 4),
    );
    number(&mut out, spec.pool.0.into());
    number(&mut out, spec.enqueued_at.0);
    bytes(&mut out, spec.function.as_str().as_bytes());
    bytes(&mut out, spec.args.as_bytes());
    if let Some(retry) = retry {
        number(&mut out, retry.max_attempts.into());
        number(&mut out, retry.initial_backoff_ms);
        out.extend_from_slice(&retry.base.to_bits().to_le_bytes());
    }
    if let Some(timeout) = timeout {
        duration(&mut out, timeout);
    }
    if let Some(call) = on_complete {
        bytes(&mut out, call.name.as_str().as_bytes());
        bytes(&mut out, call.context.as_bytes());
    }
    out
}

/// A `work` row with another head.
pub(super) fn replace_head(row: &[u8], head: Head) -> Decoded<Vec<u8>> {
    if row.len() < Head::LEN {
        return Err(Damaged("work is too short"));
    }
    let mut row = row.to_vec();
    row[..Head::LEN].copy_from_slice(&head.to_bytes());
    Ok(row)
}

pub(super) fn decode_head(row: &[u8]) -> Decoded<Head> {
    let mut input = Input(row);
    Ok(Head {
        attempts: u32::from_le_bytes(input.array()?),
        runs: u32::from_le_bytes(input.array()?),
        key: Key {
            segment: Segment(u64::from_le_bytes(input.array()?)),
            seq: u64::from_le_bytes(input.array()?),
        },
    })
}

/// Only the pool of a `work` row.
pub(super) fn decode_pool(row: &[u8]) -> Decoded<PoolId> {
    let mut input = Input(row);
    input.take(Head::LEN + 1)?;
    Ok(PoolId(input.small()?))
}

pub(super) fn decode_work(work_id: WorkId, row: &[u8]) -> Decoded<(Head, Arc<Spec>)> {
    let head = decode_head(row)?;
    let mut input = Input(&row[Head::LEN..]);
    let flags = input.byte()?;
    let kind = match flags & 3 {
        0 => FunctionKind::Action,
        1 => FunctionKind::Mutation,
        2 => FunctionKind::Query,
        _ => return Err(Damaged("unknown kind of function")),
    };
    let pool = PoolId(input.small()?);
    let enqueued_at = Segment(input.number()?);
    let function = input.name()?;
    let args = ArgBytes::new(input.bytes()?);
    let retry = match flags & 4 {
        0 => None,
        _ => Some(RetryBehavior {
            max_attempts: input.small()?,
            initial_backoff_ms: input.number()?,
            base: f64::from_bits(u64::from_le_bytes(input.array()?)),
        }),
    };
    let timeout = match flags & 8 {
        0 => None,
        _ => Some(input.duration()?),
    };
    let on_complete = match flags & 16 {
        0 => None,
        _ => Some(OnCompleteCall { name: input.name()?, context: Payload::new(input.bytes()?) }),
    };
    let plain = retry.is_none() && timeout.is_none() && on_complete.is_none();
    let options = SpecOptions { on_complete, retry, timeout, span: SpanLink::default() };
    let options = (!plain).then(|| Box::new(options));
    let spec = Spec { work_id, pool, kind, function, args, enqueued_at, options };
    Ok((head, Arc::new(spec)))
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
}

pub(super) fn running(row: &RunRow) -> Vec<u8> {
    let mut out = Vec::with_capacity(40);
    out.push(u8::from(row.canceled) | u8::from(row.completion.is_some()) << 1);
    number(&mut out, row.pool.0.into());
    number(&mut out, row.run.into());
    number(&mut out, row.started.0);
    number(&mut out, row.generation.0);
    number(&mut out, row.attempts.into());
    if let Some((key, result, retry)) = &row.completion {
        number(&mut out, key.segment.0);
        number(&mut out, key.seq);
        match retry {
            Retry::No => out.push(0),
            Retry::At(segment) => {
                out.push(1);
                number(&mut out, segment.0);
            }
        }
        match result {
            RunResult::Success(output) => {
                out.push(0);
                bytes(&mut out, output.as_bytes());
            }
            RunResult::Failed(cause) => {
                out.push(1);
                failure(&mut out, cause);
            }
            RunResult::Canceled => out.push(2),
            RunResult::Snoozed(wait) => {
                out.push(3);
                duration(&mut out, *wait);
            }
            RunResult::HandedBack => out.push(4),
        }
    }
    out
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
    };
    if flags & 2 != 0 {
        let key = Key { segment: Segment(input.number()?), seq: input.number()? };
        let retry = match input.byte()? {
            0 => Retry::No,
            1 => Retry::At(Segment(input.number()?)),
            _ => return Err(Damaged("unknown kind of retry")),
        };
        let result = match input.byte()? {
            0 => RunResult::Success(Payload::new(input.bytes()?)),
            1 => RunResult::Failed(input.failure()?),
            2 => RunResult::Canceled,
            3 => RunResult::Snoozed(input.duration()?),
            4 => RunResult::HandedBack,
            _ => return Err(Damaged("unknown kind of result")),
        };
        row.completion = Some((key, result, retry));
    }
    Ok(row)
}

/// A row of `finished`, with its place in the order of finishing.
pub(super) fn finished(place: u64, row: &Finished) -> Vec<u8> {
    let mut out = Vec::with_capacity(56);
    number(&mut out, place);
    number(&mut out, row.pool.0.into());
    bytes(&mut out, row.function.as_str().as_bytes());
    number(&mut out, row.attempts.into());
    number(&mut out, row.enqueued_at.0);
    number(&mut out, row.finished_at.0);
    match &row.outcome {
        Outcome::Success(output) => {
            out.push(0);
            bytes(&mut out, output.as_bytes());
        }
        Outcome::Failed(cause) => {
            out.push(1);
            failure(&mut out, cause);
        }
        Outcome::Canceled => out.push(2),
    }
    out
}

pub(super) fn decode_finished(work_id: WorkId, row: &[u8]) -> Decoded<(u64, Finished)> {
    let mut input = Input(row);
    let place = input.number()?;
    let row = Finished {
        work_id,
        pool: PoolId(input.small()?),
        function: input.name()?,
        attempts: input.small()?,
        enqueued_at: Segment(input.number()?),
        finished_at: Segment(input.number()?),
        outcome: match input.byte()? {
            0 => Outcome::Success(Payload::new(input.bytes()?)),
            1 => Outcome::Failed(input.failure()?),
            2 => Outcome::Canceled,
            _ => return Err(Damaged("unknown kind of outcome")),
        },
    };
    Ok((place, row))
}

/// A pool's `internal_state` with how many rows it has: works, waiting, in the unregistered lane.
pub(super) fn state(row: &StateRow, counts: [u64; 3]) -> Vec<u8> {
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
    let mut out = Vec::with_capacity(120);
    for value in numbers.into_iter().chain(counts) {
        number(&mut out, value);
    }
    out
}

pub(super) fn decode_state(row: &[u8]) -> Decoded<(StateRow, [u64; 3])> {
    let mut input = Input(row);
    let mut next = || input.number();
    let state = StateRow {
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
    };
    Ok((state, [next()?, next()?, next()?]))
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

fn failure(out: &mut Vec<u8>, value: &Failure) {
    let kind = match value.kind {
        FailureKind::Error => 0,
        FailureKind::Panic => 1,
        FailureKind::Timeout => 2,
        FailureKind::Lost => 3,
        FailureKind::Decode => 4,
        FailureKind::Encode => 5,
    };
    let flags = u8::from(value.retryable) | u8::from(value.retry_after.is_some()) << 1;
    out.extend_from_slice(&[kind, flags]);
    bytes(out, value.message.as_bytes());
    if let Some(wait) = value.retry_after {
        duration(out, wait);
    }
}

/// What is left to decode.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
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

    fn failure(&mut self) -> Decoded<Failure> {
        let kind = match self.byte()? {
            0 => FailureKind::Error,
            1 => FailureKind::Panic,
            2 => FailureKind::Timeout,
            3 => FailureKind::Lost,
            4 => FailureKind::Decode,
            5 => FailureKind::Encode,
            _ => return Err(Damaged("unknown kind of failure")),
        };
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

    #[test]
    fn a_work_comes_back_as_it_was() {
        let full = SpecOptions {
            on_complete: Some(OnCompleteCall {
                name: Name::from_static("done"),
                context: Payload::new(b"[1,2]"),
            }),
            retry: Some(RetryBehavior { max_attempts: u32::MAX, initial_backoff_ms: 0, base: 1.5 }),
            timeout: Some(Duration::new(u64::MAX, 999_999_999)),
            span: SpanLink::default(),
        };
        let head = Head { attempts: 3, runs: u32::MAX, key: Key { segment: Segment(9), seq: 8 } };
        for spec in [spec(None), spec(Some(full))] {
            let row = work(head, &spec);
            let (read_head, read) = decode_work(spec.work_id, &row).expect("decodes");
            assert_eq!((read_head, &*read), (head, &spec));
            let moved = Head { attempts: 4, ..head };
            let row = replace_head(&row, moved).expect("a row");
            assert_eq!(decode_work(spec.work_id, &row).expect("decodes").0, moved);
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
            (RunResult::HandedBack, Retry::At(Segment(u64::MAX))),
        ] {
            let row = RunRow {
                pool: PoolId(0),
                run: 9,
                started: Segment(4),
                generation: Generation(5),
                attempts: 6,
                canceled: true,
                completion: Some((key, result, retry)),
            };
            assert_eq!(decode_running(&running(&row)), Ok(row));
        }
    }

    #[test]
    fn a_damaged_row_is_an_error_and_never_a_panic() {
        let work_id = WorkId::from_uuid(uuid::Uuid::nil());
        let mut rng = fastrand::Rng::with_seed(11);
        let whole = work(Head::default(), &spec(Some(SpecOptions::default())));
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
        }
    }
}
