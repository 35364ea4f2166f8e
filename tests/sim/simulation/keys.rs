//! Keys of jobs: which rules a pool has for them, and what may start.

use std::collections::HashMap;
use std::time::Duration;

use actix_workpool::model::{PoolId, StartPlace};
use actix_workpool::storage::{Storage, StorageError};
use actix_workpool::{KeyRule, PoolConfig, PoolError, Rate, Workpool};

use super::clients::Callers;
use super::plan::{Plan, mixed, pick};
use super::world::{Ack, End, How, Kind, Micros, Rest, Work, World, millis, trace, with};

/// Behind a change of the rules, jobs that were started before it may still begin for so long.
const FORGIVEN: Micros = millis(15_000);

/// How many jobs of a key may start before one of another key that could, besides those that were decided before.
const ROUND: u32 = 3;

/// The keys of a pool.
#[derive(Default)]
pub struct Keys {
    /// The rules that may hold, each until when; the last one is the latest.
    rules: Vec<(KeyRule, Micros)>,
    /// Since which moment the rules are certain; `None` while a change is under way.
    since: Option<u64>,
    /// When they last changed.
    changed: Micros,
    keys: HashMap<u8, Key>,
}

#[derive(Default)]
struct Key {
    /// When something last happened that may let another job in.
    last: Micros,
    /// When its jobs were started, by the pool's clock.
    starts: Vec<Micros>,
    rest: Option<Rest>,
    /// How many of its jobs have started since each of these, which are of other keys, could have.
    passed: HashMap<u32, u32>,
}

pub fn rule(number: u64) -> KeyRule {
    let default = KeyRule::default();
    match number % 8 {
        0 => default,
        1 => default.parallelism(1),
        2 => default.parallelism(2),
        3 | 4 => KeyRule::ordered(),
        5 => KeyRule::ordered().rate(Rate::per_second(5)),
        6 => default.parallelism(3).rate(Rate::per_second(10).burst(2)),
        _ => default.rate(Rate::per_second(20).burst(3)),
    }
}

impl Plan {
    /// The key of a job, if its pool has some.
    pub fn key(&self, seed: u64, pool: usize, number: u32, kind: Kind) -> Option<u8> {
        self.pools[pool].key_rule.filter(|_| kind.is_action())?;
        let drawn = mixed(seed, 5_000_000 + u64::from(number)) % 6;
        [Some(0), Some(0), Some(0), Some(1), Some(2), None][drawn as usize]
    }
}

impl Keys {
    pub fn new(rule: Option<KeyRule>) -> Keys {
        let rules = vec![(rule.unwrap_or_default(), Micros::MAX)];
        Keys { rules, since: Some(0), changed: 0, keys: HashMap::new() }
    }

    /// A rule may hold from now on.
    fn ask(&mut self, rule: KeyRule, now: Micros) {
        self.rules.push((rule, Micros::MAX));
        self.changed = now;
    }

    /// A rule is certain.
    fn set(&mut self, rule: KeyRule, now: Micros) {
        for (_, until) in &mut self.rules {
            *until = (*until).min(now + FORGIVEN);
        }
        self.rules.push((rule, Micros::MAX));
        self.changed = now;
    }

    /// The rules that may hold.
    fn now(&self, now: Micros) -> impl Iterator<Item = KeyRule> {
        self.rules.iter().filter(move |(_, until)| *until > now).map(|(rule, _)| *rule)
    }
}

impl Work {
    /// It certainly has no outcome, and waits.
    fn surely_waits(&self, life: u32, crashes: u32) -> bool {
        let here = self.ack == Ack::Acked && !self.cancel_sent && self.seen.is_none();
        here && !self.told_finished
            && match self.starts.last() {
                None => self.sent_life == life,
                Some(start) if start.life != life => false,
                Some(start) => start.ended.is_some_and(|ended| match ended.how {
                    How::Returned(
                        End::Snooze { .. } | End::LimitPool { .. } | End::LimitKey { .. },
                    ) => true,
                    How::Returned(End::Error { retryable: true, .. }) => {
                        let most = self.counted(crashes, false).1;
                        self.retry.is_some_and(|retry| most < retry.max_attempts)
                    }
                    _ => false,
                }),
            }
    }
}

