//! Threads that hand work to each other do not go to sleep between two batches.
//!
//! Waking a sleeping thread takes tens of microseconds, an attempt that does little takes one. A thread that has just
//! been given something therefore stays awake for a moment, giving way to every other thread that could run.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::{Duration, Instant};

/// The time that a thread stays awake after it last had something to do. A little more than it takes to wake it.
const SPIN: Duration = Duration::from_micros(50);

/// Keeps the current thread awake for a moment.
#[derive(Clone)]
pub(super) struct Spin(Option<Rc<State>>);

struct State {
    until: Cell<Instant>,
    spinning: Cell<bool>,
}

impl Spin {
    /// With only one thread there is nobody to wait for.
    pub fn new(several_threads: bool) -> Spin {
        let state = || State { until: Cell::new(Instant::now()), spinning: Cell::new(false) };
        Spin(several_threads.then(|| Rc::new(state())))
    }

    /// Something was just done, and more may follow soon.
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

/// Waits for the next message, awake for a moment before it sleeps; `None` when nobody can send one any more.
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
