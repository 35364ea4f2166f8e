//! What runs in the pool: each function does what its job's plan says, and tells the world what it sees.

use actix_workpool::{
    Action, ActionContext, Completion, CompletionResult, Mutation, OnComplete, Query, Reader,
    RuntimeBuilder, Transaction, WorkError,
};
use serde::{Deserialize, Serialize};

use super::clients::Described;
use super::world::{Ack, Act, End, How, Kind, millis, trace, with};
use crate::simulation::plan::POOLS;

/// From which account to which, and how much.
type Transferred = (u64, u64, i64);

/// Which job, and which of its attempts has succeeded.
pub type Output = (u32, u32);

#[derive(Serialize, Deserialize)]
pub struct Job(pub u32);

#[derive(Serialize, Deserialize)]
pub struct Alt(pub u32);

/// Moves an amount between two accounts.
#[derive(Serialize, Deserialize)]
pub struct Transfer(pub u32);

/// Looks whether the books balance.
#[derive(Serialize, Deserialize)]
pub struct Check(pub u32);

/// Counts the completions of each job.
pub struct Done;

pub fn register(builder: RuntimeBuilder, alt: bool) -> RuntimeBuilder {
    let builder = builder
        .action::<Job>()
        .action::<super::unique::Only>()
        .mutation::<Transfer>()
        .query::<Check>();
    let builder = builder.on_complete::<Done>();
    if alt { builder.action::<Alt>() } else { builder }
}

/// How a message of ours begins, so that it is not taken for a defect.
pub const OURS: &str = "simulated";

fn error(what: &str) -> WorkError {
    WorkError::retryable(format!("{OURS} {what}"))
}

impl Action for Job {
    const NAME: &'static str = "job";
    type Output = Output;

    async fn run(self, cx: ActionContext) -> Result<Output, WorkError> {
        attempt(self.0, cx).await
    }
}

impl Action for Alt {
    const NAME: &'static str = "alt";
    type Output = Output;

    async fn run(self, cx: ActionContext) -> Result<Output, WorkError> {
        attempt(self.0, cx).await
    }
}

/// Tells the world when an attempt is dropped.
struct Running {
    number: u32,
    start: u32,
    ended: bool,
}

impl Running {
    fn end(mut self, how: How) {
        self.ended = true;
        with(|world| world.attempt_ended(self.number, self.start, how));
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.ended {
            with(|world| {
                let shutdown = world.shutting_down;
                let how = match (world.dead, world.started) {
                    (true, _) => How::Crashed,
                    // A runtime that cannot start hands back what it has begun.
                    (false, false) => How::Heeded { shutdown: true },
                    (false, true) => How::Dropped { shutdown },
                };
                world.attempt_ended(self.number, self.start, how);
            });
        }
    }
}

async fn attempt(number: u32, cx: ActionContext) -> Result<Output, WorkError> {
    let started = with(|world| world.attempt_started(number, cx.work_id(), cx.attempt()));
    let Some((start, act)) = started else { return std::future::pending().await };
    let running = Running { number, start, ended: false };
    for _ in 0..act.polls {
        give_way().await;
    }
    cx.progress(1, Some(2));
    if start == 0 {
        spawn_child(number, &cx).await;
    }
    if act.work_ms > 0 || act.end == End::Hang {
        let work = async {
            match act.end {
                End::Hang => std::future::pending().await,
                _ => tokio::time::sleep(std::time::Duration::from_millis(act.work_ms)).await,
            }
        };
        if act.heeds_cancel {
            let canceled = tokio::select! {
                biased;
                () = cx.canceled() => true,
                () = work => false,
            };
            if canceled {
                let shutdown = with(|world| world.shutting_down);
                running.end(How::Heeded { shutdown });
                return Err(WorkError::canceled());
            }
        } else {
            work.await;
        }
    }
    let Act { end, .. } = act;
    running.end(How::Returned(end));
    match end {
        End::Success | End::Hang => Ok((number, start)),
        End::Panic => panic!("{OURS} panic"),
        End::Error { retryable: false, .. } => {
            Err(WorkError::non_retryable(format!("{OURS} error")))
        }
        End::Error { after_ms: Some(ms), .. } => {
            let wait = std::time::Duration::from_millis(ms);
            Err(WorkError::retry_after(wait, format!("{OURS} error")))
        }
        End::Error { .. } => Err(error("error")),
        End::Snooze { ms } => Err(WorkError::snooze(std::time::Duration::from_millis(ms))),
        End::LimitPool { ms } => Err(WorkError::limit_pool(std::time::Duration::from_millis(ms))),
        End::LimitKey { ms } => Err(WorkError::limit_key(std::time::Duration::from_millis(ms))),
        End::Canceled => Err(WorkError::canceled()),
    }
}

/// Lets the others that are ready go first.
pub async fn give_way() {
    let mut waited = false;
    std::future::poll_fn(|cx| match std::mem::replace(&mut waited, true) {
        true => std::task::Poll::Ready(()),
        false => {
            cx.waker().wake_by_ref();
            std::task::Poll::Pending
        }
    })
    .await;
}

/// A job from a job.
async fn spawn_child(number: u32, cx: &ActionContext) {
    let Some(child) = with(|world| world.works[number as usize].child) else { return };
    let described = with(|world| {
        world.sending(child);
        Described::of(world, child)
    });
    if let Ok(pool) = cx.pool(POOLS[described.pool]) {
        let answer = described.on(pool.enqueue(Job(child))).await;
        with(|world| world.enqueue_answered(child, answer.map(|handle| handle.id())));
    }
}

impl Mutation for Transfer {
    const NAME: &'static str = "transfer";
    type Output = Output;