impl World {
    /// Whether any job has a key.
    pub fn has_keys(&self) -> bool {
        self.plan.pools.iter().any(|pool| pool.key_rule.is_some())
    }

    /// Something has happened that may let in another job of the key of this one.
    pub fn key_moved(&mut self, number: u32) {
        let now = self.now();
        let work = &self.works[number as usize];
        if let Some(key) = work.key {
            self.pools[work.pool].keys.keys.entry(key).or_default().last = now;
        }
    }

    /// Whether jobs of this key were held back by a rest: what was ready and was put aside has lost its place.
    pub fn has_rested(&self, pool: usize, key: Option<u8>) -> bool {
        let of = key.and_then(|key| self.pools[pool].keys.keys.get(&key));
        of.is_some_and(|of| of.rest.is_some())
    }

    /// Until when a job may have been held back by its key, and for how long after that.
    pub fn held_by_key(&self, number: u32) -> Micros {
        let (now, work) = (self.now(), &self.works[number as usize]);
        let Some(key) = work.key else { return 0 };
        let keys = &self.pools[work.pool].keys;
        // Without a limit, nothing but a rest of the key holds up a job.
        let is_limited =
            |rule: KeyRule| rule.max_parallelism().is_some() || rule.max_rate().is_some();
        let limited = keys.now(now).any(is_limited);
        let held = keys.keys.get(&key).map_or(0, |of| {
            let last = if limited { of.last } else { 0 };
            last.max(of.rest.map_or(0, |rest| rest.ends))
        });
        held.max(keys.changed)
    }

    /// An attempt of a job with a key starts: may it? It is not in `starts` yet.
    pub fn is_let_in(&mut self, number: u32, now: Micros, by_pool_clock: Micros) {
        let work = &self.works[number as usize];
        let Some(key) = work.key else { return self.has_turns(number) };
        let (pool, sent, acked) = (work.pool, work.sent_moment, work.acked_moment);
        let keys = &self.pools[pool].keys;
        let others = || {
            let works = (0..).zip(&self.works);
            works
                .filter(|(it, other)| *it != number && other.pool == pool && other.key == Some(key))
        };
        let running = others().filter(|(_, other)| other.runs()).count() as u32;
        let limits = keys.now(now).map(|rule| rule.max_parallelism().unwrap_or(u32::MAX));
        let limit = limits.max().unwrap_or(u32::MAX);
        if running >= limit {
            let running = running + 1;
            let what = format!("{running} of the key of {number} run, {limit} may");
            return self.violate(what);
        }
        let ordered = keys.since.filter(|_| keys.now(now).all(|rule| rule.is_ordered()));
        let first = self.works[number as usize].starts.is_empty();
        if let Some(since) = ordered.filter(|_| first && acked > 0) {
            let (life, crashes) = (self.life, self.crashes);
            let before = others().find(|(_, other)| {
                other.sent_moment > since
                    && other.acked_moment < sent
                    && other.surely_waits(life, crashes)
            });
            if let Some((before, _)) = before {
                let what = format!("job {number} starts before {before} of its key has ended");
                return self.violate(what);
            }
        }
        self.key_rests(number, key, now, by_pool_clock);
        self.has_turns(number);
    }

