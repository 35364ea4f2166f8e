//! The pulse of a worker thread, shared with the control thread: the attempts that wait to begin, the reports that wait
//! to be sent, and whether user code blocks the thread.

use std::collections::VecDeque;

use super::attempt::Attempt;
use crate::engine::arrivals::AttemptReport;
use crate::model::Name;
use crate::shared::sync::Mutex;
use crate::shared::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// The shared part of one worker host.
#[derive(Default)]
pub(super) struct Pulse {
    /// Incremented when user code is entered and left: odd while it runs.
    polls: AtomicU64,
    /// The number of attempts that were handed over and have not ended.
    load: AtomicUsize,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    waiting: VecDeque<Attempt>,
    /// Attempts of functions that have blocked a thread recently. They begin after all others.
    waiting_blockers: VecDeque<Attempt>,
    /// Reports that wait to be sent together.
    reports: Vec<AttemptReport>,
    /// The function whose code was entered last.
    function: Option<Name>,
}

impl Pulse {
    fn inner(&self) -> impl std::ops::DerefMut<Target = Inner> + '_ {
        self.inner.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Adds attempts, each with whether its function is a blocker.
    pub fn put(&self, attempts: impl IntoIterator<Item = (Attempt, bool)>) {
        let mut inner = self.inner();
        let mut count = 0;
        for (attempt, is_blocker) in attempts {
            count += 1;
            match is_blocker {
                true => inner.waiting_blockers.push_back(attempt),
                false => inner.waiting.push_back(attempt),
            }
        }
        self.load.fetch_add(count, Ordering::Relaxed);
    }

    /// Takes the next attempt to begin.
    pub fn take(&self) -> Option<Attempt> {
        let mut inner = self.inner();
        inner.waiting.pop_front().or_else(|| inner.waiting_blockers.pop_front())
    }

    /// Takes back all attempts that have not begun.
    pub fn take_all(&self) -> Vec<Attempt> {
        let mut inner = self.inner();
        let Inner { waiting, waiting_blockers, .. } = &mut *inner;
        let all: Vec<_> = waiting.drain(..).chain(waiting_blockers.drain(..)).collect();
        self.load.fetch_sub(all.len(), Ordering::Relaxed);
        all
    }

    /// Returns `true` if an attempt waits to begin, or a report waits to be sent.
    pub fn has_waiting(&self) -> bool {
        let Inner { waiting, waiting_blockers, reports, .. } = &*self.inner();
        !waiting.is_empty() || !waiting_blockers.is_empty() || !reports.is_empty()
    }

    /// Adds a report to the waiting ones. Returns `true` if it is the first of them.
    pub fn report(&self, report: AttemptReport) -> bool {
        let mut inner = self.inner();
        inner.reports.push(report);
        inner.reports.len() == 1
    }

    /// Takes the waiting reports; the caller sends them.
    pub fn take_reports(&self) -> Vec<AttemptReport> {
        std::mem::take(&mut self.inner().reports)
    }

    /// Records that an attempt has ended.
    pub fn ended(&self) {
        self.load.fetch_sub(1, Ordering::Relaxed);
    }

    /// Returns the number of attempts that were handed over and have not ended.
    pub fn load(&self) -> usize {
        self.load.load(Ordering::Relaxed)
    }

    /// Runs user code of a function. A panic propagates.
    pub fn user_code<T>(&self, function: Name, code: impl FnOnce() -> T) -> T {
        struct Left<'p>(&'p AtomicU64);
        impl Drop for Left<'_> {
            fn drop(&mut self) {
                self.0.fetch_add(1, Ordering::Release);
            }
        }
        self.inner().function = Some(function);
        self.polls.fetch_add(1, Ordering::Release);
        let _left = Left(&self.polls);
        code()
    }

    /// Returns a number that is the same during one call of user code; `None` while none runs.
    pub fn poll(&self) -> Option<u64> {
        let polls = self.polls.load(Ordering::Acquire);
        (polls % 2 == 1).then_some(polls)
    }

    /// The function whose code was entered last.
    pub fn function(&self) -> Option<Name> {
        self.inner().function
    }
}
