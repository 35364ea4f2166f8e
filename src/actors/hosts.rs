//! Where workers live: the worker arbiters, and who gets the next attempt.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use actix::prelude::*;

use super::attempt::Attempt;
use super::messages::{Retire, StartWorkers};
use super::spin::Spin;
use super::worker::{WorkerHost, Workshop};
use crate::observe::telemetry;

/// Where attempts are started. All loops share the hosts; they live on one thread.
pub(super) struct Spawner {
    pub hosts: Rc<RefCell<Hosts>>,
}

impl Spawner {
    /// Hands each host its share, in one message.
    pub fn start(&self, attempts: Vec<Attempt>) {
        self.hosts.borrow_mut().start(attempts);
    }

    /// Puts a new host in the place of one whose thread does not come back. The old one goes on with what it has.
    pub fn replace_stuck(&self, host: usize) {
        self.hosts.borrow_mut().replace(host);
    }
}

pub(super) struct Hosts {
    workshop: Workshop,
    hosts: Vec<Host>,
    /// Hosts that were replaced: to be stopped in the end.
    retired: Vec<ArbiterHandle>,
    /// Whose turn it is.
    next: usize,
}

struct Host {
    addr: Addr<WorkerHost>,
    /// `None` for the one on the caller's own thread.
    arbiter: Option<ArbiterHandle>,
    since: Instant,
}

/// A stuck host that was just replaced is not replaced again for this long: its attempts are given up one by one.
const REPLACE_PAUSE: Duration = Duration::from_secs(1);

impl Hosts {
    pub fn new(workshop: Workshop, arbiters: usize) -> std::io::Result<Hosts> {
        let mut hosts = Hosts { workshop, hosts: Vec::new(), retired: Vec::new(), next: 0 };
        for _ in 0..arbiters {
            let host = hosts.new_host()?;
            hosts.hosts.push(host);
        }
        if arbiters == 0 {
            let addr = WorkerHost::new(hosts.workshop.clone(), Spin::new(false)).start();
            hosts.hosts.push(Host { addr, arbiter: None, since: Instant::now() });
        }
        Ok(hosts)
    }

    fn new_host(&self) -> std::io::Result<Host> {
        let arbiter = Arbiter::try_new()?.handle();
        let workshop = self.workshop.clone();
        let addr =
            WorkerHost::start_in_arbiter(&arbiter, |_| WorkerHost::new(workshop, Spin::new(true)));
        Ok(Host { addr, arbiter: Some(arbiter), since: Instant::now() })
    }

    fn start(&mut self, attempts: Vec<Attempt>) {
        let count = self.hosts.len();
        let share = attempts.len().div_ceil(count);
        let mut attempts = attempts.into_iter();
        while attempts.len() > 0 {
            let host = self.next % count;
            self.next = self.next.wrapping_add(1);
            if !self.hosts[host].addr.connected() {
                self.replace(host);
            }
            let part: Vec<_> = attempts.by_ref().take(share).collect();
            for attempt in &part {
                attempt.set_host(host);
            }
            // To a host that is gone this drops the attempts, and they report themselves as lost.
            self.hosts[host].addr.do_send(StartWorkers(part));
        }
    }

    fn replace(&mut self, host: usize) {
        let Host { addr, arbiter, since } = &self.hosts[host];
        let just_replaced = addr.connected() && since.elapsed() < REPLACE_PAUSE;
        if arbiter.is_none() || just_replaced {
            return;
        }
        match self.new_host() {
            Ok(new) => {
                let old = std::mem::replace(&mut self.hosts[host], new);
                telemetry::host_replaced(host, old.addr.connected());
                old.addr.do_send(Retire);
                self.retired.retain(ArbiterHandle::alive);
                self.retired.extend(old.arbiter);
            }
            Err(error) => telemetry::host_not_replaced(host, &error),
        }
    }

    /// Stops every thread. The host on the caller's own thread ends with its last address.
    pub fn end(&mut self) {
        for arbiter in
            self.hosts.drain(..).filter_map(|host| host.arbiter).chain(self.retired.drain(..))
        {
            arbiter.stop();
        }
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        self.end();
    }
}
