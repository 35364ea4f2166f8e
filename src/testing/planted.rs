//! Deliberate bugs that test whether the simulation finds bugs.
//!
//! The code checks `planted!(Name)` where the bug would be. It is `false` unless the feature `planted` is on and this
//! thread has switched that bug on.

use std::cell::Cell;

macro_rules! bugs {
    ($($bug:ident: $what:literal,)*) => {
        /// A bug that can be switched on.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Bug {
            $(#[doc = $what] $bug,)*
        }

        impl Bug {
            /// All bugs.
            pub const ALL: &'static [Bug] = &[$(Bug::$bug),*];

            /// Returns a description of the bug.
            #[must_use]
            pub fn what(self) -> &'static str {
                match self {
                    $(Bug::$bug => $what,)*
                }
            }
        }
    };
}

bugs! {
    CursorSkipsUnstarted: "a cursor advances past a row that found no slot",
    KickSuppressed: "a resting loop is not told of enqueues",
    TimerLost: "nobody looks when a delayed job is due",
    AttemptCountedTwice: "a failed attempt counts twice",
    OneAttemptTooMany: "a job is tried once more than it may be",
    LaunchBeforeCommit: "an attempt is launched before its start is committed",
    OverlayForgotten: "a message does not see what the one before it in its group did",
    OnCompleteTwice: "on_complete is applied twice",
    OnCompleteLost: "on_complete is not applied",
    FollowUpLost: "the follow-up of a failed on_complete is not enqueued",
    RetentionTooEager: "retention forgets every outcome",
    CapacityOffByOne: "one attempt more than may be runs at once",
    BackoffIgnored: "a retry does not wait",
    DelayHalved: "a delayed job starts after half its delay",
    CancelLostAgainstRetry: "a job that is canceled while it is about to be retried is retried",
    CancelNotHeld: "a start that is under way goes on after the cancel is answered",
    CancelNotMarked: "the cancel of a running job is forgotten",
    ReturnCounted: "an attempt that is returned to the queue counts",
    SnoozeCounted: "a snoozed attempt counts",
    RecoveryNotCounting: "an attempt that a crash has ended does not count",
    DuplicateEnqueues: "an id that is known is enqueued again",
    WitnessDenies: "a commit whose answer was lost is taken for one that did not happen",
    BoardStale: "the board shows a job that waits for its retry as running",
    ReadUntilUnclamped: "a new row may come to stand where a turn under way moves the cursor",
    PendingLeaks: "jobs that were not enqueued stay counted as pending",
    LedgerOutsideOverlay: "a mutation does not see what the one before it in its group wrote",
    FailedEffectsKept: "the effects of a failed mutation stay",
    ConfigLost: "a change of the configuration is not stored",
    TimeoutIgnored: "timeouts are ignored",
    AbortIgnored: "aborts are ignored",
    ReportsDropped: "reports of a group that failed are not tried again",
    PriorityIgnored: "of the jobs that are due, the one of the worst priority starts first",
    MovedUnderTurn: "a job whose priority was changed is started from its old place",
    HoldIgnoresStart: "a job that waits holds its unique key also when it has started",
    HoldEndsAtStart: "a job that holds its unique key until it is finished holds it only until it starts",
    PeriodForEver: "a unique key that is held for a period is held for ever",
    ReplacedUnderTurn: "a job that was replaced is started as it was before",
    RateIgnored: "jobs start as if their pool had no rate",
    LimitForgotten: "a pool that is to rest goes on",
    KeyParallelismIgnored: "more jobs of a key run at once than may",
    KeyRateIgnored: "jobs of a key start as if there were no rate for each",
    KeyRestIgnored: "a key that is to rest goes on",
    KeyNotShown: "two jobs of a key that are enqueued at once do not see each other",
    TurnsIgnored: "jobs of a key get no tags one behind the other: they have no turns",
    RetryOvertaken: "an ordered job that waits for a retry lets others pass",
    DelayOvertaken: "an ordered job that is not due lets others pass",
    PromotionForgotten: "a job stays in its lane though there is room",
    SweepForgotten: "jobs stay in their lanes though the rules have changed",
    OverlapIgnored: "a schedule enqueues though the job before has no outcome",
    PauseIgnored: "a schedule that is paused fires",
    MissedForEver: "a schedule catches up with what was missed long ago",
    CompletionUncounted: "finished attempts are not counted",
    RetryUncounted: "retries are not counted",
    ListenersForgotten: "who joins is not told of the outcome",
    RunNowUnfenced: "a job that a turn was shown as due is moved",
    RunNowForgotten: "a job that is to be run now goes on waiting",
    DeletedTwice: "a job completes twice when it is canceled while it completes",
    TurnUnfenced: "the generation of a turn is not checked: one that was given up is committed behind a later one",
    EarlyTurnTrusted: "a turn counts that was decided on rows of a group that was not committed",
    BatchUnfenced: "a loop acts on the answer to a turn that it has given up",
    RunUnchecked: "a report of an earlier run of an action counts",
    MutationTwice: "a mutation that arrives twice has its effects twice",
    DoubtRefused: "a change of the configuration whose turn was given up is said to have failed",
    ConflictAnswered: "a group that another writer was faster than is answered with that, not decided anew",
    WorkerLostSilently: "a worker that goes away with its attempt does not report it",
    SyncSkipped: "file: a commit is answered and not synced",
    SyncTooEarly: "file: a commit is synced before it is written",
    SyncFailureForgotten: "file: commits go on after a sync has failed",
    ChecksumIgnored: "file: the checksum of a frame is not verified",
    TornFrameTaken: "file: the checksum covers only the head of a frame",
    ClockForgotten: "file: the clock of a frame is not replayed",
    LogRetiredEarly: "file: a half of the log is used again before the tables are synced",
    DeferredReportLost: "file: a report that waits for the next commit is not written with it",
    HalfNotReplayed: "file: of a log that goes on in its other half, that half is not replayed",
    CheckpointUnnoted: "file: the tables do not know which commits they contain",
}

thread_local! {
    static PLANTED: Cell<Option<Bug>> = const { Cell::new(None) };
}

/// Switches one bug on for this thread, or all bugs off.
pub fn plant(bug: Option<Bug>) {
    PLANTED.set(bug);
}

pub(crate) fn is(bug: Bug) -> bool {
    PLANTED.get() == Some(bug)
}
