//! Hosts: the worker threads, and which of them gets the next attempt.
//!
//! Attempts go to threads that turn. A thread whose user code does not give it back is passed over, the attempts that
//! have not begun there go to others, and if none is left another thread takes its place for as long as it lasts.

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

/// Hands attempts to the hosts. All loops share them; they live on one thread.
#[derive(Clone)]
pub(super) struct Spawner {
    pub hosts: Rc<RefCell<Hosts>>,
}

/// While attempts wait to begin, the threads are looked at this often. One that is in the same piece of user code in
/// two looks does not turn.
const LOOK_SOON: Duration = Duration::from_millis(10);

/// While attempts run and none waits.
const LOOK: Duration = Duration::from_millis(100);

/// Code that keeps its thread for this long is told of.
const TELL_AFTER: Duration = Duration::from_millis(200);

/// A function that blocks is logged once in this time, and for as long its attempts begin behind others.
const TELL_AGAIN: Duration = Duration::from_secs(60);

/// The number of threads beyond the configured ones, at most.
const MOST_EXTRA: usize = 64;

/// A thread beyond the configured ones ends when it has had nothing to do for this long.
const EXTRA_IDLE: Duration = Duration::from_secs(1);

impl Spawner {
    /// Hands each thread its share, in one message.
    pub fn start(&self, attempts: Vec<Attempt>) {
        self.hosts.borrow_mut().start(attempts);
        self.look_later();
    }

    /// Sets a timer for the next look, unless one is due by then.
    fn look_later(&self) {
        let Some(at) = self.hosts.borrow_mut().next_look() else { return };
        let spawner = self.clone();
        actix::spawn(async move {
            tokio::time::sleep_until(at.into()).await;
            // Unless a sooner one was set meanwhile.
            if spawner.hosts.borrow().look_at == Some(at) {
                spawner.hosts.borrow_mut().look();
                spawner.look_later();
            }
        });
    }
}

pub(super) struct Hosts {
    workshop: Workshop,
    /// The hosts; those in front are preferred.
    hosts: Vec<Host>,
    /// The number of threads that were configured; 0 for the caller's own.
    threads: usize,
    /// Whose turn it is.
    next: usize,
    /// The time of the next look.
    look_at: Option<Instant>,
    /// Functions that have blocked a thread, and when that was last seen and logged.
    blockers: HashMap<Name, Blocker>,
}

struct Host {
    addr: Addr<WorkerHost>,
    /// `None` for the one on the caller's own thread.
    arbiter: Option<ArbiterHandle>,
    pulse: Arc<Pulse>,
    /// The piece of user code that it was in at the last look, and since when at least.
    seen: Option<(u64, Instant)>,
    /// Set while it is in the same piece of user code in two looks.
    is_blocked: bool,
    /// `true` if the piece of user code that it is in was logged.
    is_told: bool,
    /// The last time at which it had something to do.
    busy_at: Instant,
}

#[derive(Clone, Copy)]
struct Blocker {
    seen: Instant,
    logged: Option<Instant>,
}

impl Host {
    /// Looks whether the thread turns.
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

    /// The hosts that get the next attempts: as many of those that turn as there are threads configured.
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
            // They wait where they are handed, until a look finds them a thread.
            turning = (0..self.hosts.len().min(self.threads.max(1))).collect();
        }
        self.hand_over(attempts, &turning);
    }

    fn hand_over(&mut self, attempts: Vec<Attempt>, to: &[usize]) {
        if to.is_empty() {
            // The ring has ended: dropped, they report themselves as lost.
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
            // From a host that is gone they are taken back when it is replaced.
            host.addr.do_send(StartWorkers(count));
        }
    }

    /// Puts new threads in the place of those that have ended.
    fn replace_dead(&mut self) {
        for number in 0..self.hosts.len() {
            if self.hosts[number].addr.connected() || self.hosts[number].arbiter.is_none() {
                continue;
            }
            match self.new_host() {
                Ok(new) => {
                    telemetry::host_replaced(number);
                    // What has not begun there begins elsewhere.
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

    /// Sets the time of the next look, if one is needed before the one that is set.
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

    /// Looks which threads turn, finds others for attempts that wait on those that do not, and tells of code that
    /// blocks.
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
            // Whoever has ended there does not wait for the thread.
            self.workshop.send(host.pulse.take_reports());
        }
        if !left.is_empty() {
            left.sort_by_key(|attempt| self.blockers.contains_key(&attempt.function()));
            self.start_elsewhere(left);
        }
        self.end_extra(now);
    }

    /// Notes which function keeps a thread, and tells of it if that takes long.
    fn is_blocked(&mut self, number: usize, now: Instant) {
        let host = &mut self.hosts[number];
        let Some((function, (poll, since))) = host.pulse.function().zip(host.seen) else { return };
        // What it is in now may be the next piece already.
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

    /// Starts attempts that were taken back from threads that do not turn.
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

    /// Ends threads beyond the configured ones that have nothing to do any more.
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

    /// Stops every thread. The host on the caller's own thread ends with its last address.
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
