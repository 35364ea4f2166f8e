//! What a seed draws before it begins.

use std::time::Duration;

use actix_workpool::{KeyRule, PoolConfig, Priority, Rate, Retention, RetryBehavior};
use fastrand::Rng;

use super::world::{Act, End};

/// The names of the pools.
pub const POOLS: [&str; 3] = ["p0", "p1", "p2"];

/// What the rows are kept in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Store {
    Memory,
    /// The durable store, on a simulated disk.
    File,
}

/// What holds for a whole seed.
#[derive(Clone, Debug)]
pub struct Plan {
    pub pools: Vec<PoolPlan>,
    pub clients: usize,
    /// How many things callers do in all.
    pub ops: u32,
    /// Callers pause up to this long between two things that they do.
    pub pause_ms: u64,
    /// At most this many lives before the last one.
    pub lives: u32,
    /// How long a life lasts at most.
    pub life_ms: u64,
    pub retention: Retention,
    pub faults: FaultPlan,
    /// Whether the wall clock is set now and then.
    pub wall_jumps: bool,
    /// Whether the process stands still now and then.
    pub stalls: bool,
    /// Which accounts transfers are between: few, so that they meet.
    pub accounts: u64,
    /// How likely a function misbehaves, of 100.
    pub misbehaves: u64,
    /// How likely a job has an `on_complete`, of 100.
    pub on_completes: u64,
    /// The weights of what callers do; see `clients`.
    pub weights: [u64; 19],
    /// Whether jobs have priorities.
    pub priorities: bool,
    /// Whether functions ask that their pool rests.
    pub rests: bool,
    /// The period of the schedules, if there are any.
    pub schedules: Option<Duration>,
    pub store: Store,
    /// On a file, a checkpoint is written up to so many calls of the store after it has begun.
    pub checkpoints_within: u32,
}

#[derive(Clone, Debug)]
pub struct PoolPlan {
    pub parallelism: usize,
    pub max_pending: u64,
    pub rate: Option<Rate>,
    pub aging: Option<Duration>,
    /// The rules for each key, if its jobs have some.
    pub key_rule: Option<KeyRule>,
}

/// How likely a call of the storage fails, of 1000, while something is wrong with it.
#[derive(Clone, Copy, Debug, Default)]
pub struct FaultPlan {
    /// Nothing is written.
    pub refuse: u64,
    /// Everything is written, and the answer is lost.
    pub answer_lost: u64,
    /// Another writer was faster.
    pub conflict: u64,
    pub read: u64,
    /// Whether the storage is full now and then.
    pub full: bool,
    /// Whether the disk under a file fails now and then.
    pub disk: bool,
    /// How likely a message between loops, workers and the store is late, whatever else is wrong; a report may also
    /// come twice. One in eight as often a worker is lost when it waits.
    pub late: u64,
    /// How often something begins to be wrong: pauses of up to this long.
    pub every_ms: u64,
    /// For how long.
    pub for_ms: u64,
}

