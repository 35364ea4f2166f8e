//! A model of the protocol between loops, store and workers, checked exhaustively: two processes, each with a loop
//! (main) and workers, over one store. One process over one store is the case with a single main; several are what the
//! fence is for.
//!
//! ```text
//!   Claim ──────► store: generation + 1        main: Asking, with the rows that have no worker
//!   Wake ───────► store: reads a batch         main: Ready    (BatchReady is on its way)
//!   Receive                                    main: launches, steps ─► Sent   (Advance is on its way)
//!   Commit ─────► store: all changes or none   main: Ready, or Standby when refused
//!   Report, Cancel ─► store: one change
//! ```
//!
//! Everything that is on its way may take as long as it likes, so that each of these interleaves with all others.
//!
//! *Faults*, each with a budget in [`Bounds`]: a process crashes (what its workers have reported and no commit has
//! synced since goes with it) · another main takes over although the one that owns the pool is alive, and that one does not
//! know · an `Advance` is lost · its answer is lost · an `Advance` arrives twice · a slot is taken back while its worker
//! goes on, which reports as well.
//!
//! *What is left out*, and why nothing is lost by it:
//! - Time. Whatever waits is due. Which of the waiting jobs a batch shows is chosen freely, where the store goes by key:
//!   that is more than can happen.
//! - Jobs are all alike, and so are processes. States that differ only by their order are one state ([`canonical`]).
//! - Turns and generations are kept as far as they are compared: relative to the store's, and ranked.
//! - A crashed process is up again at once and waits; it may wait for ever. An `Advance` that arrives after its sender
//!   has crashed is one that arrived before it. An idle main that is superseded waits, too: it would be refused.
//! - With [`Bounds::prune`], what cannot count any more is forgotten: what a worker would report whose run has lost its
//!   slot, and what a superseded main is about to decide. That it cannot count is what the bounds without it check.
//!
//! Two rules are of the model only, since a loop that is alone needs neither: [`rules::is_launched`] where another main
//! may have owned the pool in between, and [`rules::still_holds`] where a worker that is taken for lost may still report.
//!
//! The rules in [`rules`] are named as in `src/engine`, and compared with it in
//! [`the_model_decides_as_the_engine_does`]. Faults that are planted in them, see [`Plant`], are found.

use std::collections::HashMap;
use std::time::Instant;

use stateright::{Checker, Expectation, HasDiscoveries, Model, Path, Property};

use rules::{Change, Lost, Outcome, Rows, RunResult, WorkFact};

type Generation = u8;
type RunNumber = u8;
type MainId = usize;

const MAINS: usize = 2;

/// What the engine and the committer decide, without keys, time and pools.
mod rules {
    use super::{Generation, Plant, RunNumber};

    /// Everything that the tables say of one job. Its running row has the number `runs`.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
    pub struct WorkFact {
        pub attempts: u8,
        pub runs: RunNumber,
        pub canceled: bool,
        pub pending_start: bool,
        pub running: Option<Generation>,
        pub pending_completion: Option<Completion>,
        pub pending_cancelation: bool,
    }

    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
    pub struct Completion {
        pub result: RunResult,
        pub retry: bool,
    }

    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
    pub enum RunResult {
        Success,
        /// Retryable; one that is not is judged as the last one that may be made.
        Failed,
        Canceled,
        Returned,
    }

    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
    pub enum Outcome {
        Success,
        Failed,
        Canceled,
    }

    #[allow(clippy::enum_variant_names)] // As the real ones.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
    pub enum Change {
        StartWork {
            run: RunNumber,
            generation: Generation,
        },
        /// `recovered`: decided for a run that has not reported.
        RetryWork {
            recovered: bool,
            attempts: u8,
        },
        CompleteWork {
            recovered: bool,
            outcome: Outcome,
        },
    }

    /// The rows of one job in a batch.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
    pub struct Rows {
        pub work: WorkFact,
        pub start: bool,
    }

    /// A row of `running` whose attempt will never report.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
    pub struct Lost {
        pub work: WorkFact,
        pub launched: bool,
    }

    /// What a turn decides for one job.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
    pub struct Decision {
        /// `MarkCanceled`; comes before `change`.
        pub mark: bool,
        pub change: Option<Change>,
    }

    pub struct TurnCx {
        pub generation: Generation,
        pub max_parallelism: usize,
        pub max_attempts: u8,
        pub plant: Plant,
    }

    // arrivals

    /// Whether the cancel is taken.
    pub fn cancel(fact: Option<&WorkFact>) -> bool {
        let Some(work) = fact else { return false };
        let has_outcome = work.pending_completion.is_some_and(|completion| !completion.retry);
        !has_outcome && !work.canceled && !work.pending_cancelation
    }

    /// The new `pending_completion` and the new `attempts`, if the report counts.
    pub fn attempt_finished(
        fact: Option<&WorkFact>,
        run: RunNumber,
        result: RunResult,
        max_attempts: u8,
        plant: Plant,
    ) -> Option<(Completion, u8)> {
        let work = fact?;
        let counts = work.running.is_some()
            && (work.runs == run || plant == Plant::ReportOfAnyRun)
            && (work.pending_completion.is_none() || plant == Plant::ReportAgain);
        let (result, retry, attempts) = judge(work, result, max_attempts, plant);
        counts.then_some((Completion { result, retry }, attempts))
    }

    /// What a finished attempt means: its result, whether it is tried again, and how many count.
    pub fn judge(
        work: &WorkFact,
        result: RunResult,
        max_attempts: u8,
        plant: Plant,
    ) -> (RunResult, bool, u8) {
        let counted = work.attempts + 1;
        let again = |result, attempts| match (work.canceled && plant != Plant::CancelLoses, result)
        {
            (false, result) => (result, true, attempts),
            (true, RunResult::Failed) => (RunResult::Canceled, false, attempts),
            (true, result) => (result, false, attempts),
        };
        match result {
            RunResult::Returned => again(result, work.attempts),
            RunResult::Failed if counted < max_attempts => again(result, counted),
            _ => (result, false, counted),
        }
    }

    // step

    /// One turn, over what the loop thinks is running.
    pub fn step(
        running: &mut [Option<RunNumber>],
        batch: &[Option<Rows>],
        lost: &[Option<Lost>],
        cx: &TurnCx,
    ) -> Vec<Decision> {
        let mut decisions = vec![Decision::default(); batch.len()];
        completions(running, batch, &mut decisions, cx);
        cancelations(batch, &mut decisions);
        recovery(running, lost, &mut decisions, cx);
        starts(running, batch, &mut decisions, cx);
        decisions
    }

    fn completions(
        running: &mut [Option<RunNumber>],
        batch: &[Option<Rows>],
        decisions: &mut [Decision],
        cx: &TurnCx,
    ) {
        for (number, rows) in batch.iter().enumerate() {
            let Some(Rows { work, .. }) = rows else { continue };
            let Some(Completion { result, retry }) = work.pending_completion else { continue };
            running[number] = None;
            decisions[number].change = Some(settle(work, result, retry, work.attempts, false, cx));
        }
    }

    fn settle(
        work: &WorkFact,
        result: RunResult,
        retry: bool,
        attempts: u8,
        recovered: bool,
        cx: &TurnCx,
    ) -> Change {
        let canceled =
            (work.canceled || work.pending_cancelation) && cx.plant != Plant::CancelLoses;
        let outcome = match (retry, result) {
            (true, _) if !canceled => return Change::RetryWork { recovered, attempts },
            (true, _) => Outcome::Canceled,
            (false, RunResult::Success) => Outcome::Success,
            (false, RunResult::Failed) => Outcome::Failed,
            (false, _) => Outcome::Canceled,
        };
        Change::CompleteWork { recovered, outcome }
    }

