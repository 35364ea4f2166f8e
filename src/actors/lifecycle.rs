//! The states of a pool's loop.
//!
//! ```text
//!            Kick: Look                 Answer                    Send
//!   Resting ───────────► (Send) InFlight ───────► Deciding ────────────────► InFlight
//!      ▲ ▲                          │                │  │
//!      │ └──────────────────────────┼── Rest ────────┘  │
//!      │                            │ Fail              │ Fail
//!      │          Claimed           ▼                   │
//!      └──────────────────────── Claiming ◄─────────────┘
//! ```
//!
//! A kick during a turn is remembered, and handled when the turn ends.

use crate::model::{PoolConfig, RunStatus, Segment, WorkId};
use crate::protocol::Reply;

use crate::engine::Launch;

/// The state of a loop.
#[derive(Debug)]
pub(super) enum Life {
    /// Nothing is in progress. The status says what the loop waits for.
    Resting(RunStatus),
    /// A turn is with the store.
    InFlight { flight: Box<Flight>, kicked: bool },
    /// The store has answered, and the turn is being decided. Lasts only within one handler.
    Deciding { kicked: bool },
    /// A turn has failed or was given up. The loop does nothing until it has a new generation.
    Claiming { kicked: bool },
}

/// An event in the life of a loop.
#[derive(Debug)]
pub(super) enum Transition {
    /// There may be something to decide.
    Kick,
    /// A turn is sent to the store.
    Send(Box<Flight>),
    /// A batch has arrived: the answer to the turn in flight, or one for a resting loop.
    Answer,
    /// There was nothing to decide.
    Rest(RunStatus),
    /// The turn has failed, or is given up.
    Fail,
    /// The pool has been claimed again.
    Claimed(RunStatus),
}

/// The effect of a transition.
#[derive(Debug)]
pub(super) enum Effect {
    Nothing,
    /// The loop must ask the store for a batch.
    Look,
    /// The turn that was in flight.
    Landed(Box<Flight>),
}

impl Life {
    /// Applies a transition. Every transition is allowed in every state: one that is late or does not fit has no
    /// harmful effect.
    pub fn accept(self, transition: Transition) -> (Life, Effect) {
        match (self, transition) {
            (Life::Resting(status), Transition::Kick) => (Life::Resting(status), Effect::Look),
            (Life::InFlight { flight, .. }, Transition::Kick) => {
                (Life::InFlight { flight, kicked: true }, Effect::Nothing)
            }
            (Life::Deciding { .. }, Transition::Kick) => {
                (Life::Deciding { kicked: true }, Effect::Nothing)
            }
            (Life::Claiming { .. }, Transition::Kick) => {
                (Life::Claiming { kicked: true }, Effect::Nothing)
            }
            (_, Transition::Send(flight)) => {
                (Life::InFlight { flight, kicked: false }, Effect::Nothing)
            }
            (Life::InFlight { flight, kicked }, Transition::Answer) => {
                (Life::Deciding { kicked }, Effect::Landed(flight))
            }
            // A kick that crosses a question to the store answers it: both see the rows of this turn. The answer that
            // comes later finds the loop resting, or a turn further on.
            (life, Transition::Answer) => {
                (Life::Deciding { kicked: life.is_kicked() }, Effect::Landed(Box::default()))
            }
            (Life::InFlight { flight, kicked }, Transition::Fail) => {
                (Life::Claiming { kicked }, Effect::Landed(flight))
            }
            (life, Transition::Fail) => {
                (Life::Claiming { kicked: life.is_kicked() }, Effect::Nothing)
            }
            (_, Transition::Rest(status) | Transition::Claimed(status)) => {
                (Life::Resting(status), Effect::Nothing)
            }
        }
    }

    /// Returns `true` if a kick is waiting to be handled.
    pub fn is_kicked(&self) -> bool {
        match self {
            Life::Resting(_) => false,
            Life::InFlight { kicked, .. }
            | Life::Deciding { kicked }
            | Life::Claiming { kicked } => *kicked,
        }
    }

    pub fn is_claiming(&self) -> bool {
        matches!(self, Life::Claiming { .. })
    }

    /// Returns the turn that is with the store, if there is one.
    pub fn in_flight(&self) -> Option<&Flight> {
        match self {
            Life::InFlight { flight, .. } => Some(flight),
            _ => None,
        }
    }

    pub fn status(&self) -> RunStatus {
        match self {
            Life::Resting(status) => *status,
            // No timer needs to fire during a turn.
            _ => RunStatus::Running,
        }
    }
}

/// Everything to do after the commit of a turn.
#[derive(Debug, Default)]
pub(super) struct Flight {
    /// The time at which it was sent.
    pub since: Segment,
    /// `true` if the watchdog sent it.
    pub probe: bool,
    pub launches: Vec<Launch>,
    pub signals: Vec<WorkId>,
    /// The number of rows of `running` without a worker that the turn recovers.
    pub recovered: usize,
    /// The callers that wait for the change of the configuration in this turn's commit.
    pub configures: Vec<Reply<()>>,
    /// The configuration in this turn's commit, if it changes.
    pub config: Option<PoolConfig>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Generation;

    fn idle() -> RunStatus {
        RunStatus::Idle { generation: Generation(1) }
    }

    fn after(transitions: impl IntoIterator<Item = Transition>) -> (Life, Effect) {
        let mut at = (Life::Resting(idle()), Effect::Nothing);
        for transition in transitions {
            at = at.0.accept(transition);
        }
        at
    }

    fn send() -> Transition {
        Transition::Send(Box::new(Flight { recovered: 7, ..Flight::default() }))
    }

    #[test]
    fn a_loop_that_rests_looks_when_it_is_kicked() {
        assert!(matches!(after([Transition::Kick]), (Life::Resting(_), Effect::Look)));
    }

    #[test]
    fn a_kick_during_a_turn_is_taken_up_behind_it() {
        let (life, effect) = after([send(), Transition::Kick]);
        assert!(matches!(effect, Effect::Nothing));
        let (life, effect) = life.accept(Transition::Answer);
        assert!(matches!(effect, Effect::Landed(flight) if flight.recovered == 7));
        assert!(life.is_kicked());
        assert!(!after([send(), Transition::Kick, Transition::Answer, send()]).0.is_kicked());
    }

    #[test]
    fn a_loop_that_claims_its_pool_looks_at_nothing_until_it_has_it() {
        let (life, effect) = after([send(), Transition::Fail]);
        assert!(life.is_claiming() && matches!(effect, Effect::Landed(_)));
        let (life, effect) = life.accept(Transition::Kick);
        assert!(life.is_claiming() && matches!(effect, Effect::Nothing));
        let (life, _) = life.accept(Transition::Claimed(idle()));
        assert!(matches!(life.accept(Transition::Kick), (_, Effect::Look)));
    }

    #[test]
    fn a_batch_for_a_loop_that_rests_brings_an_empty_flight() {
        let (life, effect) = after([Transition::Answer]);
        assert!(matches!(life, Life::Deciding { kicked: false }));
        assert!(matches!(effect, Effect::Landed(flight) if flight.recovered == 0));
        assert_eq!(life.accept(Transition::Rest(idle())).0.status(), idle());
    }
}
