//! Random scripts against a plain model: whatever the order of what one asks, one sees what the model says. The same
//! scripts go through memory and through a file.
//!
//! `WORKPOOL_SCRIPT_CASES` says how many scripts there are.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::common::*;
use actix_workpool::testing::Clock;
use actix_workpool::{
    CancelAnswer, Mutation, Outcome, PoolConfig, Query, Reader, Runtime, Transaction, WorkError,
    WorkId, WorkStatus,
};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use proptest_state_machine::{ReferenceStateMachine, StateMachineTest, prop_state_machine};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use uuid::Uuid;

/// How far time is moved at once. Everything that happens between takes less.
const STEP: Duration = secs(100);

/// Jobs have numbers below this.
const MOST: u64 = 12;

#[derive(Clone, Debug)]
enum Act {
    /// Jobs of these numbers, due after so many steps. Those that are known are the same jobs.
    Enqueue(Vec<u64>, u32),
    Cancel(u64),
    CancelAll,
    Pause,
    Resume,
    Pass(u32),
    Deposit(i64),
    Reopen,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Work {
    Pending { due: u32 },
    Done,
    Canceled,
}

/// What one sees.
#[derive(Clone, Debug, Default)]
struct Model {
    now: u32,
    paused: bool,
    works: BTreeMap<u64, Work>,
    balance: i64,
    /// What the last cancel was answered.
    answer: Option<CancelAnswer>,
}

impl Model {
    /// What is due is done, unless the pool is paused.
    fn settle(&mut self) {
        for work in self.works.values_mut() {
            if matches!(work, Work::Pending { due } if !self.paused && *due <= self.now) {
                *work = Work::Done;
            }
        }
    }
}

struct Scripts;

impl ReferenceStateMachine for Scripts {
    type State = Model;
    type Transition = Act;

    fn init_state() -> BoxedStrategy<Model> {
        Just(Model::default()).boxed()
    }

    fn transitions(_: &Model) -> BoxedStrategy<Act> {
        let number = || 0..MOST;
        prop_oneof![
            4 => (number(), 0..3u32).prop_map(|(n, delay)| Act::Enqueue(vec![n], delay)),
            2 => (prop::collection::vec(number(), 1..6), 0..3u32)
                .prop_map(|(numbers, delay)| Act::Enqueue(numbers, delay)),
            3 => number().prop_map(Act::Cancel),
            1 => Just(Act::CancelAll),
            1 => Just(Act::Pause),
            2 => Just(Act::Resume),
            3 => (1..3u32).prop_map(Act::Pass),
            2 => (-9..9i64).prop_map(Act::Deposit),
            2 => Just(Act::Reopen),
        ]
        .boxed()
    }

    fn apply(mut model: Model, act: &Act) -> Model {
        match act {
            Act::Enqueue(numbers, delay) => {
                for number in numbers {
                    let due = model.now + delay;
                    model.works.entry(*number).or_insert(Work::Pending { due });
                }
            }
            Act::Cancel(number) => {
                model.answer = Some(match model.works.get_mut(number) {
                    Some(work @ Work::Pending { .. }) => {
                        *work = Work::Canceled;
                        CancelAnswer::Requested
                    }
                    Some(_) => CancelAnswer::AlreadyFinished,
                    None => CancelAnswer::NotFound,
                });
            }
            Act::CancelAll => {
                for work in model.works.values_mut() {
                    if let Work::Pending { .. } = work {
                        *work = Work::Canceled;
                    }
                }
            }
            Act::Pause => model.paused = true,
            Act::Resume => model.paused = false,
            Act::Pass(steps) => model.now += steps,
            Act::Deposit(amount) => model.balance += amount,
            Act::Reopen => {}
        }
        model.settle();
        model
    }
}

#[derive(Serialize, Deserialize)]
struct Deposit(i64);

impl Mutation for Deposit {
    const NAME: &'static str = "deposit";
    type Output = ();

    fn apply(self, tx: &mut Transaction<'_>) -> Result<(), WorkError> {
        let balance: i64 = tx.get("account", "a")?.unwrap_or(0);
        Ok(tx.put("account", "a", &(balance + self.0))?)
    }
}

#[derive(Serialize, Deserialize)]
struct Balance;

impl Query for Balance {
    const NAME: &'static str = "balance";
    type Output = i64;