    fn cancelations(batch: &[Option<Rows>], decisions: &mut [Decision]) {
        for (rows, decision) in batch.iter().zip(decisions) {
            let Some(Rows { work, .. }) = rows else { continue };
            let settled = matches!(decision.change, Some(Change::CompleteWork { .. }));
            if !work.pending_cancelation || settled {
                continue;
            }
            if work.pending_start {
                let outcome = Outcome::Canceled;
                decision.change = Some(Change::CompleteWork { recovered: false, outcome });
                continue;
            }
            decision.mark = true;
        }
    }

    fn recovery(
        running: &mut [Option<RunNumber>],
        lost: &[Option<Lost>],
        decisions: &mut [Decision],
        cx: &TurnCx,
    ) {
        for (number, lost) in lost.iter().enumerate() {
            let Some(Lost { mut work, launched }) = *lost else { continue };
            work.canceled |= decisions[number].mark;
            let still_running = running[number] == Some(work.runs);
            if !still_running || work.pending_completion.is_some() {
                continue;
            }
            let result = match launched && cx.plant != Plant::RecoveryIsFree {
                true => RunResult::Failed,
                false => RunResult::Returned,
            };
            let (result, retry, attempts) = judge(&work, result, cx.max_attempts, cx.plant);
            running[number] = None;
            decisions[number].change = Some(settle(&work, result, retry, attempts, true, cx));
        }
    }

    fn starts(
        running: &mut [Option<RunNumber>],
        batch: &[Option<Rows>],
        decisions: &mut [Decision],
        cx: &TurnCx,
    ) {
        for (number, rows) in batch.iter().enumerate() {
            let Some(Rows { work, start: true }) = rows else { continue };
            if matches!(decisions[number].change, Some(Change::CompleteWork { .. })) {
                continue;
            }
            if running.iter().flatten().count() >= cx.max_parallelism {
                return;
            }
            let run = work.runs + 1;
            running[number] = Some(run);
            decisions[number].change = Some(Change::StartWork { run, generation: cx.generation });
        }
    }

    // take_over

    /// Whether a row of `running` that no worker of ours stands behind was launched, for all we know. Of what this
    /// main has started itself, and whose receipt it never had, it knows better.
    ///
    /// A loop that is alone can go by its first generation; where there are several, one may have owned the pool in between.
    pub fn is_launched(row: Generation, generations: u16, plant: Plant) -> bool {
        match plant {
            Plant::LaterGenerationsAreOwn => u32::from(row) < generations.trailing_zeros(),
            _ => generations & 1 << row == 0,
        }
    }

    // commit

    /// Whether a change still has what it relies on. Only a recovery relies on something that others than the reigning
    /// main can write: that the run has not reported.
    pub fn still_holds(work: Option<&WorkFact>, change: &Change, plant: Plant) -> bool {
        let recovered = matches!(
            change,
            Change::RetryWork { recovered: true, .. }
                | Change::CompleteWork { recovered: true, .. }
        );
        let reported = work.is_some_and(|work| work.pending_completion.is_some());
        !(recovered && reported) || plant == Plant::RecoveryOverReport
    }
}

/// A fault planted in the protocol, to see that the checker finds what comes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Plant {
    Nothing,
    /// An `Advance` is fenced by its turn number alone.
    NoGeneration,
    /// An `Advance` is fenced by its generation alone.
    NoTurn,
    /// A report counts for whatever run occupies the slot.
    ReportOfAnyRun,
    /// A report counts although the run has reported.
    ReportAgain,
    /// Launches do not wait for the receipt.
    LaunchBeforeCommit,
    /// Attempts that are lost do not count.
    RecoveryIsFree,
    /// A cancel that races a retry is forgotten.
    CancelLoses,
    /// What was running is not read when a pool is claimed.
    ClaimForgetsRunning,
    /// A recovery is committed although its run has reported meanwhile.
    RecoveryOverReport,
    /// A row that another main has started since this one first owned the pool counts as never launched.
    LaterGenerationsAreOwn,
    /// `on_complete` runs when a turn decides, not in its commit.
    EffectsBeforeCommit,
}

#[derive(Clone, Copy, Debug)]
struct Bounds {
    works: usize,
    max_parallelism: usize,
    max_attempts: u8,
    faults: Budget,
    /// See the module's doc.
    prune: bool,
    plant: Plant,
}

/// How many of each may still happen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Budget {
    crashes: u8,
    takeovers: u8,
    lost_messages: u8,
    repeats: u8,
    abandons: u8,
    cancels: u8,
}

/// The whole world.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct State {
    works: Vec<Work>,
    mains: [Main; MAINS],
    /// `internal_state` of the pool: the fence.
    generation: Generation,
    turn: i8,
    budget: Budget,
    violated: u16,
}

/// One job: its rows, and what each process has to do with it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Work {
    /// `None` once it has its outcome.
    fact: Option<WorkFact>,
    finished: Option<Outcome>,
    /// Whose report `pending_completion` is, and what `attempts` were before, while no commit has synced it.
    unsynced: Option<(MainId, u8)>,
    /// What `on_complete` has written.
    effects: u8,
    desks: [Desk; MAINS],
    /// Noted by the observer: how often its code began, and whether a report of its last run was accepted.
    begun: u8,
    heard: bool,
}

/// What one process holds of one job.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Desk {
    /// `InternalState::running` of its main.
    running: Option<RunNumber>,
    /// In a `BatchReady` on its way.
    rows: Option<Rows>,
    lost: Option<Lost>,
    /// In an `Advance` on its way; after it arrived, only for [`Action::Repeat`].
    decision: rules::Decision,
    /// Waits for the receipt.
    launch: Option<RunNumber>,
    /// Whether that start was committed. Noted by the observer.
    granted: bool,
    /// Its workers, by their run.
    live: u8,
}

