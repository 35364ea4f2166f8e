//! The WorkerActor: one attempt, from its start to its report.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{self, Poll};

use actix::prelude::*;

use super::attempt::{Attempt, timed_out};
use super::messages::{Retire, StartWorkers};
use super::network::Network;
use super::spin::Spin;
use crate::engine::arrivals::AttemptReport;
use crate::functions::{
    ActionContext, AttemptFuture, Code, Control, Program, Stage, guarded, limit_result,
    panic_message,
};
use crate::model::{Failure, FailureKind, RunResult};
use crate::observe::telemetry;
use crate::protocol::Command;

/// What the hosts of a runtime have in common.
#[derive(Clone)]
pub(super) struct Workshop {
    pub program: Arc<Program>,
    /// Runs blocking actions.
    pub blocking: tokio::runtime::Handle,
    pub network: Network,
}

/// Reports of one arbiter that wait to be sent together.
struct Outbox {
    workshop: Workshop,
    reports: RefCell<Vec<AttemptReport>>,
    spin: Spin,
    /// How many workers there are.
    workers: Cell<usize>,
    /// Set when another host has taken the place of this one: its thread ends with its last worker.
    retired: Cell<bool>,
}

impl Outbox {
    /// Sends the report with those of the workers that are ready to run now: the task that sends them stands
    /// behind these.
    fn put(self: &Rc<Self>, report: AttemptReport) {
        let mut reports = self.reports.borrow_mut();
        reports.push(report);
        if reports.len() == 1 {
            let outbox = self.clone();
            actix::spawn(async move {
                outbox.send();
                outbox.spin.touch();
            });
        }
    }

    fn send(&self) {
        let reports = self.reports.take();
        if !reports.is_empty() {
            // A runtime that is gone hears nothing any more.
            let _ = self.workshop.program.client().send(Command::AttemptsFinished(reports));
        }
    }
}

impl Outbox {
    fn end_if_retired(&self) {
        if self.retired.get() && self.workers.get() == 0 {
            self.send();
            Arbiter::current().stop();
        }
    }
}

impl Drop for Outbox {
    /// The arbiter ended before the task that sends could run.
    fn drop(&mut self) {
        self.send();
    }
}

/// Starts the workers of one arbiter.
pub(super) struct WorkerHost {
    outbox: Rc<Outbox>,
    spin: Spin,
}

impl WorkerHost {
    pub fn new(workshop: Workshop, spin: Spin) -> WorkerHost {
        WorkerHost {
            outbox: Rc::new(Outbox {
                workshop,
                reports: RefCell::default(),
                spin: spin.clone(),
                workers: Cell::new(0),
                retired: Cell::new(false),
            }),
            spin,
        }
    }
}

impl Actor for WorkerHost {
    type Context = Context<Self>;
}

impl Handler<StartWorkers> for WorkerHost {
    type Result = ();

    fn handle(&mut self, StartWorkers(attempts): StartWorkers, _: &mut Self::Context) {
        self.spin.touch();
        for attempt in attempts {
            self.outbox.workers.set(self.outbox.workers.get() + 1);
            WorkerActor { attempt, outbox: self.outbox.clone() }.start();
        }
    }
}

impl Handler<Retire> for WorkerHost {
    type Result = ();

    fn handle(&mut self, _: Retire, _: &mut Self::Context) {
        self.outbox.retired.set(true);
        self.outbox.end_if_retired();
    }
}

/// Runs one attempt and ends.
///
/// Promises: exactly one report, whatever the function does; the function's future is dropped here, on the thread
/// where it was made. It never waits for the store.
struct WorkerActor {
    attempt: Attempt,
    outbox: Rc<Outbox>,
}

impl Actor for WorkerActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let control = self.attempt.control();
        match begin(control, &self.outbox.workshop) {
            Begun::Running(future) => {
                let span = telemetry::attempt_span(control);
                ctx.spawn(RunAttempt { future: Some(future), aborted: None, span });
            }
            Begun::Finished(result) => self.finish(result, ctx),
        }
    }
}

impl Drop for WorkerActor {
    fn drop(&mut self) {
        self.outbox.workers.set(self.outbox.workers.get() - 1);
        self.outbox.end_if_retired();
    }
}

impl WorkerActor {
    fn finish(&mut self, result: RunResult, ctx: &mut Context<Self>) {
        let control = self.attempt.control();
        let result = match (result, control.stage()) {
            // It stopped because the runtime does: the job goes on elsewhere.
            (RunResult::Canceled, Stage::ShuttingDown | Stage::AbortReturn) => RunResult::Returned,
            (result, _) => limit_result(result, control.max_result_bytes),
        };
        let report = self.attempt.report(result);
        self.outbox.put(report);
        ctx.stop();
    }
}

