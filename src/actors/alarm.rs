//! The alarm: wakes loops when a job is due.
//!
//! A thread that waits for a timer of tokio sleeps in whole milliseconds from when it falls asleep, so it wakes up to a
//! millisecond late. The thread of the alarm sleeps until the moment itself.

use std::cell::OnceCell;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use actix::prelude::*;
use hashbrown::HashMap;

use super::messages::Ring;
use crate::model::PoolId;

/// Wakes the loops of one control thread. Its own thread begins with the first call, and ends with the last clone.
#[derive(Clone, Default)]
pub(super) struct Alarm(Rc<OnceCell<Option<Sender<Call>>>>);

/// A loop that is to be woken, and when.
struct Call {
    pool: PoolId,
    at: Instant,
    main: Recipient<Ring>,
}

impl Alarm {
    /// Sends the loop a [`Ring`] after `wait`, instead of the last one that it has asked for. If there is no thread for
    /// the alarm, the loop has its timer.
    pub fn ring_after(&self, wait: Duration, pool: PoolId, main: Recipient<Ring>) {
        let calls = self.0.get_or_init(|| {
            let (calls, queue) = channel();
            let thread = std::thread::Builder::new().name("workpool-alarm".into());
            thread.spawn(move || run(&queue)).is_ok().then_some(calls)
        });
        if let (Some(calls), Some(at)) = (calls, Instant::now().checked_add(wait)) {
            // The send fails only if the thread is gone.
            let _ = calls.send(Call { pool, at, main });
        }
    }
}

/// Sends each loop its ring in time, until all senders are gone.
fn run(queue: &Receiver<Call>) {
    let mut order = BTreeSet::new();
    let mut calls: HashMap<PoolId, Call> = HashMap::new();
    loop {
        let wait = match order.first() {
            Some((at, _)) => Instant::saturating_duration_since(at, Instant::now()),
            None => Duration::MAX,
        };
        match queue.recv_timeout(wait) {
            Ok(call) => {
                let (at, pool) = (call.at, call.pool);
                if let Some(last) = calls.insert(pool, call) {
                    order.remove(&(last.at, pool));
                }
                order.insert((at, pool));
            }
            Err(RecvTimeoutError::Timeout) => {
                if let Some(call) = order.pop_first().and_then(|(_, pool)| calls.remove(&pool)) {
                    call.main.do_send(Ring);
                }
            }
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}