    fn read(self, reader: &mut Reader<'_>) -> Result<i64, WorkError> {
        Ok(reader.get("account", "a")?.unwrap_or(0))
    }
}

/// One clock for all runtimes of a script: that of the wall goes on while time is paused.
struct Since(Instant);

impl Clock for Since {
    fn now(&self) -> Duration {
        STEP + self.0.elapsed()
    }
}

struct Player {
    system: actix::SystemRunner,
    tables: Tables,
    begun: Instant,
    runtime: Option<Runtime>,
}

fn id(number: u64) -> WorkId {
    WorkId::from_uuid(Uuid::from_u128(u128::from(number) + 1))
}

impl Player {
    async fn start(tables: &Tables, begun: Instant) -> Runtime {
        let builder = builder().storage(tables.clone()).clock(Since(begun)).seed(7).echo();
        let builder = builder.mutation::<Deposit>().query::<Balance>();
        let builder = builder.pool("p", PoolConfig::default().max_parallelism(3));
        builder.pool("bank", PoolConfig::default()).start().await.unwrap()
    }

    async fn play(&self, act: Act, model: &Model) {
        let runtime = self.runtime.as_ref().expect("it runs");
        let pool = runtime.pool("p").unwrap();
        match act {
            Act::Enqueue(numbers, delay) => {
                for number in numbers {
                    let work = pool.enqueue(ECHO.call(number)).id(id(number));
                    work.run_after(STEP * delay).await.unwrap();
                }
            }
            Act::Cancel(number) => {
                let answer = pool.cancel(id(number)).await.unwrap();
                assert_eq!(Some(answer), model.answer, "of work {number}");
            }
            Act::CancelAll => drop(pool.cancel_all().await.unwrap()),
            Act::Pause => pool.pause().await.unwrap(),
            Act::Resume => pool.resume().await.unwrap(),
            Act::Pass(steps) => tokio::time::sleep(STEP * steps).await,
            Act::Deposit(amount) => {
                let bank = runtime.pool("bank").unwrap();
                bank.enqueue(Deposit(amount)).await.unwrap().join().await.unwrap();
            }
            Act::Reopen => unreachable!("the player does that"),
        }
        settle().await;
    }

    async fn assert_seen(&self, model: &Model) {
        let runtime = self.runtime.as_ref().expect("it runs");
        let pool = runtime.pool("p").unwrap();
        for number in 0..MOST {
            let status = pool.status(id(number)).await.unwrap();
            let seen = match &status {
                WorkStatus::Unknown => None,
                WorkStatus::Pending { .. } => Some("pending"),
                WorkStatus::Running { .. } => Some("running"),
                WorkStatus::Finished(row) => Some(match row.outcome() {
                    Outcome::Success(_) => "done",
                    Outcome::Failed(_) => "failed",
                    Outcome::Canceled => "canceled",
                }),
                _ => panic!("{status:?}"),
            };
            let expected = model.works.get(&number).map(|work| match work {
                Work::Pending { .. } => "pending",
                Work::Done => "done",
                Work::Canceled => "canceled",
            });
            assert_eq!(seen, expected, "job {number}: {status:?}");
        }
        let pending = model.works.values().filter(|work| matches!(work, Work::Pending { .. }));
        assert_eq!(pool.pending(), pending.count() as u64);
        assert_eq!(runtime.query(Balance).await.unwrap(), model.balance);
    }
}

impl StateMachineTest for Scripts {
    type SystemUnderTest = Player;
    type Reference = Scripts;

    fn init_test(_: &Model) -> Player {
        let system = actix::System::with_tokio_rt(|| {
            let mut runtime = tokio::runtime::Builder::new_current_thread();
            runtime.enable_all().start_paused(true).build().unwrap()
        });
        let tables = Tables::new();
        let begun = system.block_on(async { Instant::now() });
        let runtime = Some(system.block_on(Player::start(&tables, begun)));
        Player { system, tables, begun, runtime }
    }

    fn apply(mut player: Player, model: &Model, act: Act) -> Player {
        if let Act::Reopen = act {
            let (runtime, tables) = (player.runtime.take(), &player.tables);
            player.runtime = Some(player.system.block_on(async {
                runtime.expect("it runs").shutdown(secs(1)).await;
                let runtime = Player::start(tables, player.begun).await;
                settle().await;
                runtime
            }));
        } else {
            player.system.block_on(player.play(act, model));
        }
        player.system.block_on(player.assert_seen(model));
        player
    }
}

fn config() -> ProptestConfig {
    let cases = std::env::var("WORKPOOL_SCRIPT_CASES").map_or(60, |cases| cases.parse().unwrap());
    ProptestConfig {
        cases,
        rng_seed: RngSeed::Fixed(1),
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

prop_state_machine! {
    #![proptest_config(config())]

    fn go_through(sequential 1..40 => Scripts);
}

#[test]
fn every_script_is_seen_as_the_model_says() {
    on_each_store(go_through);
}