    /// Does the rate of a key admit a start?
    fn key_rests(&mut self, number: u32, key: u8, now: Micros, by_pool_clock: Micros) {
        let exact = !self.plan.stalls && !self.plan.wall_jumps && self.plan.faults.late == 0;
        let (disorder, disturbed) = (self.disorder, self.is_disturbed());
        let pool = self.works[number as usize].pool;
        let keys = &mut self.pools[pool].keys;
        let rules: Vec<_> = keys.now(now).collect();
        let of = keys.keys.entry(key).or_default();
        of.last = now;
        if !exact {
            return;
        }
        let rests = of.rest.filter(|rest| {
            by_pool_clock > rest.from + millis(1_000) && by_pool_clock + millis(2) < rest.until
        });
        if rests.is_some_and(|rest| rest.disorder == disorder) && !disturbed {
            return self.violate(format_args!("job {number} starts while its key rests"));
        }
        let [rule] = rules[..] else { return of.starts.clear() };
        if disturbed {
            return of.starts.clear();
        }
        let Some(rate) = rule.max_rate() else { return };
        let interval = rate.interval().as_micros() as Micros;
        of.starts.push(by_pool_clock);
        let (slack, burst) = (millis(50), Micros::from(rate.max_burst()));
        for (count, from) in (1..).zip(of.starts.iter().rev()) {
            let most = burst + (by_pool_clock - from + slack) / interval;
            if count > most {
                let ms = (by_pool_clock - from) / 1_000;
                let what = format!("{count} jobs of a key start in {ms} ms, {rate} may");
                return self.violate(what);
            }
        }
    }

    /// Does a job that starts take the turn of another key?
    fn has_turns(&mut self, number: u32) {
        let now = self.now();
        let (life, disorder) = (self.life, self.disorder);
        let work = &self.works[number as usize];
        let (at, key, priority) = (work.pool, work.key, work.priority);
        let pool = &self.pools[at];
        // Those that wait for a retry or for their time come before those that are ready.
        // Jobs without keys take turns with all that have some.
        let counts = key.is_some() && work.starts.is_empty() && pool.queue.contains(&number);
        let slots = pool.slots() as u32;
        if !counts || self.plan.pools[at].aging.is_some() {
            return;
        }
        let ready = pool.queue.iter().copied().filter(|other| {
            let other = &self.works[*other as usize];
            let alone = other.key.is_none_or(|key| {
                let same =
                    |it: &Work| it.pool == at && it.key == Some(key) && it.ack != Ack::Refused;
                let others = self.works.iter().filter(|it| same(it));
                let sent = others.filter(|it| it.ack != Ack::Planned && it.seen.is_none()).count();
                let rests = pool.keys.keys.get(&key).is_some_and(|key| key.rest.is_some());
                sent == 1 && !rests && pool.keys.now(now).all(|rule| rule.max_rate().is_none())
            });
            let waits = other.starts.is_empty() && !other.cancel_sent && other.seen.is_none();
            other.key.is_some()
                && other.key != key
                && alone
                && waits
                && other.priority == priority
                && (other.order, other.sent_life) == (disorder, life)
        });
        let ready: Vec<_> = ready.collect();
        let Some(key) = key else { return };
        let of = self.pools[at].keys.keys.entry(key).or_default();
        of.passed.retain(|other, _| ready.contains(other));
        let mut late = None;
        for other in ready {
            let passed = of.passed.entry(other).or_default();
            *passed += 1;
            if *passed > ROUND + slots {
                late = Some((other, *passed));
            }
        }
        if let Some((other, passed)) = late {
            let what =
                format!("{passed} jobs of the key of {number} start, and {other} has no turn");
            self.violate(what);
        }
    }

    /// An attempt has ended.
    pub fn key_left(&mut self, number: u32, how: How, arrives: Micros) {
        self.key_moved(number);
        let (now, by_pool_clock, disorder) = (self.now(), self.pool_now(), self.disorder);
        let work = &self.works[number as usize];
        if let (How::Returned(End::LimitKey { ms }), Some(key)) = (how, work.key) {
            let of = self.pools[work.pool].keys.keys.entry(key).or_default();
            let (from, until) = (by_pool_clock, by_pool_clock + millis(ms));
            let ends = (now + millis(ms) + arrives).max(of.rest.map_or(0, |rest| rest.ends));
            of.rest = Some(Rest { from, until, ends, disorder });
        }
    }

