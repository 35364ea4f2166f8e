//! The WorkerActor: runs one attempt, from its start to its report.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{self, Poll, Waker};
use std::time::Duration;

use actix::prelude::*;

use super::attempt::{Attempt, timed_out};
use super::messages::StartWorkers;
use super::network::Network;
use super::pulse::Pulse;
use super::spin::Spin;
use crate::engine::arrivals::AttemptReport;
use crate::functions::{
    ActionContext, AttemptFuture, Code, Control, Program, Stage, guarded, limit_result,
    panic_message,
};
use crate::model::{Failure, FailureKind, RunResult};
use crate::observe::telemetry;
use crate::protocol::Command;

/// The parts that all hosts of a runtime share.
#[derive(Clone)]
pub(super) struct Workshop {
    pub program: Arc<Program>,
    /// Runs blocking actions.
    pub blocking: tokio::runtime::Handle,
    pub network: Network,
}

impl Workshop {
    /// Sends reports to the store.
    pub fn send(&self, reports: Vec<AttemptReport>) {
        if !reports.is_empty() {
            // The send fails if the runtime is gone; nobody needs the reports then.
            let _ = self.program.client().send(Command::AttemptsFinished(reports));
        }
    }
}

/// The reports of one arbiter that wait to be sent together.
struct Outbox {
    workshop: Workshop,
    spin: Spin,
    pulse: Arc<Pulse>,
}

impl Outbox {
    /// Queues the report, to be sent with those of the other workers that are ready to run: the sending task runs after
    /// them.
    fn put(self: &Rc<Self>, report: AttemptReport) {
        if self.pulse.report(report) {
            let outbox = self.clone();
            actix::spawn(async move {
                outbox.send();
                outbox.spin.touch();
            });
        }
    }

    fn send(&self) {
        self.workshop.send(self.pulse.take_reports());
    }
}

impl Drop for Outbox {
    /// Sends reports that remain because the arbiter ended before the sending task ran.
    fn drop(&mut self) {
        self.send();
    }
}

/// The time for which the attempts of one message begin right behind each other. Then those that already run get a turn.
const BEGIN_AT_ONCE: Duration = Duration::from_micros(100);

/// Starts the workers of one arbiter.
pub(super) struct WorkerHost {
    outbox: Rc<Outbox>,
    spin: Spin,
}

impl WorkerHost {
    pub fn new(workshop: Workshop, spin: Spin, pulse: Arc<Pulse>) -> WorkerHost {
        let outbox = Rc::new(Outbox { workshop, spin: spin.clone(), pulse });
        WorkerHost { outbox, spin }
    }
}

impl Actor for WorkerHost {
    type Context = Context<Self>;
}

impl Handler<StartWorkers> for WorkerHost {
    type Result = ();

    fn handle(&mut self, StartWorkers(count): StartWorkers, _: &mut Self::Context) {
        let until = tokio::time::Instant::now() + BEGIN_AT_ONCE;
        let mut is_soon = true;
        // A task polls again what does not end at once.
        let mut cx = task::Context::from_waker(Waker::noop());
        for _ in 0..count {
            let mut life = Life::new(self.outbox.clone());
            // Most attempts are short. One that ends in its first poll needs no task.
            if !is_soon || Pin::new(&mut life).poll(&mut cx).is_pending() {
                actix::spawn(life);
            }
            is_soon = is_soon && tokio::time::Instant::now() < until;
        }
        self.outbox.send();
        self.spin.touch();
    }
}

/// Runs one attempt and ends.
///
/// Guarantees: exactly one report, whatever the function does; the function's future is dropped on the thread that
/// created it. It never waits for the store.
struct WorkerActor {
    /// Taken when the attempt begins. `None` if another thread has taken it.
    attempt: Option<Attempt>,
    outbox: Rc<Outbox>,
    running: Option<RunAttempt>,
}

/// The context of a worker. It has no mailbox, because nobody sends anything to a worker: making and freeing one cost
/// as much as a short attempt.
struct Alone(ActorState);

impl ActorContext for Alone {
    fn stop(&mut self) {
        self.0 = ActorState::Stopped;
    }

    fn terminate(&mut self) {
        self.0 = ActorState::Stopped;
    }

    fn state(&self) -> ActorState {
        self.0
    }
}

/// A worker with its context, from its start to its end.
struct Life {
    worker: WorkerActor,
    context: Alone,
}

impl Life {
    fn new(outbox: Rc<Outbox>) -> Life {
        let worker = WorkerActor { attempt: None, outbox, running: None };
        Life { worker, context: Alone(ActorState::Started) }
    }
}

impl Future for Life {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<()> {
        let Life { worker, context } = self.get_mut();
        if context.state() == ActorState::Started {
            context.0 = ActorState::Running;
            worker.started(context);
        }
        if context.state() == ActorState::Running {
            worker.run(context, cx);
        }
        match context.state() {
            ActorState::Stopped => Poll::Ready(()),
            _ => Poll::Pending,
        }
    }
}