/// The part of a main that is not about a single job.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Main {
    phase: Phase,
    generation: Generation,
    turn: i8,
    /// Its generations, as bits.
    generations: u16,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Phase {
    /// Has not claimed the pool, or knows that it has to do so again.
    #[default]
    Standby,
    /// The store has its question and nothing to show yet.
    Asking,
    /// A batch, with the receipt of the commit before it, is on its way to it.
    Ready,
    /// An `Advance` is on its way to the store.
    Sent,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Action {
    Claim(MainId),
    /// Shows these of the waiting works, as bits.
    Wake(MainId, u8),
    Receive(MainId),
    Commit(MainId, u8),
    Report {
        work: usize,
        main: MainId,
        run: RunNumber,
        result: RunResult,
    },
    Cancel(usize),
    // Faults from here on.
    TakeOver(MainId),
    Crash(MainId),
    LoseAdvance(MainId),
    LoseAnswer(MainId),
    Repeat(MainId),
    Abandon {
        work: usize,
        main: MainId,
        run: RunNumber,
    },
}

impl Action {
    /// Whether the protocol may rely on it.
    fn is_due(self) -> bool {
        matches!(
            self,
            Action::Claim(_)
                | Action::Wake(..)
                | Action::Receive(_)
                | Action::Commit(..)
                | Action::Report { .. }
        )
    }
}

/// What must never happen, named after the invariants in ARCHITECTURE.md.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
enum Invariant {
    OneOutcome,
    Parallelism,
    MaxAttempts,
    BeginsAtMostMaxAttempts,
    GenerationGoesBack,
    LaunchFollowsCommit,
    OneReportPerRun,
    OlderGeneration,
    OlderRun,
    StartAfterCancel,
    ReportOverruled,
}

const INVARIANTS: [(Invariant, &str); 11] = [
    (Invariant::OneOutcome, "1 a job reaches one outcome only"),
    (Invariant::Parallelism, "2 running <= max_parallelism at every start"),
    (Invariant::MaxAttempts, "3 attempts that count <= max_attempts"),
    (Invariant::BeginsAtMostMaxAttempts, "3 code begins at most max_attempts times"),
    (Invariant::GenerationGoesBack, "5 the generation never goes back"),
    (Invariant::LaunchFollowsCommit, "7 a launch follows its commit"),
    (Invariant::OneReportPerRun, "8 at most one report of a run is accepted"),
    (Invariant::OlderGeneration, "9 a write by an older generation or turn is refused"),
    (Invariant::OlderRun, "9 a report of an older run is refused"),
    (Invariant::StartAfterCancel, "a job that is known to be canceled is not started"),
    (Invariant::ReportOverruled, "8 a report that was accepted decides"),
];

const IN_SOME_TABLE: &str = "1 a job is in the tables, or has its outcome";
const EFFECTS_ONCE: &str = "on_complete has its effects once, with the outcome";
const IN_DIFFERENT_WAYS: &str = "jobs end in different ways";
const CANCEL_RACES: &str = "a cancel races a retry";
const CANCELED_RUNS: &str = "a canceled job still runs";
const NOBODY_LAUNCHED: &str = "a slot is taken for an attempt that nobody has launched";
const PROGRESS: &str = "10 nothing rests while a job has no outcome";

impl State {
    fn violate(&mut self, invariant: Invariant) {
        self.violated |= 1 << invariant as u16;
    }

    /// The main that owns the pool and does not know that it should claim anew.
    fn reigning(&self) -> Option<MainId> {
        (0..MAINS).find(|main| {
            let main = &self.mains[*main];
            main.phase != Phase::Standby && main.generation == self.generation
        })
    }

    fn is_current(&self, main: MainId) -> bool {
        self.mains[main].generation == self.generation
    }

    /// A commit makes all reports durable that came before it.
    fn sync(&mut self) {
        for work in &mut self.works {
            work.unsynced = None;
        }
    }

    fn done(&self) -> bool {
        self.works.iter().all(|work| work.finished.is_some())
    }

    /// Drops what was on its way to or from this main.
    fn stand_by(&mut self, main: MainId) {
        self.mains[main].phase = Phase::Standby;
        for work in &mut self.works {
            let Desk { live, .. } = work.desks[main];
            work.desks[main] = Desk { live, ..Desk::default() };
        }
    }
}

impl Bounds {
    fn claim(&self, state: &mut State, main: MainId) {
        for other in 0..MAINS {
            if other != main && state.mains[other].phase == Phase::Asking {
                state.stand_by(other);
            }
        }
        let before = state.generation;
        state.generation += 1;
        if state.generation <= before {
            state.violate(Invariant::GenerationGoesBack);
        }
        state.sync();
        let generations = state.mains[main].generations | 1 << state.generation;
        state.mains[main] = Main {
            phase: Phase::Asking,
            generation: state.generation,
            turn: state.turn,
            generations,
        };
        for work in &mut state.works {
            let Desk { live, .. } = work.desks[main];
            let mut desk = Desk { live, ..Desk::default() };
            if let Some((fact, generation)) = work.fact.and_then(|fact| Some((fact, fact.running?)))
                && self.plant != Plant::ClaimForgetsRunning
            {
                desk.running = Some(fact.runs);
                let has_worker = live & 1 << fact.runs != 0;
                if !has_worker && fact.pending_completion.is_none() {
                    let launched = rules::is_launched(generation, generations, self.plant);
                    desk.lost = Some(Lost { work: fact, launched });
                }
            }
            work.desks[main] = desk;
        }
    }

    /// How a batch could be filled with jobs that wait, as sets of them.
    fn choices(&self, state: &State, main: MainId) -> Vec<u8> {
        let running = state.works.iter().filter(|work| work.desks[main].running.is_some()).count();
        let facts = || state.works.iter().map(|work| work.fact);
        let completions =
            facts().flatten().filter(|fact| fact.pending_completion.is_some()).count();
        let waits = |number: usize| state.works[number].fact.is_some_and(|fact| fact.pending_start);
        let waiting: u8 = (0..self.works).filter(|number| waits(*number)).map(|n| 1 << n).sum();
        let free = (self.max_parallelism + completions).saturating_sub(running);
        let size = free.min(waiting.count_ones() as usize);
        let fits = |set: &u8| set & !waiting == 0 && set.count_ones() as usize == size;
        (0..1 << self.works).filter(fits).collect()
    }

    fn read_batch(&self, state: &mut State, main: MainId, starts: u8) {
        for (number, work) in state.works.iter_mut().enumerate() {
            let Some(fact) = work.fact else { continue };
            let start = starts & 1 << number != 0;
            if start || fact.pending_completion.is_some() || fact.pending_cancelation {
                work.desks[main].rows = Some(Rows { work: fact, start });
            }
            // Who shows a report to another process has it on disk.
            if work.unsynced.is_some_and(|(by, _)| by != main) {
                work.unsynced = None;
            }
        }
        state.mains[main].phase = Phase::Ready;
    }

    fn launch(&self, state: &mut State, main: MainId, number: usize) {
        let work = &mut state.works[number];
        let desk = &mut work.desks[main];
        let Some(run) = desk.launch.take() else { return };
        let granted = std::mem::take(&mut desk.granted);
        desk.live |= 1 << run;
        work.begun += 1;
        let begun = work.begun;
        if !granted {
            state.violate(Invariant::LaunchFollowsCommit);
        }
        if begun > self.max_attempts {
            state.violate(Invariant::BeginsAtMostMaxAttempts);
        }
    }

    /// Takes in the receipt and the batch: launches, steps, and sends what was decided.
    fn receive(&self, state: &mut State, main: MainId) {
        for number in 0..self.works {
            self.launch(state, main, number);
        }
        let desks = || state.works.iter().map(|work| &work.desks[main]);
        let mut running: Vec<_> = desks().map(|desk| desk.running).collect();
        let batch: Vec<_> = desks().map(|desk| desk.rows).collect();
        let lost: Vec<_> = desks().map(|desk| desk.lost).collect();
        let cx = rules::TurnCx {
            generation: state.mains[main].generation,
            max_parallelism: self.max_parallelism,
            max_attempts: self.max_attempts,
            plant: self.plant,
        };
        let decisions = rules::step(&mut running, &batch, &lost, &cx);
        let nothing = decisions.iter().all(|decision| *decision == rules::Decision::default());
        for (number, decision) in decisions.into_iter().enumerate() {
            let work = &mut state.works[number];
            let known_canceled = batch[number]
                .is_some_and(|rows| rows.work.canceled || rows.work.pending_cancelation);
            work.desks[main] = Desk {
                running: running[number],
                rows: None,
                lost: None,
                decision,
                launch: None,
                ..work.desks[main]
            };
            match decision.change {
                Some(Change::StartWork { run, .. }) => {
                    work.desks[main].launch = Some(run);
                    if known_canceled {
                        state.violate(Invariant::StartAfterCancel);
                    }
                    if self.plant == Plant::LaunchBeforeCommit {
                        self.launch(state, main, number);
                    }
                }
                Some(Change::CompleteWork { .. }) if self.plant == Plant::EffectsBeforeCommit => {
                    work.effects += 1;
                }
                _ => {}
            }
        }
        if nothing {
            state.mains[main].phase = Phase::Asking;
            if !state.is_current(main) {
                state.stand_by(main);
            }
            return;
        }
        state.mains[main].turn += 1;
        state.mains[main].phase = Phase::Sent;
    }

    /// The store takes an `Advance`, whole or not at all. Says whether it did.
    fn commit(&self, state: &mut State, main: MainId) -> bool {
        let Main { generation, turn, .. } = state.mains[main];
        let is_next = turn == state.turn + 1 || self.plant == Plant::NoTurn;
        let owns = generation == state.generation || self.plant == Plant::NoGeneration;
        let changes = |work: &Work| work.desks[main].decision.change;
        let hold = state.works.iter().all(|work| {
            changes(work)
                .is_none_or(|change| rules::still_holds(work.fact.as_ref(), &change, self.plant))
        });
        if !is_next || !owns || !hold {
            return false;
        }
        if generation != state.generation || turn != state.turn + 1 {
            state.violate(Invariant::OlderGeneration);
        }
        state.sync();
        state.turn = turn;
        for number in 0..self.works {
            let rules::Decision { mark, change } = state.works[number].desks[main].decision;
            if mark && let Some(fact) = &mut state.works[number].fact {
                (fact.canceled, fact.pending_cancelation) = (true, false);
            }
            if let Some(change) = change {
                self.apply(state, main, number, change);
            }
        }
        let running = |work: &&Work| work.fact.is_some_and(|fact| fact.running.is_some());
        let started = |work: &Work| matches!(changes(work), Some(Change::StartWork { .. }));
        if state.works.iter().filter(running).count() > self.max_parallelism
            && state.works.iter().any(started)
        {
            state.violate(Invariant::Parallelism);
        }
        true
    }

    /// Writes as it is told, like a storage does.
    fn apply(&self, state: &mut State, main: MainId, number: usize, change: Change) {
        if !rules::still_holds(state.works[number].fact.as_ref(), &change, Plant::Nothing) {
            state.violate(Invariant::ReportOverruled);
        }
        let work = &mut state.works[number];
        match (change, &mut work.fact) {
            (Change::StartWork { run, generation }, Some(fact)) => {
                fact.pending_start = false;
                fact.running = Some(generation);
                fact.runs = run;
                work.heard = false;
                work.desks[main].granted = true;
            }
            (Change::RetryWork { recovered, attempts }, Some(fact)) => {
                fact.attempts = attempts;
                fact.running = None;
                if !recovered {
                    fact.pending_completion = None;
                }
                fact.pending_start = true;
            }
            (Change::CompleteWork { outcome, .. }, fact) => {
                *fact = None;
                if self.plant != Plant::EffectsBeforeCommit {
                    work.effects += 1;
                }
                if work.finished.replace(outcome).is_some() {
                    state.violate(Invariant::OneOutcome);
                }
            }
            (_, None) => {}
        }
        let attempts = state.works[number].fact.map_or(0, |fact| fact.attempts);
        if attempts > self.max_attempts {
            state.violate(Invariant::MaxAttempts);
        }
    }

    fn report(
        &self,
        state: &mut State,
        number: usize,
        main: MainId,
        run: RunNumber,
        result: RunResult,
    ) {
        let work = &mut state.works[number];
        let fact = work.fact.as_ref();
        let taken = rules::attempt_finished(fact, run, result, self.max_attempts, self.plant);
        let (Some((completion, attempts)), Some(fact)) = (taken, &mut work.fact) else { return };
        let is_older = run != fact.runs;
        let is_second = std::mem::replace(&mut work.heard, true);
        work.unsynced = Some((main, fact.attempts));
        fact.pending_completion = Some(completion);
        fact.attempts = attempts;
        if attempts > self.max_attempts {
            state.violate(Invariant::MaxAttempts);
        }
        if is_older {
            state.violate(Invariant::OlderRun);
        }
        if is_second {
            state.violate(Invariant::OneReportPerRun);
        }
    }

    fn crash(&self, state: &mut State, main: MainId) {
        state.mains[main] = Main::default();
        for work in &mut state.works {
            work.desks[main] = Desk::default();
            if let (Some((by, attempts)), Some(fact)) = (work.unsynced, &mut work.fact)
                && by == main
            {
                fact.pending_completion = None;
                fact.attempts = attempts;
                (work.unsynced, work.heard) = (None, false);
            }
        }
    }

    /// Forgets what makes no difference any more.
    fn prune(&self, state: &mut State) {
        let keeps_decisions = state.budget.repeats > 0;
        let superseded: Vec<_> = (0..MAINS).map(|main| !state.is_current(main)).collect();
        for work in &mut state.works {
            for (main, desk) in work.desks.iter_mut().enumerate() {
                let phase = state.mains[main].phase;
                if phase != Phase::Sent && !keeps_decisions {
                    desk.decision = rules::Decision::default();
                }
                let Some(fact) = work.fact else {
                    // Reports of a job that is gone are of none.
                    desk.live = 0;
                    continue;
                };
                if self.prune {
                    let waits = fact.pending_completion.is_none() && fact.running.is_some();
                    desk.live &= if waits { 1 << fact.runs } else { 0 };
                    if superseded[main] {
                        desk.rows = None;
                        desk.lost = None;
                        desk.running = None;
                        desk.decision = rules::Decision::default();
                    }
                }
            }
            if work.fact.is_none() {
                work.heard = false;
                if work.desks.iter().all(|desk| desk.launch.is_none()) {
                    work.begun = 0;
                }
            }
        }
    }
}

/// The one state that stands for all that differ from it by the order of jobs and processes, and by how far
/// generations and turns have come.
fn canonical(mut state: State, plant: Plant) -> State {
    // Only whether a turn is the next one is ever asked, and one that is behind stays so.
    for main in &mut state.mains {
        main.turn = (main.turn - state.turn).max(0);
    }
    state.turn = 0;

    let desks = || state.works.iter().flat_map(|work| &work.desks);
    let facts = state.works.iter().filter_map(|work| work.fact);
    let shown = desks().filter_map(|desk| desk.rows.map(|rows| rows.work));
    let lost = desks().filter_map(|desk| desk.lost.map(|lost| lost.work));
    let rows = facts.chain(shown).chain(lost).filter_map(|work| work.running);
    let starting = desks().filter_map(|desk| match desk.decision.change? {
        Change::StartWork { generation, .. } => Some(generation),
        _ => None,
    });
    let generation = state.mains.iter().map(|main| main.generation).chain([0, state.generation]);
    let mut used: u16 =
        generation.chain(rows).chain(starting).fold(0, |used, number| used | 1 << number);
    if plant == Plant::LaterGenerationsAreOwn {
        let first = |main: &Main| main.generations & main.generations.wrapping_neg();
        used |= state.mains.iter().map(first).fold(0, |used, bit| used | bit);
    }
    let rank = |generation: &mut Generation| {
        *generation = (used & ((1 << *generation) - 1)).count_ones() as u8;
    };
    for main in &mut state.mains {
        rank(&mut main.generation);
        let mut generations = 0;
        for mut number in (0..16).filter(|number| used & main.generations & 1 << number != 0) {
            rank(&mut number);
            generations |= 1 << number;
        }
        main.generations = generations;
    }
    rank(&mut state.generation);
    for work in &mut state.works {
        work.fact.iter_mut().filter_map(|fact| fact.running.as_mut()).for_each(rank);
        for desk in &mut work.desks {
            desk.rows.iter_mut().filter_map(|rows| rows.work.running.as_mut()).for_each(rank);
            desk.lost.iter_mut().filter_map(|lost| lost.work.running.as_mut()).for_each(rank);
            if let Some(Change::StartWork { generation, .. }) = &mut desk.decision.change {
                rank(generation);
            }
        }
    }

    let mut mirrored = state.clone();
    mirrored.mains.swap(0, 1);
    for work in &mut mirrored.works {
        work.desks.swap(0, 1);
        if let Some((by, _)) = &mut work.unsynced {
            *by = 1 - *by;
        }
    }
    state.works.sort_unstable();
    mirrored.works.sort_unstable();
    state.min(mirrored)
}

impl Model for Bounds {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let fact = WorkFact { pending_start: true, ..WorkFact::default() };
        let work = Work { fact: Some(fact), ..Work::default() };
        let state = State {
            works: vec![work; self.works],
            mains: [Main::default(); MAINS],
            generation: 0,
            turn: 0,
            budget: self.faults,
            violated: 0,
        };
        vec![canonical(state, self.plant)]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        // A write that is accepted although it should not be is of interest for what comes of it.
        let to_be_refused =
            [Invariant::OlderGeneration, Invariant::OlderRun, Invariant::ReportOverruled];
        let to_be_refused =
            to_be_refused.into_iter().fold(0, |bits, invariant| bits | 1 << invariant as u16);
        if state.violated & !to_be_refused != 0 {
            return;
        }
        let budget = &state.budget;
        let reigning = state.reigning();
        for (main, Main { phase, .. }) in state.mains.iter().enumerate() {
            match phase {
                Phase::Standby if state.done() => {}
                Phase::Standby if reigning.is_none() => actions.push(Action::Claim(main)),
                Phase::Standby if budget.takeovers > 0 => actions.push(Action::TakeOver(main)),
                Phase::Standby => {}
                Phase::Asking => {
                    let news = state.works.iter().any(|work| {
                        let shown = work.fact.is_some_and(|fact| {
                            fact.pending_completion.is_some() || fact.pending_cancelation
                        });
                        shown || work.desks[main].lost.is_some()
                    });
                    let choices = self.choices(state, main);
                    let some = choices.into_iter().filter(|starts| news || *starts != 0);
                    actions.extend(some.map(|starts| Action::Wake(main, starts)));
                }
                Phase::Ready => {
                    actions.push(Action::Receive(main));
                    if budget.lost_messages > 0 {
                        actions.push(Action::LoseAnswer(main));
                    }
                    if budget.repeats > 0 {
                        actions.push(Action::Repeat(main));
                    }
                }
                Phase::Sent => {
                    let mut after = state.clone();
                    match self.commit(&mut after, main) {
                        true => actions.extend(
                            self.choices(&after, main)
                                .into_iter()
                                .map(|starts| Action::Commit(main, starts)),
                        ),
                        false => actions.push(Action::Commit(main, 0)),
                    }
                    if budget.lost_messages > 0 {
                        actions.push(Action::LoseAdvance(main));
                    }
                }
            }
            if budget.crashes > 0 && !state.done() {
                actions.push(Action::Crash(main));
            }
        }
        for (number, work) in state.works.iter().enumerate() {
            // The same as for the one before it.
            if number > 0 && state.works[number - 1] == *work {
                continue;
            }
            for (main, desk) in work.desks.iter().enumerate() {
                for run in (0..8).filter(|run| desk.live & 1 << run != 0) {
                    for result in [RunResult::Success, RunResult::Failed] {
                        actions.push(Action::Report { work: number, main, run, result });
                    }
                    if budget.abandons > 0 {
                        actions.push(Action::Abandon { work: number, main, run });
                    }
                }
            }
            if budget.cancels > 0 && rules::cancel(work.fact.as_ref()) {
                actions.push(Action::Cancel(number));
            }
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Claim(main) => self.claim(&mut state, main),
            Action::TakeOver(main) => {
                state.budget.takeovers -= 1;
                self.claim(&mut state, main);
            }
            Action::Wake(main, starts) => self.read_batch(&mut state, main, starts),
            Action::Receive(main) => self.receive(&mut state, main),
            Action::Commit(main, starts) => match self.commit(&mut state, main) {
                true => self.read_batch(&mut state, main, starts),
                // Told so: fenced, or a conflict.
                false => state.stand_by(main),
            },
            Action::Report { work, main, run, result } => {
                state.works[work].desks[main].live &= !(1 << run);
                self.report(&mut state, work, main, run, result);
            }
            Action::Abandon { work, main, run } => {
                state.budget.abandons -= 1;
                self.report(&mut state, work, main, run, RunResult::Failed);
            }
            Action::Cancel(work) => {
                state.budget.cancels -= 1;
                state.sync();
                state.works[work].fact.iter_mut().for_each(|fact| fact.pending_cancelation = true);
            }
            Action::Crash(main) => {
                state.budget.crashes -= 1;
                self.crash(&mut state, main);
            }
            Action::LoseAdvance(main) | Action::LoseAnswer(main) => {
                state.budget.lost_messages -= 1;
                state.stand_by(main);
            }
            Action::Repeat(main) => {
                state.budget.repeats -= 1;
                self.commit(&mut state, main);
            }
        }
        self.prune(&mut state);
        Some(canonical(state, self.plant))
    }
    fn properties(&self) -> Vec<Property<Self>> {
        macro_rules! invariants {
            ($($number:literal)*) => {
                vec![$(Property::always(INVARIANTS[$number].1, |_: &Bounds, state: &State| {
                    state.violated & 1 << INVARIANTS[$number].0 as u16 == 0
                })),*]
            };
        }
        let mut properties = invariants![0 1 2 3 4 5 6 7 8 9 10];
        properties.extend([
            Property::always(IN_SOME_TABLE, |_, state: &State| {
                state.works.iter().all(in_one_place)
            }),
            Property::always(EFFECTS_ONCE, |_, state: &State| {
                let once = |work: &Work| work.effects == u8::from(work.finished.is_some());
                state.works.iter().all(once)
            }),
            Property::always(PROGRESS, |bounds: &Bounds, state: &State| {
                let mut actions = Vec::new();
                bounds.actions(state, &mut actions);
                state.done() || state.violated != 0 || actions.iter().any(|action| action.is_due())
            }),
        ]);
        properties.extend(SIGHTS.map(|(name, seen)| Property::sometimes(name, seen)));
        properties
    }
}

