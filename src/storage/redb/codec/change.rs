//! Encodes and decodes the changes in the log.

use std::sync::Arc;

use super::parts::{Damaged, Decoded, Input, bytes, number, put_id, put_key, put_place};
use super::rows::{Head, completion, finished, globals, put_history, put_state, work};
use crate::model::{Change, Finished, Generation, Payload, PoolId, Segment, TableKey};

/// Encodes a change for the log.
pub fn change(out: &mut Vec<u8>, change: &Change) {
    match change {
        Change::InsertWork { spec, key } => {
            out.push(0);
            put_id(out, spec.work_id);
            work(out, &Head { key: *key, ..Head::default() }, spec);
        }
        Change::InsertRunning { spec, key, run, started, generation } => {
            out.push(15);
            put_id(out, spec.work_id);
            work(out, &Head { key: *key, ..Head::default() }, spec);
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
    /// Decodes the next change of the log; `None` at its end.
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
            15 => {
                let work_id = self.id()?;
                let (head, spec) = self.work(work_id)?;
                let (run, started) = (self.small()?, Segment(self.number()?));
                let generation = Generation(self.number()?);
                Change::InsertRunning { spec, key: head.key, run, started, generation }
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
}
