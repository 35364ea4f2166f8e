//! Hosts: the worker threads, and the choice of the one for the next attempt.
//!
//! Attempts go to threads that are not blocked. A thread that user code blocks is skipped, and its attempts that have
//! not begun move to other threads. If there are too few of these, an extra thread replaces it while it is blocked.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::prelude::*;
use hashbrown::HashMap;

use super::attempt::Attempt;
use super::messages::StartWorkers;
use super::pulse::Pulse;
use super::spin::Spin;
use super::worker::{WorkerHost, Workshop};
use crate::model::Name;
use crate::observe::{metrics, telemetry};

/// Hands attempts to the hosts. All loops share it; they run on one thread.
#[derive(Clone)]
pub(super) struct Spawner {
    pub hosts: Rc<RefCell<Hosts>>,
}

/// The interval of checks while attempts wait to begin. A thread that is in the same call of user code in two checks is
/// blocked.
const LOOK_SOON: Duration = Duration::from_millis(10);

/// The interval of checks while attempts run and none waits.
const LOOK: Duration = Duration::from_millis(100);

/// The time after which code that blocks its thread is reported.
const TELL_AFTER: Duration = Duration::from_millis(200);

/// The interval at which a function that blocks is logged; for as long, its attempts begin after others.
const TELL_AGAIN: Duration = Duration::from_secs(60);

/// The maximum number of threads beyond the configured ones.
const MOST_EXTRA: usize = 64;

/// The idle time after which a thread beyond the configured ones ends.
const EXTRA_IDLE: Duration = Duration::from_secs(1);

impl Spawner {
    /// Hands each thread its share, in one message.
    pub fn start(&self, attempts: Vec<Attempt>) {
        self.hosts.borrow_mut().start(attempts);
        self.look_later();
    }

    /// Sets a timer for the next check, unless one is due by then.
    fn look_later(&self) {
        let Some(at) = self.hosts.borrow_mut().next_look() else { return };
        let spawner = self.clone();
        actix::spawn(async move {
            tokio::time::sleep_until(at.into()).await;
            // Skip this if an earlier check was set since.
            if spawner.hosts.borrow().look_at == Some(at) {
                spawner.hosts.borrow_mut().look();
                spawner.look_later();
            }
        });
    }
}

pub(super) struct Hosts {
    workshop: Workshop,
    /// The hosts, in order of preference.
    hosts: Vec<Host>,
    /// The number of configured threads; 0 for the caller's own.
    threads: usize,
    /// The next host in the round-robin order.
    next: usize,
    /// The time of the next check.
    look_at: Option<Instant>,
    /// Functions that have blocked a thread, with the times when that was last seen and logged.
    blockers: HashMap<Name, Blocker>,
}

struct Host {
    addr: Addr<WorkerHost>,
    /// `None` for the host on the caller's own thread.
    arbiter: Option<ArbiterHandle>,
    pulse: Arc<Pulse>,
    /// The call of user code at the last check, and a time since when it has run at least.
    seen: Option<(u64, Instant)>,
    /// `true` while two checks find the same call of user code.
    is_blocked: bool,
    /// `true` if the current call of user code was reported.
    is_told: bool,
    /// The last time at which it had attempts.
    busy_at: Instant,
}

#[derive(Clone, Copy)]
struct Blocker {
    seen: Instant,
    logged: Option<Instant>,
}

impl Host {
    /// Checks whether the thread is blocked.
    fn look(&mut self, now: Instant) {
        if self.pulse.load() > 0 {
            self.busy_at = now;
        }
        match (self.pulse.poll(), self.seen) {
            (Some(poll), Some((seen, since))) if poll == seen => {
                self.is_blocked = now.duration_since(since) >= LOOK_SOON / 2;
            }
            (poll, _) => {
                self.seen = poll.map(|poll| (poll, now));
                (self.is_blocked, self.is_told) = (false, false);
            }
        }
    }

