//! Spinning: keeps threads that exchange messages awake between two batches.
//!
//! Waking a sleeping thread takes tens of microseconds; a short attempt takes one. So a thread that has just received
//! something stays awake for a moment, and yields to every other runnable thread.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::{Duration, Instant};

/// The time that a thread stays awake after its last activity. A little longer than it takes to wake it.
const SPIN: Duration = Duration::from_micros(50);

/// Keeps the current thread awake for a moment.
#[derive(Clone)]
pub(super) struct Spin(Option<Rc<State>>);

struct State {
    until: Cell<Instant>,
    spinning: Cell<bool>,
}

impl Spin {
    /// Creates a spinner. With only one thread it does nothing.
    pub fn new(several_threads: bool) -> Spin {
        let state = || State { until: Cell::new(Instant::now()), spinning: Cell::new(false) };
        Spin(several_threads.then(|| Rc::new(state())))
    }

    /// Records activity: more may follow soon.
    pub fn touch(&self) {
        let Some(state) = &self.0 else { return };
        state.until.set(Instant::now() + SPIN);
        if state.spinning.replace(true) {
            return;
        }
        let state = state.clone();
        actix::spawn(async move {
            while Instant::now() < state.until.get() {
                std::thread::yield_now();
                tokio::task::yield_now().await;
            }
            state.spinning.set(false);
        });
    }
}

/// Waits for the next message, and spins for a moment before it sleeps; `None` when all senders are gone.
pub(super) fn receive<T>(queue: &Receiver<T>) -> Option<T> {
    let until = Instant::now() + SPIN;
    while Instant::now() < until {
        match queue.try_recv() {
            Ok(message) => return Some(message),
            Err(TryRecvError::Disconnected) => return None,
            Err(TryRecvError::Empty) => std::thread::yield_now(),
        }
    }
    queue.recv().ok()
}
