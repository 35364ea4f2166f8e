//! Unique jobs: callers enqueue them on a few keys. Of one key there is one at a time, or one in a period, and what
//! replaces a job that waits is what runs.

use std::time::Duration;

use actix_workpool::{Action, ActionContext, Conflict, Unique, WorkError, WorkId};
use serde::{Deserialize, Serialize};

use super::clients::Callers;
use super::functions::OURS;
use super::plan::{below, pick};
use super::world::{Micros, World, millis, trace, with};

/// The period of the keys that are held for one.
const PERIOD_MS: u64 = 1_500;

/// By how much the clocks may disagree.
const SLACK: Micros = millis(5);

/// How long the key is held. Each key has its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hold {
    Waiting,
    Finished,
    Period,
}

const HOLDS: [Hold; 3] = [Hold::Waiting, Hold::Finished, Hold::Period];

/// An enqueue of a key, as its caller knows it.
pub struct Content {
    pool: usize,
    key: u64,
    replaces: bool,
    /// Told by the answer: the job that it became or is represented by, and whether that was new.
    told: Option<(WorkId, bool)>,
    sent: u64,
    sent_at: Micros,
    answered: u64,
    life: u32,
}

/// A job, as its function sees it.
#[derive(Default)]
struct Runs {
    id: Option<WorkId>,
    first: u64,
    running: u32,
}

#[derive(Default)]
pub struct Uniques {
    contents: Vec<Content>,
    runs: Vec<Runs>,
    canceled: bool,
}

impl Uniques {
    /// How long what is left may take.
    pub fn left(&self) -> Micros {
        self.contents.len() as Micros * millis(40_000)
    }

    /// Some of the jobs may have been canceled.
    pub fn cancel_all(&mut self) {
        self.canceled = true;
    }

    fn runs_of(&self, id: WorkId) -> Option<&Runs> {
        self.runs.iter().find(|runs| runs.id == Some(id))
    }
}

#[derive(Serialize, Deserialize)]
pub struct Only(usize);

/// Tells the world when an attempt ends, in whatever way.
struct Running(usize, WorkId);

impl Drop for Running {
    fn drop(&mut self) {
        with(|world| {
            let now = world.now();
            let pool = &mut world.pools[self.0];
            if pool.running >= pool.slots() {
                pool.was_full = now;
            }
            pool.running = pool.running.saturating_sub(1);
            let runs = &mut world.uniques.runs;
            if let Some(runs) = runs.iter_mut().find(|runs| runs.id == Some(self.1)) {
                runs.running -= 1;
            }
        });
    }
}

impl Action for Only {
    const NAME: &'static str = "only";
    type Output = usize;

    async fn run(self, cx: ActionContext) -> Result<usize, WorkError> {
        let (number, id, attempt) = (self.0, cx.work_id(), cx.attempt());
        let Some((running, work_ms)) = with(|world| world.unique_starts(number, id)) else {
            return std::future::pending().await;
        };
        tokio::time::sleep(Duration::from_millis(work_ms)).await;
        drop(running);
        match attempt == 1 && number.is_multiple_of(3) {
            true => Err(WorkError::retryable(format!("{OURS} error"))),
            false => Ok(number),
        }
    }
}

/// Enqueues a unique job.
pub async fn enqueue(callers: &Callers, pool: usize) {
    let (number, key, conflict, delay) = with(|world| {
        let key = below(&mut world.rng, 3);
        let wait = Duration::from_millis(pick(&mut world.rng, &[30, 600]));
        let conflict =
            pick(&mut world.rng, &[Conflict::Keep, Conflict::Replace, Conflict::Debounce(wait)]);
        let delay = pick(&mut world.rng, &[0, 0, 40, 900]);
        let (sent, sent_at, life) = (world.tick(), world.pool_now(), world.life);
        let number = world.uniques.contents.len();
        trace!(world, "enqueue unique {number} of key {key}, {conflict:?}");
        world.uniques.contents.push(Content {
            pool,
            key,
            replaces: conflict != Conflict::Keep,
            told: None,
            sent,
            sent_at,
            answered: u64::MAX,
            life,
        });
        (number, key, conflict, Duration::from_millis(delay))
    });
    let unique = Unique::key(format!("key {key}"));
    let unique = match HOLDS[key as usize] {
        Hold::Waiting => unique.while_waiting(),
        Hold::Finished => unique.until_finished(),
        Hold::Period => unique.within(Duration::from_millis(PERIOD_MS)),
    };
    let enqueue = callers.pools[pool].enqueue(Only(number)).unique(unique).on_conflict(conflict);
    let retry = actix_workpool::RetryBehavior::new().max_attempts(3);
    let enqueue = enqueue.retry(retry.initial_backoff(Duration::from_millis(200)));
    let enqueue = if delay.is_zero() { enqueue } else { enqueue.run_after(delay) };
    let answer = enqueue.await;
    with(|world| match answer {
        Ok(work) if !world.dead => world.unique_answered(number, work.id(), work.is_new()),
        _ => {}
    });
}