    /// A pool was started with this rule.
    pub fn found_rule(&mut self, pool: usize, found: KeyRule) {
        let (now, moment) = (self.now(), self.tick());
        let keys = &mut self.pools[pool].keys;
        if !keys.rules.iter().any(|(rule, _)| *rule == found) {
            return self.violate(format_args!("pool {pool} starts with the rule {found:?}"));
        }
        keys.set(found, now);
        if keys.since.is_none() {
            keys.since = Some(moment);
        }
    }
}

/// Changes the rules of a pool.
pub async fn change(callers: &Callers, pool: usize) {
    let asked = with(|world| {
        let rule = rule(pick(&mut world.rng, &[0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7]));
        let now = world.now();
        world.plan.pools[pool].key_rule?;
        // Of two that ask at once, nobody knows the last.
        world.pools[pool].keys.since.take()?;
        let before = world.pools[pool].keys.rules.last()?.0;
        world.pools[pool].keys.ask(rule, now);
        world.disorder += 1;
        trace!(world, "rule of {pool}: {rule:?}");
        Some((rule, before))
    });
    if let Some((rule, before)) = asked {
        set(&callers.pools[pool], pool, rule, before).await;
    }
}

async fn set(workpool: &Workpool, pool: usize, rule: KeyRule, before: KeyRule) {
    let answer = workpool.update(PoolConfig::default().per_key(rule)).await;
    with(|world| {
        if world.dead {
            return;
        }
        trace!(world, "rule of {pool}: {answer:?}");
        let (now, moment) = (world.now(), world.tick());
        world.disorder += 1;
        let keys = &mut world.pools[pool].keys;
        match answer {
            Ok(()) => {
                keys.set(rule, now);
                keys.since = Some(moment);
            }
            Err(PoolError::Closed | PoolError::Storage(StorageError::Poisoned(_))) => {}
            Err(_) => {
                keys.set(before, now);
                keys.since = Some(moment);
            }
        }
    });
}

/// Says what is wrong with the rows of lanes: each counts the jobs of its key.
pub fn lanes_are_right(storage: &mut dyn Storage) -> Result<Result<(), String>, StorageError> {
    if !with(|world| world.has_keys()) {
        return Ok(Ok(()));
    }
    for pool in (0..with(|world| world.pools.len() as u32)).map(PoolId) {
        let mut counted: HashMap<Vec<u8>, [u32; 3]> = HashMap::new();
        let ids = storage.works(pool, None, usize::MAX)?;
        for work in storage.facts(&ids)?.into_iter().flatten() {
            let Some(key) = work.spec.key() else { continue };
            let counts = counted.entry(key.to_vec()).or_default();
            match work.pending_start.map(|key| key.place) {
                None => {
                    counts[0] += 1;
                    counts[1] += 1;
                }
                Some(StartPlace::Held | StartPlace::Ready { .. }) => counts[0] += 1,
                Some(StartPlace::Lane) => counts[2] += 1,
                Some(StartPlace::Queue) => {}
            }
        }
        for (place, row) in storage.lane_rows(pool, None, usize::MAX)? {
            let counts = counted.remove(place.key.as_bytes()).unwrap_or_default();
            if counts != [row.holders, row.running, row.waiting] {
                return Ok(Err(format!("a lane of {pool:?} has {counts:?}, and counts {row:?}")));
            }
        }
        if let Some((_, counts)) = counted.iter().find(|(_, counts)| **counts != [0; 3]) {
            return Ok(Err(format!("a lane of {pool:?} has {counts:?}, and no row")));
        }
    }
    Ok(Ok(()))
}

/// How long the drain may take longer because of keys: the jobs of each come one after another.
pub fn slower(world: &World) -> Duration {
    let count = world.works.iter().filter(|work| work.key.is_some()).count() as u32;
    Duration::from_millis(250) * count
}