    /// Returns `true` if attempts that are handed to it begin soon.
    fn turns(&mut self) -> bool {
        if self.is_blocked && self.pulse.poll() != self.seen.map(|(poll, _)| poll) {
            (self.is_blocked, self.is_told, self.seen) = (false, false, None);
        }
        !self.is_blocked && self.addr.connected()
    }
}

impl Hosts {
    pub fn new(workshop: Workshop, arbiters: usize) -> std::io::Result<Hosts> {
        let mut hosts = Hosts {
            workshop,
            hosts: Vec::new(),
            threads: arbiters,
            next: 0,
            look_at: None,
            blockers: HashMap::new(),
        };
        for _ in 0..arbiters {
            let host = hosts.new_host()?;
            hosts.hosts.push(host);
        }
        if arbiters == 0 {
            let pulse = Arc::new(Pulse::default());
            let workshop = hosts.workshop.clone();
            let addr = WorkerHost::new(workshop, Spin::new(false), pulse.clone()).start();
            hosts.hosts.push(Host::new(addr, None, pulse));
        }
        Ok(hosts)
    }

    fn new_host(&self) -> std::io::Result<Host> {
        let arbiter = Arbiter::try_new()?.handle();
        let (workshop, pulse) = (self.workshop.clone(), Arc::new(Pulse::default()));
        let shared = pulse.clone();
        let addr = WorkerHost::start_in_arbiter(&arbiter, |_| {
            WorkerHost::new(workshop, Spin::new(true), shared)
        });
        Ok(Host::new(addr, Some(arbiter), pulse))
    }

    /// Returns the hosts for the next attempts: at most as many unblocked ones as there are configured threads.
    fn turning(&mut self) -> Vec<usize> {
        let hosts = self.hosts.iter_mut().enumerate();
        let turning = hosts.filter_map(|(number, host)| host.turns().then_some(number));
        turning.take(self.threads.max(1)).collect()
    }

    fn start(&mut self, attempts: Vec<Attempt>) {
        let mut turning = self.turning();
        if turning.len() < self.threads {
            self.replace_dead();
            turning = self.turning();
        }
        if turning.is_empty() {
            // Attempts wait at a blocked host until a check finds a thread for them.
            turning = (0..self.hosts.len().min(self.threads.max(1))).collect();
        }
        self.hand_over(attempts, &turning);
    }

    fn hand_over(&mut self, attempts: Vec<Attempt>, to: &[usize]) {
        if to.is_empty() {
            // The actors have stopped. The dropped attempts report themselves as lost.
            return;
        }
        let share = attempts.len().div_ceil(to.len());
        let mut attempts = attempts.into_iter();
        while attempts.len() > 0 {
            let host = &self.hosts[to[self.next % to.len()]];
            self.next = self.next.wrapping_add(1);
            let count = share.min(attempts.len());
            let part = attempts.by_ref().take(count);
            match self.blockers.is_empty() {
                true => host.pulse.put(part.map(|attempt| (attempt, false))),
                false => host.pulse.put(part.map(|attempt| {
                    let is_blocker = self.blockers.contains_key(&attempt.function());
                    (attempt, is_blocker)
                })),
            }
            // If the host is gone, they are taken back when it is replaced.
            host.addr.do_send(StartWorkers(count));
        }
    }

    /// Replaces threads that have ended.
    fn replace_dead(&mut self) {
        for number in 0..self.hosts.len() {
            if self.hosts[number].addr.connected() || self.hosts[number].arbiter.is_none() {
                continue;
            }
            match self.new_host() {
                Ok(new) => {
                    telemetry::host_replaced(number);
                    // Attempts that have not begun there move to the new thread.
                    let old = std::mem::replace(&mut self.hosts[number], new);
                    let left = old.pulse.take_all();
                    if !left.is_empty() {
                        self.hand_over(left, &[number]);
                    }
                }
                Err(error) => telemetry::host_not_replaced(number, &error),
            }
        }
    }