impl World {
    fn unique_answered(&mut self, number: usize, id: WorkId, is_new: bool) {
        trace!(self, "unique {number}: {is_new}");
        let (answered, now) = (self.tick(), self.pool_now());
        let jumps = self.plan.wall_jumps;
        let content = &mut self.uniques.contents[number];
        (content.told, content.answered) = (Some((id, is_new)), answered);
        let (pool, key, sent, sent_at) = (content.pool, content.key, content.sent, content.sent_at);
        let first = self.uniques.runs_of(id).map(|runs| runs.first);
        let mut wrong = None;
        match HOLDS[key as usize] {
            Hold::Waiting if !is_new && first.is_some_and(|first| first < sent) => {
                wrong = Some("the job that is kept had started");
            }
            Hold::Period if !jumps => {
                let period = millis(PERIOD_MS);
                let others =
                    self.uniques.contents.iter().filter(|other| {
                        (other.pool, other.key) == (pool, key) && other.sent != sent
                    });
                for other in others {
                    let Some((holder, true)) = other.told else { continue };
                    let began_before = other.answered < sent;
                    if is_new && began_before && now + SLACK < other.sent_at + period {
                        wrong = Some("it is new, and the period of another goes on");
                    }
                    if !is_new && holder == id && sent_at > other.sent_at + period + SLACK {
                        wrong = Some("it is kept, and the period is over");
                    }
                }
            }
            _ => {}
        }
        if let Some(wrong) = wrong {
            self.violate(format_args!("unique {number} is answered {is_new}, and {wrong}"));
        }
    }

    /// An attempt starts, with this content: may it?
    fn unique_starts(&mut self, number: usize, id: WorkId) -> Option<(Running, u64)> {
        if self.dead {
            return None;
        }
        trace!(self, "unique {number} starts");
        let (moment, now, life) = (self.tick(), self.now(), self.life);
        let (pool, key) = {
            let content = &self.uniques.contents[number];
            (content.pool, content.key)
        };
        let is_first = self.uniques.runs_of(id).is_none();
        if is_first {
            let first = moment;
            self.uniques.runs.push(Runs { id: Some(id), first, running: 0 });
        }
        let mut wrong = None;
        if HOLDS[key as usize] == Hold::Finished {
            for other in &self.uniques.contents {
                let Some((holder, true)) = other.told else { continue };
                if (other.pool, other.key) != (pool, key) || holder == id {
                    continue;
                }
                let lives = match self.uniques.runs_of(holder) {
                    Some(runs) => runs.running > 0,
                    None => other.life == life && !self.uniques.canceled,
                };
                if lives {
                    wrong = Some("another of its key is unfinished");
                }
            }
        }
        if is_first && HOLDS[key as usize] == Hold::Waiting {
            let answered = self.uniques.contents[number].answered;
            let is_later = |other: &Content| {
                other.replaces && other.told == Some((id, false)) && other.sent > answered
            };
            if self.uniques.contents.iter().any(is_later) {
                wrong = Some("had been replaced");
            }
        }
        if let Some(wrong) = wrong {
            self.violate(format_args!("unique {number} starts, and {wrong}"));
        }
        if let Some(runs) = self.uniques.runs.iter_mut().find(|runs| runs.id == Some(id)) {
            runs.running += 1;
        }
        let pool_world = &mut self.pools[pool];
        pool_world.running += 1;
        pool_world.last_start = now;
        let (running, slots, name) = (pool_world.running, pool_world.slots(), pool_world.name);
        if running >= slots {
            pool_world.was_full = now;
        }
        if running > slots {
            self.violate(format_args!("{running} attempts run in {name}, {slots} may"));
        }
        Some((Running(pool, id), pick(&mut self.rng, &[0, 5, 300, 2_000])))
    }
}