/// How an attempt begins.
enum Begun {
    Running(AttemptFuture),
    Finished(RunResult),
}

fn begin(control: &Arc<Control>, workshop: &Workshop) -> Begun {
    let spec = &control.spec;
    let Some(code) = workshop.program.code(spec.function) else {
        // The loop starts only what is registered.
        let message = format!("function {} is not registered", spec.function);
        return Begun::Finished(RunResult::Failed(Failure::permanent(FailureKind::Error, message)));
    };
    // Told to end before it began: then it never did, and is not counted as an attempt. A canceled job does not start again.
    if !control.may_begin() {
        return Begun::Finished(RunResult::Returned);
    }
    let cx = || ActionContext { control: control.clone() };
    match code {
        Code::Action(run) => {
            // An action may do things before its first await, and panic there.
            match catch_unwind(AssertUnwindSafe(|| run(spec.args.as_bytes(), cx()))) {
                Ok(Ok(future)) => Begun::Running(future),
                Ok(Err(failure)) => Begun::Finished(RunResult::Failed(failure)),
                Err(panic) => Begun::Finished(panicked(&*panic)),
            }
        }
        Code::Blocking(run) => {
            let (run, cx) = (*run, cx());
            let thread = workshop.blocking.spawn_blocking(move || {
                let span = telemetry::attempt_span(&cx.control);
                let _entered = span.enter();
                // It may have waited for a thread until nobody wanted it any more.
                if !cx.control.may_begin() {
                    return RunResult::Returned;
                }
                guarded(|| run(cx.control.spec.args.as_bytes(), &cx))
            });
            Begun::Running(Box::pin(async move {
                match thread.await {
                    Ok(result) => result,
                    Err(_) => RunResult::Failed(Failure::retryable(
                        FailureKind::Lost,
                        "the thread of a blocking action went away",
                    )),
                }
            }))
        }
        Code::Mutation(_) | Code::Query(_) | Code::OnComplete(_) => {
            // The loop sends these to the store itself.
            let message = format!("function {} runs in the store", spec.function);
            Begun::Finished(RunResult::Failed(Failure::permanent(FailureKind::Error, message)))
        }
    }
}

fn panicked(panic: &(dyn std::any::Any + Send)) -> RunResult {
    RunResult::Failed(Failure::retryable(FailureKind::Panic, panic_message(panic)))
}

/// Polls the function's future until it ends or is to be dropped.
struct RunAttempt {
    future: Option<AttemptFuture>,
    /// Made when the function does not finish at once: wakes the worker when it is to abort.
    aborted: Option<Pin<Box<dyn Future<Output = Stage>>>>,
    span: tracing::Span,
}

impl RunAttempt {
    fn poll_result(
        &mut self,
        control: &Arc<Control>,
        cx: &mut task::Context<'_>,
    ) -> Poll<RunResult> {
        let Some(future) = &mut self.future else { return Poll::Pending };
        let _entered = self.span.enter();
        if !control.stage().is_abort() {
            match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
                Ok(Poll::Ready(result)) => return Poll::Ready(result),
                Ok(Poll::Pending) => {}
                Err(panic) => return Poll::Ready(panicked(&*panic)),
            }
        }
        let aborted = self.aborted.get_or_insert_with(|| {
            let control = control.clone();
            Box::pin(async move { control.until(Stage::is_abort).await })
        });
        let stage = task::ready!(aborted.as_mut().poll(cx));
        // A destructor that panics must not take the report with it.
        let future = self.future.take();
        let dropped = catch_unwind(AssertUnwindSafe(|| drop(future)));
        Poll::Ready(match (stage, dropped) {
            (Stage::AbortTimeout, _) => RunResult::Failed(timed_out(control)),
            (Stage::AbortReturn, _) => RunResult::Returned,
            _ => RunResult::Canceled,
        })
    }
}

impl ActorFuture<WorkerActor> for RunAttempt {
    type Output = ();

    fn poll(
        self: Pin<&mut Self>,
        worker: &mut WorkerActor,
        ctx: &mut Context<WorkerActor>,
        task: &mut task::Context<'_>,
    ) -> Poll<()> {
        let this = self.get_mut();
        let control = worker.attempt.control();
        let Poll::Ready(result) = this.poll_result(control, task) else {
            if worker.outbox.workshop.network.loses_worker(control.spec.work_id) {
                ctx.terminate();
            }
            return Poll::Pending;
        };
        // Dropped before the report, so that what it held is free when the job completes.
        let future = this.future.take();
        let _ = catch_unwind(AssertUnwindSafe(|| drop(future)));
        worker.finish(result, ctx);
        Poll::Ready(())
    }
}