    /// Sets the time of the next check, if one is needed before the one that is set.
    fn next_look(&mut self) -> Option<Instant> {
        let now = Instant::now();
        if self.threads == 0 || self.look_at.is_some_and(|at| at <= now + LOOK_SOON) {
            return None;
        }
        let is_busy = self.hosts.iter().any(|host| host.pulse.load() > 0);
        let wait = match self.hosts.iter().any(|host| host.pulse.has_waiting()) {
            true => LOOK_SOON,
            false if is_busy || self.hosts.len() > self.threads => LOOK,
            false => return None,
        };
        if self.look_at.is_some_and(|at| at <= now + wait) {
            return None;
        }
        self.look_at = Some(now + wait);
        self.look_at
    }

    /// Checks which threads are blocked, moves the attempts that wait there, and reports code that blocks.
    fn look(&mut self) {
        let now = Instant::now();
        self.look_at = None;
        self.replace_dead();
        for number in 0..self.hosts.len() {
            self.hosts[number].look(now);
            if self.hosts[number].is_blocked {
                self.is_blocked(number, now);
            }
        }
        self.blockers.retain(|_, blocker| now.duration_since(blocker.seen) < TELL_AGAIN);
        let mut left = Vec::new();
        for host in self.hosts.iter().filter(|host| host.is_blocked) {
            left.extend(host.pulse.take_all());
            // The reports of ended attempts need not wait for the blocked thread.
            self.workshop.send(host.pulse.take_reports());
        }
        if !left.is_empty() {
            left.sort_by_key(|attempt| self.blockers.contains_key(&attempt.function()));
            self.start_elsewhere(left);
        }
        self.end_extra(now);
    }

    /// Records the function that blocks a thread, and reports it if it blocks for long.
    fn is_blocked(&mut self, number: usize, now: Instant) {
        let host = &mut self.hosts[number];
        let Some((function, (poll, since))) = host.pulse.function().zip(host.seen) else { return };
        // The next call may have begun already.
        if host.pulse.poll() != Some(poll) {
            return;
        }
        let blocker = self.blockers.entry(function).or_insert(Blocker { seen: now, logged: None });
        blocker.seen = now;
        let blocked = now.duration_since(since);
        if blocked < TELL_AFTER || std::mem::replace(&mut host.is_told, true) {
            return;
        }
        metrics::blocked_thread(function);
        if blocker.logged.is_none_or(|logged| now.duration_since(logged) >= TELL_AGAIN) {
            blocker.logged = Some(now);
            telemetry::thread_blocked(function, blocked);
        }
    }

    /// Starts attempts that were taken back from blocked threads.
    fn start_elsewhere(&mut self, attempts: Vec<Attempt>) {
        let mut turning = self.turning();
        while turning.len() < self.threads && self.hosts.len() < self.threads + MOST_EXTRA {
            match self.new_host() {
                Ok(host) => self.hosts.push(host),
                Err(error) => {
                    telemetry::host_not_replaced(self.hosts.len(), &error);
                    break;
                }
            }
            turning = self.turning();
        }
        match turning.is_empty() {
            true => self.start(attempts),
            false => self.hand_over(attempts, &turning),
        }
    }

    /// Ends idle threads beyond the configured ones.
    fn end_extra(&mut self, now: Instant) {
        while self.hosts.len() > self.threads {
            let is_idle = |host: &Host| {
                host.pulse.load() == 0 && now.duration_since(host.busy_at) >= EXTRA_IDLE
            };
            let Some(number) = self.hosts.iter().rposition(is_idle) else { return };
            let host = self.hosts.remove(number);
            if let Some(arbiter) = host.arbiter {
                arbiter.stop();
            }
        }
    }

    /// Stops every thread. The host on the caller's own thread ends when its last address is dropped.
    pub fn end(&mut self) {
        for arbiter in self.hosts.drain(..).filter_map(|host| host.arbiter) {
            arbiter.stop();
        }
    }
}

impl Host {
    fn new(addr: Addr<WorkerHost>, arbiter: Option<ArbiterHandle>, pulse: Arc<Pulse>) -> Host {
        Host {
            addr,
            arbiter,
            pulse,
            seen: None,
            is_blocked: false,
            is_told: false,
            busy_at: Instant::now(),
        }
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        self.end();
    }
}