impl Plan {
    pub fn draw(seed: u64) -> Plan {
        let mut rng = Rng::with_seed(seed ^ 0x9e37_79b9_7f4a_7c15);
        let rng = &mut rng;
        let pools = (0..1 + below(rng, 3).min(below(rng, 3))).map(|_| PoolPlan {
            parallelism: pick(rng, &[1, 1, 2, 3, 5, 10, 40]),
            max_pending: pick(rng, &[10_000, 10_000, 10_000, 20, 5]),
            rate: None,
            aging: None,
            key_rule: None,
        });
        let mut pools: Vec<PoolPlan> = pools.collect();
        for (number, pool) in (0..).zip(&mut pools) {
            // Not drawn, as all that came later: seeds that found something before go the same way still.
            let rate = |rate: Rate, burst| Some(rate.burst(burst));
            pool.rate = match mixed(seed, number) % 9 {
                0 => rate(Rate::per_second(10), 1),
                1 => rate(Rate::per_second(20), 7),
                2 => rate(Rate::per_second(300), 3),
                _ => None,
            };
            let aging = mixed(seed, 10 + number).is_multiple_of(8);
            pool.aging = aging.then_some(Duration::from_millis(100));
            let has_keys = mixed(seed, 60 + number).is_multiple_of(3);
            pool.key_rule = has_keys.then(|| super::keys::rule(mixed(seed, 70 + number)));
        }
        let pause_ms = pick(rng, &[3, 50, 500, 2_000, 20_000]);
        let most_ops = pick(rng, &[30, 80, 160]);
        let ops = rng.u32(5..most_ops);
        let clients = 1 + below(rng, 4) as usize;
        let lives = pick(rng, &[0, 1, 2, 4, 8]);
        let length = u64::from(ops) * pause_ms / 2 / clients as u64;
        let retention = match below(rng, 4) {
            0 => Retention::FOREVER.max_age(Duration::from_secs(120)),
            1 => Retention::FOREVER.max_count(3),
            _ => Retention::FOREVER,
        };
        let faulty = rng.bool();
        let mut per_mille = |most: &[u64]| if faulty { pick(rng, most) } else { 0 };
        let faults = FaultPlan {
            refuse: per_mille(&[0, 20, 200, 500]),
            answer_lost: per_mille(&[0, 20, 200, 500]),
            conflict: per_mille(&[0, 0, 100]),
            read: per_mille(&[0, 0, 20, 200]),
            full: per_mille(&[0, 1]) == 1,
            disk: false,
            // Not drawn: most seeds that found something before there was this go the same way still.
            late: [0, 100, 0, 50, 0, 100, 0, 200][(seed % 8) as usize],
            every_ms: pick(rng, &[500, 5_000, 60_000]),
            for_ms: pick(rng, &[50, 1_000, 20_000]),
        };
        let mut plan = Plan {
            pools,
            clients,
            ops,
            pause_ms,
            lives,
            life_ms: 20 + 2 * length / u64::from(lives + 1),
            retention,
            faults,
            wall_jumps: below(rng, 3) == 0,
            stalls: below(rng, 4) == 0,
            accounts: 1 + below(rng, 6),
            misbehaves: pick(rng, &[0, 10, 40, 80]),
            on_completes: pick(rng, &[0, 20, 80]),
            weights: std::array::from_fn(|op| match op {
                0 => 30,
                1..=3 => pick(rng, &[0, 5, 20]),
                // Not drawn: seeds that found something before there was `run_now` go the same way still.
                14 => [0, 2, 6][(seed % 3) as usize],
                17 => [0, 0, 0, 12, 30][(mixed(seed, 23) % 5) as usize],
                15 => [0, 0, 4, 12][(mixed(seed, 21) % 4) as usize],
                16 => [0, 4, 0, 12][(mixed(seed, 31) % 4) as usize],
                18 => [0, 0, 6, 20][(mixed(seed, 71) % 4) as usize],
                _ => pick(rng, &[0, 2, 6]),
            }),
            priorities: mixed(seed, 20).is_multiple_of(2),
            rests: mixed(seed, 22).is_multiple_of(3),
            schedules: match mixed(seed, 30) % 12 {
                0 => Some(Duration::from_secs(1)),
                1 => Some(Duration::from_secs(7)),
                2 => Some(Duration::from_secs(60)),
                3 | 4 => Some(Duration::from_secs(600)),
                _ => None,
            },
            store: pick(rng, &[Store::Memory, Store::File]),
            checkpoints_within: 0,
        };
        plan.faults.disk = below(rng, 3) == 0;
        plan.checkpoints_within = pick(rng, &[0, 5, 50]);
        if mixed(seed, 40).is_multiple_of(6) {
            // Many crashes of a file: what is only seen when a frame is torn is rare.
            (plan.store, plan.lives) = (Store::File, 8);
        }
        plan
    }

    pub fn small(seed: u64) -> Plan {
        Plan {
            pools: vec![PoolPlan {
                parallelism: 4,
                max_pending: 10_000,
                rate: None,
                aging: None,
                key_rule: None,
            }],
            clients: 1,
            ops: 60,
            pause_ms: 20_000,
            lives: 2,
            life_ms: 400_000,
            retention: Retention::FOREVER,
            faults: FaultPlan::default(),
            wall_jumps: false,
            stalls: false,
            store: Store::Memory,
            ..Plan::draw(seed)
        }
    }