impl Actor for WorkerActor {
    type Context = Alone;

    fn started(&mut self, ctx: &mut Alone) {
        let Some(attempt) = self.outbox.pulse.take() else { return ctx.stop() };
        let control = self.attempt.insert(attempt).control();
        match begin(control, &self.outbox) {
            Begun::Running(future) => {
                let span = telemetry::attempt_span(control);
                self.running = Some(RunAttempt { future: Some(future), aborted: None, span });
            }
            Begun::Finished(result) => self.finish(result, ctx),
        }
    }
}

impl Drop for WorkerActor {
    fn drop(&mut self) {
        if self.attempt.is_some() {
            self.outbox.pulse.ended();
        }
    }
}

impl WorkerActor {
    /// Polls the attempt. Reports it when it has ended.
    fn run(&mut self, ctx: &mut Alone, cx: &mut task::Context<'_>) {
        let (Some(attempt), Some(running)) = (&self.attempt, &mut self.running) else { return };
        let control = attempt.control();
        let Poll::Ready(result) = running.poll_result(control, &self.outbox.pulse, cx) else {
            if self.outbox.workshop.network.loses_worker(control.spec.work_id) {
                ctx.terminate();
            }
            return;
        };
        // Dropped before the report, so that its resources are free when the job completes.
        let future = running.future.take();
        let _ = catch_unwind(AssertUnwindSafe(|| drop(future)));
        self.finish(result, ctx);
    }

    fn finish(&mut self, result: RunResult, ctx: &mut Alone) {
        let Some(attempt) = &mut self.attempt else { return };
        let control = attempt.control();
        let result = match (result, control.stage()) {
            // It stopped because the runtime shuts down: the job returns to the queue.
            (RunResult::Canceled, Stage::ShuttingDown | Stage::AbortReturn) => RunResult::Returned,
            (RunResult::Failed(failure), _) if control.is_hopeless() => {
                RunResult::Failed(Failure { retryable: false, ..failure })
            }
            (result, _) => limit_result(result, control.max_result_bytes),
        };
        let report = attempt.report(result);
        self.outbox.put(report);
        ctx.stop();
    }
}

/// The result of starting an attempt.
enum Begun {
    Running(AttemptFuture),
    Finished(RunResult),
}

fn begin(control: &Arc<Control>, outbox: &Outbox) -> Begun {
    let (workshop, spec) = (&outbox.workshop, &control.spec);
    let Some(code) = workshop.program.code(spec.function) else {
        // The loop starts only registered functions.
        let message = format!("function {} is not registered", spec.function);
        return Begun::Finished(RunResult::Failed(Failure::permanent(FailureKind::Error, message)));
    };
    // Told to end before it began: it does not count as an attempt. A canceled job is not started again.
    if !control.may_begin() {
        return Begun::Finished(RunResult::Returned);
    }
    let cx = || ActionContext { control: control.clone() };
    match code {
        Code::Action(run) => {
            // An action may run code before its first await, and panic there.
            let run = || run(spec.args(), cx());
            match catch_unwind(AssertUnwindSafe(|| outbox.pulse.user_code(spec.function, run))) {
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
                // While it waited for a thread, it may have been told to end.
                if !cx.control.may_begin() {
                    return RunResult::Returned;
                }
                guarded(|| run(cx.control.spec.args(), &cx))
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
            // The loop sends these to the store.
            let message = format!("function {} runs in the store", spec.function);
            Begun::Finished(RunResult::Failed(Failure::permanent(FailureKind::Error, message)))
        }
    }
}

fn panicked(panic: &(dyn std::any::Any + Send)) -> RunResult {
    RunResult::Failed(Failure::retryable(FailureKind::Panic, panic_message(panic)))
}

/// Polls the function's future until it ends or must be dropped.
struct RunAttempt {
    future: Option<AttemptFuture>,
    /// Created when the function does not finish at once; wakes the worker when it must abort.
    aborted: Option<Pin<Box<dyn Future<Output = Stage>>>>,
    span: tracing::Span,
}

impl RunAttempt {
    fn poll_result(
        &mut self,
        control: &Arc<Control>,
        pulse: &Pulse,
        cx: &mut task::Context<'_>,
    ) -> Poll<RunResult> {
        let function = control.spec.function;
        let Some(future) = &mut self.future else { return Poll::Pending };
        let _entered = self.span.enter();
        if !control.stage().is_abort() {
            let poll = || pulse.user_code(function, || future.as_mut().poll(cx));
            match catch_unwind(AssertUnwindSafe(poll)) {
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
        // A panic in a destructor must not prevent the report.
        let future = self.future.take();
        let dropping = || pulse.user_code(function, || drop(future));
        let dropped = catch_unwind(AssertUnwindSafe(dropping));
        Poll::Ready(match (stage, dropped) {
            (Stage::AbortTimeout, _) => RunResult::Failed(timed_out(control)),
            (Stage::AbortReturn, _) => RunResult::Returned,
            _ => RunResult::Canceled,
        })
    }
}
