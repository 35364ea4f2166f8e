//! Encodes and decodes the changes in the log.

use std::sync::Arc;

use super::parts::{
    Damaged, Decoded, Input, bytes, number, put_id, put_key, put_place, put_priority, put_stand,
    put_start_key,
};
use super::rows::{Head, completion, finished, globals, lane, put_history, put_state, work};
use crate::model::{
    Change, Finished, Generation, Payload, PoolId, Priority, Segment, StartKey, StartPlace,
    StateRow, TableKey, UniqueKey, WorkId,
};

/// Encodes the kind of a change and the place of its job. A place in the queue and the normal priority have kinds of
/// their own, without a byte for what they are.
fn put_start(
    out: &mut Vec<u8>,
    [normal, queue, other]: [u8; 3],
    work_id: WorkId,
    pool: PoolId,
    key: StartKey,
) {
    let kind = match key {
        StartKey { place: StartPlace::Queue, priority: Priority::NORMAL, .. } => normal,
        StartKey { place: StartPlace::Queue, .. } => queue,
        _ => other,
    };
    out.push(kind);
    put_place(out, work_id, pool, key.key());
    if kind != normal {
        put_priority(out, key.priority);
    }
    if !is_in_queue(&key) {
        put_stand(out, key.place);
    }
}

fn is_in_queue(key: &StartKey) -> bool {
    key.place == StartPlace::Queue
}

/// Encodes a change for the log.
pub fn change(out: &mut Vec<u8>, change: &Change) {
    match change {
        Change::InsertWork { spec, key } => {
            out.push(0);
            put_id(out, spec.work_id);
            work(out, &Head::new(*key), spec);
        }
        Change::InsertRunning { spec, key, run, started, generation } => {
            out.push(15);
            put_id(out, spec.work_id);
            work(out, &Head::new(*key), spec);
            number(out, (*run).into());
            number(out, started.0);
            number(out, generation.0);
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
            put_start(out, [3, 16, 23], *work_id, *pool, *key);
            number(out, (*run).into());
            number(out, started.0);
            number(out, generation.0);
        }
        Change::MovePendingStart { work_id, pool, from, to }
            if !is_in_queue(from) || !is_in_queue(to) =>
        {
            out.push(24);
            put_id(out, *work_id);
            number(out, pool.0.into());
            put_start_key(out, *from);
            put_start_key(out, *to);
        }
        Change::MovePendingStart { work_id, pool, from, to } => {
            match from.priority == to.priority {
                true => put_start(out, [4, 17, 17], *work_id, *pool, *from),
                false => {
                    out.push(18);
                    put_place(out, *work_id, *pool, from.key());
                    put_priority(out, from.priority);
                    put_priority(out, to.priority);
                }
            }
            put_key(out, to.key());
        }
        Change::ReplaceWork { spec, from, to } => {
            out.push(if is_in_queue(from) { 21 } else { 25 });
            put_id(out, spec.work_id);
            work(out, &Head::new(*to), spec);
            put_key(out, from.key());
            put_priority(out, from.priority);
            if !is_in_queue(from) {
                put_stand(out, from.place);
            }
        }
        Change::RetryWork { work_id, pool, completion, key, attempts, history } => {
            put_start(out, [5, 19, 26], *work_id, *pool, *key);
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
            let kind = if state.tat == 0 { 9 } else { 20 };
            out.push(kind);
            number(out, pool.0.into());
            put_state(out, state);
            if kind != 9 {
                number(out, state.tat);
            }
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
        Change::DeleteUnique { place: (pool, key) } => {
            out.push(22);
            number(out, pool.0.into());
            bytes(out, key.as_bytes());
        }
        Change::PutLane { pool, key, row } => {
            out.push(27);
            number(out, pool.0.into());
            bytes(out, key.as_bytes());
            out.push(row.is_some().into());
            if let Some(row) = row {
                lane(out, row);
            }
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

/// A change from the log, without the fields that are known from the job anyway.
#[derive(Clone, Debug, PartialEq)]
pub enum Logged {
    Change(Change),
    /// [`Change::CompleteWork`]
    Complete(Arc<Finished>),
    /// [`Change::MarkRetried`]
    Retried(Arc<Finished>),
}

impl Input<'_> {
    fn start(
        &mut self,
        kind: u8,
        [normal, _, other]: [u8; 3],
    ) -> Decoded<(WorkId, PoolId, StartKey)> {
        let (work_id, pool, key) = self.place()?;
        let priority = if kind == normal { Priority::NORMAL } else { self.priority()? };
        let place = if kind == other { self.stand()? } else { StartPlace::Queue };
        Ok((work_id, pool, StartKey::at(priority, key).in_place(place)))
    }

    /// Decodes the next change of the log; `None` at its end.
    pub fn change(&mut self) -> Decoded<Option<Logged>> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let kind = self.byte()?;
        let change = match kind {
            0 => {
                let work_id = self.id()?;
                let (head, spec) = self.work(work_id)?;
                Change::InsertWork { spec, key: head.start_key() }
            }
            15 => {
                let work_id = self.id()?;
                let (head, spec) = self.work(work_id)?;
                let (run, started) = (self.small()?, Segment(self.number()?));
                let generation = Generation(self.number()?);
                Change::InsertRunning { spec, key: head.start_key(), run, started, generation }
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
            3 | 16 | 23 => {
                let (work_id, pool, key) = self.start(kind, [3, 16, 23])?;
                let (run, started) = (self.small()?, Segment(self.number()?));
                let generation = Generation(self.number()?);
                Change::StartWork { work_id, pool, key, run, started, generation }
            }
            4 | 17 | 18 => {
                let (work_id, pool, key) = self.place()?;
                let priority = if kind == 4 { Priority::NORMAL } else { self.priority()? };
                let other = if kind == 18 { self.priority()? } else { priority };
                let (from, to) = (StartKey::at(priority, key), StartKey::at(other, self.key()?));
                Change::MovePendingStart { work_id, pool, from, to }
            }
            24 => {
                let (work_id, pool) = (self.id()?, PoolId(self.small()?));
                let (from, to) = (self.start_key()?, self.start_key()?);
                Change::MovePendingStart { work_id, pool, from, to }
            }
            21 | 25 => {
                let work_id = self.id()?;
                let (head, spec) = self.work(work_id)?;
                let (key, priority) = (self.key()?, self.priority()?);
                let place = if kind == 25 { self.stand()? } else { StartPlace::Queue };
                let from = StartKey::at(priority, key).in_place(place);
                Change::ReplaceWork { spec, from, to: head.start_key() }
            }
            22 => {
                let pool = PoolId(self.small()?);
                Change::DeleteUnique { place: (pool, UniqueKey::new(self.bytes()?)) }
            }
            5 | 19 | 26 => {
                let (work_id, pool, key) = self.start(kind, [5, 19, 26])?;
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
            9 | 20 => {
                let pool = PoolId(self.small()?);
                let state = self.state()?;
                let tat = if kind == 9 { 0 } else { self.number()? };
                Change::PutState { pool, state: StateRow { tat, ..state } }
            }
            27 => {
                let (pool, key) = (PoolId(self.small()?), self.work_key()?);
                let row = match self.byte()? {
                    0 => None,
                    _ => Some(self.lane()?),
                };
                Change::PutLane { pool, key, row }
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
}