    /// The configuration with which a pool is first created.
    pub fn config(&self, pool: usize) -> PoolConfig {
        let PoolPlan { parallelism, max_pending, rate, aging, key_rule } = self.pools[pool];
        let config = PoolConfig::default().max_parallelism(parallelism).max_pending(max_pending);
        let config = rate.map_or(config.clone(), |rate| config.rate(rate));
        let config = aging.map_or(config.clone(), |span| config.aging(span));
        key_rule.map_or(config.clone(), |rule| config.per_key(rule))
    }

    /// The priority of a job.
    pub fn priority(&self, seed: u64, number: u32) -> Priority {
        match mixed(seed, 1_000 + u64::from(number)) % 6 {
            _ if !self.priorities => Priority::NORMAL,
            0 => Priority::HIGH,
            1 => Priority::LOW,
            2 => Priority::new(-128),
            _ => Priority::NORMAL,
        }
    }

    /// How many starts the start of a job counts as.
    pub fn cost(&self, pool: usize, number: u32) -> u32 {
        let burst = self.pools[pool].rate.map_or(1, |rate| rate.max_burst());
        1 + (number % 5 / 4) * (burst - 1).min(2)
    }

    /// The retry policy of a job.
    pub fn retry(&self, rng: &mut Rng) -> Option<RetryBehavior> {
        let behavior = RetryBehavior::new()
            .max_attempts(pick(rng, &[1, 2, 3, 5]))
            .initial_backoff(Duration::from_millis(pick(rng, &[0, 5, 250, 3_000])))
            .base(pick(rng, &[1.0, 2.0]));
        (below(rng, 4) > 0).then_some(behavior)
    }

    /// What the attempts of a job do, one after the other; the last one of them again and again.
    pub fn acts(&self, rng: &mut Rng, has_timeout: bool) -> Vec<Act> {
        let mut acts = Vec::new();
        loop {
            let misbehaves = below(rng, 100) < self.misbehaves;
            let mut end = End::Success;
            if misbehaves {
                end = match below(rng, 12) {
                    0..=3 => End::Error { retryable: true, after_ms: None },
                    4 => End::Error { retryable: false, after_ms: None },
                    5 => End::Error { retryable: true, after_ms: Some(rng.u64(0..5_000)) },
                    6 | 7 => End::Panic,
                    8 | 9 => {
                        let ms = rng.u64(0..4_000);
                        match (self.rests, ms % 4) {
                            (true, 0) => End::LimitPool { ms },
                            (true, 1 | 2) => End::LimitKey { ms: 3 * ms },
                            _ => End::Snooze { ms },
                        }
                    }
                    10 if has_timeout => End::Hang,
                    10 => End::Error { retryable: true, after_ms: None },
                    _ => End::Canceled,
                };
            }
            acts.push(Act {
                polls: pick(rng, &[0, 0, 1, 5]),
                work_ms: pick(rng, &[0, 0, 3, 40, 700, 5_000]),
                heeds_cancel: rng.bool(),
                end,
            });
            // Snoozing for ever would be just that.
            if acts.len() == 6
                || !matches!(
                    end,
                    End::Error { .. }
                        | End::Panic
                        | End::Snooze { .. }
                        | End::LimitPool { .. }
                        | End::LimitKey { .. }
                        | End::Hang
                )
            {
                break;
            }
        }
        if let Some(Act { end, .. }) = acts.last_mut()
            && matches!(
                end,
                End::Snooze { .. } | End::LimitPool { .. } | End::LimitKey { .. } | End::Hang
            )
        {
            *end = End::Success;
        }
        acts
    }
}

/// A number that depends on the seed and on what it is for, and takes nothing from the seed's chance.
pub fn mixed(seed: u64, what: u64) -> u64 {
    let mixed =
        (seed ^ what.wrapping_mul(0xa076_1d64_78bd_642f)).wrapping_mul(0xe703_7ed1_a0b4_28db);
    (mixed ^ (mixed >> 32)).wrapping_mul(0x8ebc_6af0_9c88_c6e3) >> 33
}

pub fn below(rng: &mut Rng, end: u64) -> u64 {
    rng.u64(0..end)
}

pub fn pick<T: Copy>(rng: &mut Rng, from: &[T]) -> T {
    from[rng.usize(0..from.len())]
}