fn in_one_place(work: &Work) -> bool {
    match work.fact {
        None => work.finished.is_some(),
        Some(fact) => {
            let reports = fact.pending_completion.is_some();
            work.finished.is_none()
                && fact.pending_start != fact.running.is_some()
                && (fact.running.is_some() || !reports)
        }
    }
}

type Sight = (&'static str, fn(&Bounds, &State) -> bool);

fn facts(state: &State) -> impl Iterator<Item = (&Work, WorkFact)> {
    state.works.iter().filter_map(|work| Some((work, work.fact?)))
}

/// What must be seen at least once, or the rest says nothing.
const SIGHTS: [Sight; 10] = [
    ("everything is done", |_, state| state.done()),
    (IN_DIFFERENT_WAYS, |_, state| {
        let ended = |outcome| state.works.iter().any(|work| work.finished == Some(outcome));
        ended(Outcome::Success) && ended(Outcome::Failed)
    }),
    ("a main takes over while an attempt of the other runs", |_, state| {
        facts(state).any(|(work, fact)| {
            let reigning = state.reigning().map(|main| (main, &work.desks[main]));
            let runs = |desk: &Desk| desk.live & 1 << fact.runs != 0;
            fact.running.is_some()
                && reigning
                    .is_some_and(|(main, desk)| desk.lost.is_some() && runs(&work.desks[1 - main]))
        })
    }),
    ("a superseded main goes on", |_, state| {
        (0..MAINS).any(|main| state.mains[main].phase == Phase::Sent && !state.is_current(main))
    }),
    ("a superseded main has launches to make", |_, state| {
        (0..MAINS).any(|main| {
            let launches = |work: &Work| work.desks[main].launch.is_some();
            state.mains[main].phase == Phase::Ready
                && !state.is_current(main)
                && state.works.iter().any(launches)
        })
    }),
    (NOBODY_LAUNCHED, |_, state| {
        let lost = |desk: &Desk| desk.lost.is_some_and(|lost| !lost.launched);
        state.works.iter().any(|work| work.desks.iter().any(lost))
    }),
    ("a run reports between the claim and its recovery", |_, state| {
        facts(state).any(|(work, fact)| {
            fact.pending_completion.is_some() && work.desks.iter().any(|desk| desk.lost.is_some())
        })
    }),
    (CANCEL_RACES, |_, state| {
        facts(state).any(|(_, fact)| {
            fact.pending_cancelation && fact.pending_completion.is_some_and(|row| row.retry)
        })
    }),
    (CANCELED_RUNS, |_, state| {
        facts(state).any(|(_, fact)| fact.canceled && fact.running.is_some())
    }),
    ("a report is not on disk while the last word on it is on its way", |_, state| {
        let decided =
            |desk: &Desk| matches!(desk.decision.change, Some(Change::CompleteWork { .. }));
        state.works.iter().any(|work| work.unsynced.is_some() && work.desks.iter().any(decided))
    }),
];

const fn budget(crashes: u8, takeovers: u8, lost_messages: u8, cancels: u8) -> Budget {
    Budget { crashes, takeovers, lost_messages, repeats: 0, abandons: 0, cancels }
}

const EVERY_FAULT: Budget =
    Budget { crashes: 1, takeovers: 1, lost_messages: 1, repeats: 1, abandons: 1, cancels: 1 };

/// Without optimization a model is ten times as slow, and is gone through in smaller bounds.
const THOROUGH: bool = !cfg!(debug_assertions);

const BOUNDS: Bounds = Bounds {
    works: 2,
    max_parallelism: 2,
    max_attempts: 2,
    faults: budget(2, 1, 0, 1),
    prune: !THOROUGH,
    plant: Plant::Nothing,
};

/// Goes through all there is. But for what cannot be seen in these bounds, all is seen that should be.
fn exhaust(bounds: Bounds, not_seen: &[&'static str]) {
    let begin = Instant::now();
    let checker = bounds.checker().threads(2).spawn_bfs().join();
    println!(
        "{bounds:?}: {} states, {} transitions, {:.1?}",
        checker.unique_state_count(),
        checker.state_count(),
        begin.elapsed()
    );
    for property in bounds.properties() {
        let name = property.name;
        match (property.expectation, checker.discovery(name)) {
            (Expectation::Sometimes, Some(_)) => {}
            (Expectation::Sometimes, None) => assert!(not_seen.contains(&name), "never: {name}"),
            (_, None) => {}
            (_, Some(path)) => panic!("{name}:{}", story(path)),
        }
    }
}

fn story(path: Path<State, Action>) -> String {
    path.into_actions().iter().map(|action| format!("\n  {action:?}")).collect()
}

#[test]
fn three_jobs_two_mains_two_crashes_and_a_takeover() {
    // 3.2 million states with the cancel; 0.1 million without it and pruned.
    let faults = budget(2, 1, 0, THOROUGH.into());
    let not_seen: &[_] = match THOROUGH {
        true => &[NOBODY_LAUNCHED],
        false => &[NOBODY_LAUNCHED, CANCEL_RACES, CANCELED_RUNS],
    };
    exhaust(Bounds { works: 3, faults, ..BOUNDS }, not_seen);
}

#[test]
fn three_jobs_share_one_slot_and_one_is_canceled() {
    let faults = budget(1, 1, 0, 1);
    exhaust(Bounds { works: 3, max_parallelism: 1, faults, ..BOUNDS }, &[NOBODY_LAUNCHED]);
}

#[test]
fn two_jobs_and_a_lost_message() {
    let bounds = Bounds { faults: budget(1, 1, 1, 0), prune: false, ..BOUNDS };
    exhaust(bounds, &[CANCEL_RACES, CANCELED_RUNS]);
}

/// Also what [`Bounds::prune`] would leave out.
#[test]
fn one_job_and_every_fault_there_is() {
    let faults = Budget { crashes: if THOROUGH { 2 } else { 1 }, ..EVERY_FAULT };
    exhaust(Bounds { works: 1, faults, prune: false, ..BOUNDS }, &[IN_DIFFERENT_WAYS]);
}

#[test]
fn a_job_that_is_not_retried_begins_once() {
    exhaust(Bounds { max_attempts: 1, faults: EVERY_FAULT, ..BOUNDS }, &[CANCEL_RACES]);
}

/// Every path ends, then: with [`PROGRESS`] this says that once the faults stop, all jobs get their outcome.
#[test]
fn no_path_comes_back_to_where_it_was() {
    let bounds = Bounds { faults: budget(1, 1, 0, 1), ..BOUNDS };
    let mut numbers = HashMap::new();
    let mut states = bounds.init_states();
    numbers.insert(states[0].clone(), 0);
    let mut ways: Vec<Vec<usize>> = Vec::new();
    let mut incoming = vec![0];
    while ways.len() < states.len() {
        let state = states[ways.len()].clone();
        let mut to = Vec::new();
        for next in bounds.next_states(&state) {
            let number = *numbers.entry(next).or_insert_with_key(|next| {
                states.push(next.clone());
                incoming.push(0);
                states.len() - 1
            });
            incoming[number] += 1;
            to.push(number);
        }
        ways.push(to);
    }
    // Takes away what nothing leads to any more. Of a circle nothing can be taken.
    let mut free = vec![0];
    let mut taken = 0;
    while let Some(number) = free.pop() {
        taken += 1;
        for next in &ways[number] {
            incoming[*next] -= 1;
            if incoming[*next] == 0 {
                free.push(*next);
            }
        }
    }
    assert_eq!(taken, states.len());
}

// Planted faults: the checker finds what each of them breaks.

fn finds(plant: Plant, works: usize, faults: Budget, broken: &[&'static str]) {
    let bounds = Bounds { works, max_parallelism: 1, faults, plant, prune: false, ..BOUNDS };
    let all = HasDiscoveries::AllOf(broken.iter().copied().collect());
    let checker = bounds.checker().threads(2).finish_when(all).spawn_bfs().join();
    for name in broken {
        let path = checker.discovery(name);
        let path = path.unwrap_or_else(|| panic!("{plant:?} does not break {name:?}"));
        println!("{plant:?} breaks {name:?}:{}", story(path));
    }
}

#[test]
fn a_turn_number_alone_does_not_fence() {
    finds(
        Plant::NoGeneration,
        2,
        budget(1, 1, 0, 0),
        &[
            "9 a write by an older generation or turn is refused",
            "2 running <= max_parallelism at every start",
            "7 a launch follows its commit",
            EFFECTS_ONCE,
        ],
    );
}

#[test]
fn a_generation_alone_does_not_fence() {
    let faults = Budget { repeats: 1, ..budget(0, 0, 0, 0) };
    finds(
        Plant::NoTurn,
        1,
        faults,
        &[
            "9 a write by an older generation or turn is refused",
            "1 a job reaches one outcome only",
            EFFECTS_ONCE,
        ],
    );
}

#[test]
fn a_report_without_its_run_is_taken_for_that_of_another() {
    let faults = Budget { abandons: 1, ..budget(0, 0, 0, 0) };
    finds(Plant::ReportOfAnyRun, 1, faults, &["9 a report of an older run is refused"]);
    finds(Plant::ReportOfAnyRun, 1, budget(0, 2, 0, 0), &["9 a report of an older run is refused"]);
}

#[test]
fn a_run_that_is_heard_twice_counts_twice() {
    let faults = Budget { abandons: 1, ..budget(0, 0, 0, 0) };
    finds(
        Plant::ReportAgain,
        1,
        faults,
        &["8 at most one report of a run is accepted", "3 attempts that count <= max_attempts"],
    );
}

#[test]
fn a_launch_before_its_commit_is_seen() {
    let broken = "7 a launch follows its commit";
    finds(Plant::LaunchBeforeCommit, 1, budget(0, 1, 0, 0), &[broken]);
    finds(Plant::LaunchBeforeCommit, 1, budget(0, 0, 1, 0), &[broken]);
}

#[test]
fn a_recovery_that_counts_nothing_begins_too_often() {
    let broken = "3 code begins at most max_attempts times";
    finds(Plant::RecoveryIsFree, 1, budget(2, 0, 0, 0), &[broken]);
}

#[test]
fn a_cancel_that_loses_against_a_retry_is_seen() {
    let broken = "a job that is known to be canceled is not started";
    finds(Plant::CancelLoses, 1, budget(0, 0, 0, 1), &[broken]);
}

#[test]
fn a_claim_that_forgets_what_runs_starts_too_much_or_rests_for_ever() {
    finds(Plant::ClaimForgetsRunning, 1, budget(1, 0, 0, 0), &[PROGRESS]);
    finds(
        Plant::ClaimForgetsRunning,
        2,
        budget(0, 1, 0, 0),
        &["2 running <= max_parallelism at every start"],
    );
}

/// Of two mains only: one that is alone has ended whoever could report before it recovers.
#[test]
fn a_recovery_does_not_overrule_a_report_that_came_meanwhile() {
    finds(
        Plant::RecoveryOverReport,
        1,
        budget(0, 1, 0, 0),
        &["8 a report that was accepted decides", IN_SOME_TABLE],
    );
}

/// Of two mains only: what is in `running` from later than the first generation of a main that is alone is its own.
#[test]
fn what_another_main_has_started_meanwhile_was_launched_for_all_one_knows() {
    let broken = "3 code begins at most max_attempts times";
    finds(Plant::LaterGenerationsAreOwn, 1, budget(0, 2, 0, 0), &[broken]);
    finds(Plant::LaterGenerationsAreOwn, 1, budget(1, 1, 0, 0), &[broken]);
}

#[test]
fn effects_before_their_commit_come_twice() {
    finds(Plant::EffectsBeforeCommit, 1, budget(0, 1, 0, 0), &[EFFECTS_ONCE]);
    finds(Plant::EffectsBeforeCommit, 1, budget(0, 0, 1, 0), &[EFFECTS_ONCE]);
}

// The rules of the model are those of the engine.

mod real {
    pub use actix_workpool::engine::arrivals::{
        ArrivalCx, AttemptReport, CancelAnswer, FinishAnswer, attempt_finished, cancel,
    };
    pub use actix_workpool::engine::{Lost, TurnCx, step};
    pub use actix_workpool::model::*;
}

const MAX_ATTEMPTS: u8 = 2;

fn real_spec(number: usize) -> real::Spec {
    let retry = real::RetryBehavior::default().max_attempts(MAX_ATTEMPTS.into());
    let options = real::SpecOptions { retry: Some(retry), ..real::SpecOptions::default() };
    real::Spec::new(
        real::WorkId::from_uuid(uuid(number)),
        real::SpecHead {
            pool: real::PoolId(0),
            kind: real::FunctionKind::Action,
            function: real::Name::from_static("f"),
            enqueued_at: real::Segment(1),
            priority: real::Priority::NORMAL,
            options: Some(Box::new(options)),
        },
        b"",
    )
}

fn uuid(number: usize) -> uuid::Uuid {
    uuid::Uuid::from_u128(number as u128)
}

fn number_of(work_id: real::WorkId) -> usize {
    work_id.as_u128() as usize
}

fn key(number: usize) -> real::Key {
    real::Key { segment: real::Segment(1), seq: number as u64 }
}

fn start_key(number: usize) -> real::StartKey {
    real::StartKey::at(real::Priority::NORMAL, key(number))
}

fn real_fact(number: usize, fact: &WorkFact) -> real::WorkFact {
    real::WorkFact {
        attempts: fact.attempts.into(),
        runs: fact.runs.into(),
        canceled: fact.canceled,
        pending_start: fact.pending_start.then_some(start_key(number)),
        running: fact.running.map(|generation| real::Running {
            run: fact.runs.into(),
            started: real::Segment(1),
            generation: real::Generation(generation.into()),
        }),
        pending_completion: fact.pending_completion.map(|row| (key(number), row.retry)),
        pending_cancelation: fact.pending_cancelation.then_some(key(number)),
        ..real::WorkFact::new(real_spec(number))
    }
}

fn real_result(result: RunResult) -> real::RunResult {
    match result {
        RunResult::Success => real::RunResult::Success(real::Payload::NULL),
        RunResult::Failed => {
            real::RunResult::Failed(real::Failure::retryable(real::FailureKind::Error, "failed"))
        }
        RunResult::Canceled => real::RunResult::Canceled,
        RunResult::Returned => real::RunResult::Returned,
    }
}

fn result_of(result: &real::RunResult) -> RunResult {
    match result {
        real::RunResult::Success(_) => RunResult::Success,
        real::RunResult::Failed(_) => RunResult::Failed,
        real::RunResult::Returned => RunResult::Returned,
        _ => RunResult::Canceled,
    }
}

fn outcome_of(outcome: &real::Outcome) -> Outcome {
    match outcome {
        real::Outcome::Success(_) => Outcome::Success,
        real::Outcome::Failed(_) => Outcome::Failed,
        real::Outcome::Canceled => Outcome::Canceled,
    }
}

/// Every state a job can be in, with and without a worker.
fn cases() -> Vec<(WorkFact, Option<Lost>)> {
    const RESULTS: [RunResult; 4] =
        [RunResult::Success, RunResult::Failed, RunResult::Canceled, RunResult::Returned];
    let mut cases = Vec::new();
    for (canceled, pending_cancelation) in [(false, false), (false, true), (true, false)] {
        for attempts in 0..MAX_ATTEMPTS {
            let fact = WorkFact { attempts, canceled, pending_cancelation, ..WorkFact::default() };
            if !canceled {
                cases.push((WorkFact { runs: attempts, pending_start: true, ..fact }, None));
            }
            let running = WorkFact { runs: attempts + 1, running: Some(3), ..fact };
            cases.push((running, None));
            for launched in [false, true] {
                cases.push((running, Some(Lost { work: running, launched })));
            }
            for result in RESULTS {
                let finished = rules::attempt_finished(
                    Some(&running),
                    running.runs,
                    result,
                    2,
                    Plant::Nothing,
                );
                let (completion, attempts) =
                    finished.expect("it is the run that occupies the slot");
                let reported =
                    WorkFact { attempts, pending_completion: Some(completion), ..running };
                cases.push((reported, None));
                // It reported after the pool was claimed.
                cases.push((reported, Some(Lost { work: running, launched: true })));
            }
        }
    }
    cases
}

fn real_step(facts: &[(WorkFact, Option<Lost>)], max_parallelism: usize) -> Vec<rules::Decision> {
    let mut state =
        real::InternalState { generation: real::Generation(5), ..real::InternalState::default() };
    let mut batch = real::Batch { read_at: real::Segment(9), ..real::Batch::default() };
    let mut lost = Vec::new();
    for (number, (fact, lost_fact)) in facts.iter().enumerate() {
        let work = real_fact(number, fact);
        let (spec, work_id) = (work.spec.clone(), work.spec.work_id);
        let (run, key) = (work.runs, key(number));
        let running = work.running;
        state.running.extend(running.map(|running| (work_id, running)));
        if let Some(completion) = fact.pending_completion {
            let retry = match completion.retry {
                true => real::Retry::At(real::Segment(9)),
                false => real::Retry::No,
            };
            let result = real_result(completion.result);
            batch.completions.push(real::CompletionRow {
                key,
                run,
                result,
                retry,
                work: work.clone(),
            });
        }
        if fact.pending_cancelation {
            let (pool, work) = (real::PoolId(0), Some(work.clone()));
            batch.cancelations.push(real::CancelationRow { key, pool, work_id, work });
        }
        if fact.pending_start {
            let (key, attempts) = (start_key(number), work.attempts);
            batch.starts.push(real::StartRow { key, spec, attempts, runs: run, lane: None });
        }
        if let (Some(Lost { work, launched }), Some(running)) = (lost_fact, running) {
            let row = real::RunningRow { running, work: real_fact(number, work) };
            lost.push(real::Lost { row, launched: *launched, chance: 0.5 });
        }
    }
    let key_rule = actix_workpool::KeyRule::default();
    let cx = real::TurnCx { max_parallelism, rate: None, key_rule, can_run: &|_| true, lost };
    let changes = real::step(state, batch, real::PoolId(0), cx).changes;
    let mut decisions = vec![rules::Decision::default(); facts.len()];
    for change in changes {
        let (number, change) = match change {
            real::Change::MarkCanceled { work_id, .. } => {
                let decision = &mut decisions[number_of(work_id)];
                assert_eq!(decision.change, None, "the mark comes first");
                decision.mark = true;
                continue;
            }
            real::Change::StartWork { work_id, run, generation, .. } => {
                let (run, generation) = (run as u8, generation.0 as u8);
                (number_of(work_id), Change::StartWork { run, generation })
            }
            real::Change::RetryWork { work_id, completion, attempts, .. } => {
                let (recovered, attempts) = (completion.is_none(), attempts as u8);
                (number_of(work_id), Change::RetryWork { recovered, attempts })
            }
            real::Change::CompleteWork { finished, .. } => {
                // Not to be seen in the real one, which has no use for it yet.
                let (recovered, outcome) = (false, outcome_of(&finished.outcome));
                (number_of(finished.work_id), Change::CompleteWork { recovered, outcome })
            }
            _ => continue,
        };
        assert_eq!(decisions[number].change.replace(change), None, "one change for each job");
    }
    decisions
}

fn model_step(facts: &[(WorkFact, Option<Lost>)], max_parallelism: usize) -> Vec<rules::Decision> {
    let mut running: Vec<_> =
        facts.iter().map(|(fact, _)| fact.running.map(|_| fact.runs)).collect();
    let rows = |fact: &WorkFact| Rows { work: *fact, start: fact.pending_start };
    let shown = |fact: &WorkFact| {
        fact.pending_start || fact.pending_completion.is_some() || fact.pending_cancelation
    };
    let batch: Vec<_> = facts.iter().map(|(fact, _)| shown(fact).then(|| rows(fact))).collect();
    let lost: Vec<_> = facts.iter().map(|(_, lost)| *lost).collect();
    let (max_attempts, plant) = (MAX_ATTEMPTS, Plant::Nothing);
    let cx = rules::TurnCx { generation: 5, max_parallelism, max_attempts, plant };
    let mut decisions = rules::step(&mut running, &batch, &lost, &cx);
    for decision in &mut decisions {
        if let Some(Change::CompleteWork { recovered, .. }) = &mut decision.change {
            *recovered = false;
        }
    }
    decisions
}

#[test]
fn the_model_decides_as_the_engine_does() {
    let cases = cases();
    for first in &cases {
        for second in &cases {
            for slots in 0..3 {
                let facts = [*first, *second];
                assert_eq!(
                    model_step(&facts, slots),
                    real_step(&facts, slots),
                    "{slots} slots: {facts:?}"
                );
            }
        }
    }
}

#[test]
fn the_model_takes_what_arrives_as_the_engine_does() {
    for (fact, _) in cases() {
        let real = real_fact(0, &fact);
        let canceled = real::cancel(Some(&real), false, real::Segment(1)).answer;
        assert_eq!(
            rules::cancel(Some(&fact)),
            canceled == real::CancelAnswer::Requested,
            "cancel of {fact:?}"
        );
        for result in
            [RunResult::Success, RunResult::Failed, RunResult::Canceled, RunResult::Returned]
        {
            for run in [fact.runs, fact.runs + 1, fact.runs.saturating_sub(1)] {
                let report = real::AttemptReport {
                    work_id: real.spec.work_id,
                    run: run.into(),
                    result: real_result(result),
                };
                let now = real::Segment(1);
                let cx = real::ArrivalCx { now, waits_from: now, chance: 0.5 };
                let arrival = real::attempt_finished(Some(&real), report, cx);
                assert_eq!(
                    arrival.change.is_some(),
                    arrival.answer == real::FinishAnswer::Accepted
                );
                let taken = arrival.change.map(|change| match change {
                    real::Change::InsertPendingCompletion { result, retry, attempts, .. } => {
                        let retry = retry != real::Retry::No;
                        (rules::Completion { result: result_of(&result), retry }, attempts as u8)
                    }
                    other => panic!("{other:?} is no completion"),
                });
                assert_eq!(
                    rules::attempt_finished(Some(&fact), run, result, MAX_ATTEMPTS, Plant::Nothing),
                    taken,
                    "{result:?} of run {run} of {fact:?}"
                );
            }
        }
    }
    assert!(!rules::cancel(None));
    assert_eq!(rules::attempt_finished(None, 1, RunResult::Success, 2, Plant::Nothing), None);
}