    fn apply(self, tx: &mut Transaction<'_>) -> Result<Output, WorkError> {
        let number = self.0;
        let called = with(|world| world.called(number));
        let Some((act, (from, to, amount), child)) = called else {
            return Err(error("end of the process"));
        };
        for (account, change) in [(from, -amount), (to, amount)] {
            let balance: i64 = tx.get("ledger", account)?.unwrap_or_default();
            tx.put("ledger", account, &(balance + change))?;
        }
        let count: u64 = tx.get("transfers", u64::from(number))?.unwrap_or_default();
        tx.put("transfers", u64::from(number), &(count + 1))?;
        let total: u64 = tx.get("totals", "transfers")?.unwrap_or_default();
        tx.put("totals", "transfers", &(total + 1))?;
        if let Some(child) = child {
            let described = with(|world| Described::of(world, child));
            let pool = tx.pool(POOLS[described.pool])?;
            described.in_transaction(pool.enqueue(Job(child))).submit()?;
        }
        match act.end {
            End::Success | End::Hang => Ok((number, 0)),
            End::Error { retryable: false, .. } => {
                Err(WorkError::non_retryable(format!("{OURS} error")))
            }
            End::Error { .. } => Err(error("error")),
            End::Panic => panic!("{OURS} panic"),
            End::Snooze { ms } | End::LimitPool { ms } | End::LimitKey { ms } => {
                Err(WorkError::snooze(std::time::Duration::from_millis(ms)))
            }
            End::Canceled => Err(WorkError::canceled()),
        }
    }
}

impl Query for Check {
    const NAME: &'static str = "check";
    type Output = Output;

    fn read(self, reader: &mut Reader<'_>) -> Result<Output, WorkError> {
        let sum: i64 = reader.scan::<i64>("ledger")?.iter().map(|(_, balance)| balance).sum();
        let transfers = reader.scan::<u64>("transfers")?;
        let done = reader.scan::<(u64, String)>("done")?;
        let total = |reader: &mut Reader<'_>, row: &str| reader.get::<u64>("totals", row);
        let transfers_total = total(reader, "transfers")?.unwrap_or_default();
        let done_total = total(reader, "done")?.unwrap_or_default();
        let transfers: u64 = transfers.iter().map(|(_, count)| count).sum();
        let done: u64 = done.iter().map(|(_, (count, _))| count).sum();
        with(|world| {
            if sum != 0 {
                world.violate(format_args!("the ledger is out of balance by {sum}"));
            }
            if (transfers, done) != (transfers_total, done_total) {
                let found = (transfers, transfers_total, done, done_total);
                world.violate(format_args!("a sum of a table is not that of its rows: {found:?}"));
            }
        });
        Ok((self.0, 0))
    }
}

impl OnComplete for Done {
    const NAME: &'static str = "done";
    type Context = u32;
    type Output = Output;

    fn apply(tx: &mut Transaction<'_>, done: Completion<u32, Output>) -> Result<(), WorkError> {
        let number = done.context;
        let plan = with(|world| {
            trace!(world, "on_complete of {number}");
            world.bind(number, done.work_id);
            if world.dead {
                return None;
            }
            let now = world.now();
            let work = &mut world.works[number as usize];
            let plan = work.on_complete.as_mut()?;
            plan.calls += 1;
            if plan.calls > 1 {
                // It runs as a job of its own, which counts in the rate of its pool.
                world.pools[work.pool].last_start = now;
            }
            Some(*plan)
        });
        let Some(plan) = plan else { return Err(error("end of the process")) };
        let outcome = match done.result {
            CompletionResult::Success((_, start)) => format!("success {start}"),
            CompletionResult::Failed(failure) => format!("failed {:?}", failure.kind),
            CompletionResult::Canceled => "canceled".to_owned(),
        };
        let row: Option<(u64, String)> = tx.get("done", u64::from(number))?;
        let count = row.map_or(0, |(count, _)| count);
        tx.put("done", u64::from(number), &(count + 1, outcome))?;
        let total: u64 = tx.get("totals", "done")?.unwrap_or_default();
        tx.put("totals", "done", &(total + 1))?;
        if plan.calls <= plan.fails {
            match plan.panics {
                true => panic!("{OURS} panic"),
                false => return Err(error("error")),
            }
        }
        Ok(())
    }
}

impl super::world::World {
    /// The code of a mutation is called, for an attempt that may not be committed.
    fn called(&mut self, number: u32) -> Option<(Act, Transferred, Option<u32>)> {
        if self.dead {
            return None;
        }
        trace!(self, "transfer {number} is called");
        let now = self.now();
        let work = &mut self.works[number as usize];
        let last = work.acts.len() - 1;
        let act = work.acts[(work.calls as usize).min(last)];
        work.calls += 1;
        let (transfer, child, kind, ack) = (work.transfer, work.child, work.kind, work.ack);
        let (due, hurried) = (work.due, work.is_hurried());
        self.pools[work.pool].last_start = now;
        let refused = ack == Ack::Refused;
        if kind != Kind::Transfer || refused {
            self.violate(format_args!("transfer {number} is called and was not enqueued"));
        }
        if self.pool_now() < due && !hurried {
            self.violate(format_args!("transfer {number} is called before it is due"));
        }
        if let Some(child) = child {
            let now = self.pool_now();
            let child = &mut self.works[child as usize];
            // Called again, it is due again.
            let due = now + child.delay;
            child.due = if child.ack == Ack::Planned { due } else { child.due.min(due) };
            child.latest_due = now + child.delay + millis(1);
            child.ack = Ack::With(number);
        }
        Some((act, transfer, child))
    }
}
