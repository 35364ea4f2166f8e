//! Whatever bytes come in: typed errors, never a panic and never a lost job.
//!
//! The cases are the same in every run. `WORKPOOL_FUZZ_CASES=100000 cargo test --test pool fuzz` tries more of them.

use std::time::Duration;

use crate::common::*;
use actix_workpool::engine::backoff::backoff;
use actix_workpool::model::{Key, Segment};
use actix_workpool::{
    ActionKey, ConfigError, EnqueueError, Failure, FailureKind, JoinError, MAX_DELAY,
    MAX_PARALLELISM, MAX_PAYLOAD_BYTES, Name, Payload, PoolConfig, RetryBehavior, StartError,
    TableKey, WorkError, WorkId,
};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::test_runner::{RngAlgorithm, TestRng, TestRunner};
use serde::{Deserialize, Serialize};
use serde_json::Value;

fn cases(usual: u32) -> u32 {
    let wanted = std::env::var("WORKPOOL_FUZZ_CASES").ok();
    wanted.map_or(usual, |cases| cases.parse().expect("WORKPOOL_FUZZ_CASES is a number"))
}

/// Tries a test with many values, always the same ones, and shrinks what fails.
fn fuzz<S: Strategy>(
    usual: u32,
    strategy: S,
    test: impl Fn(S::Value) -> Result<(), TestCaseError>,
) {
    let config = ProptestConfig {
        cases: cases(usual),
        failure_persistence: None,
        max_shrink_iters: 2_000,
        ..ProptestConfig::default()
    };
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]);
    let mut runner = TestRunner::new_with_rng(config, rng);
    if let Err(error) = runner.run(&strategy, test) {
        panic!("{error}");
    }
}

/// Any JSON, a few levels deep.
fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::from),
            btree_map(".{0,6}", inner, 0..4)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

/// JSON that is nearly what the function takes: of each field, perhaps another value, or none.
fn nearly_mail() -> impl Strategy<Value = Value> {
    let field = |right: Value| prop_oneof![4 => Just(Some(right)), 1 => json().prop_map(Some), 1 => Just(None)];
    let fields = (
        field("a@b.c".into()),
        field(3.into()),
        field(serde_json::json!([1, 2])),
        field(serde_json::json!({"deep": "yes"})),
    );
    fields.prop_map(|(to, count, parts, inner)| {
        let fields = [("to", to), ("count", count), ("parts", parts), ("inner", inner)];
        let there = fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
        Value::Object(there.collect())
    })
}

#[derive(Debug, Serialize, Deserialize)]
struct Mail {
    to: String,
    count: u8,
    parts: Vec<u32>,
    inner: Inner,
}

#[derive(Debug, Serialize, Deserialize)]
struct Inner {
    deep: String,
}

/// The fields of `Mail` as a failure may name them.
const FIELDS: [&str; 5] = ["to", "count", "parts", "inner", "deep"];

/// Enqueued as anything, and run as a `Mail`.
const ANYTHING: ActionKey<Value, u8> = ActionKey::new("mail");
const MAIL: ActionKey<Mail, u8> = ActionKey::new("mail");

#[test]
fn arguments_that_do_not_decode_fail_their_job_once_and_for_all() {
    let args = prop_oneof![nearly_mail(), nearly_mail(), json()];
    fuzz(120, vec(args, 1..8), |args| {
        run_paused(async {
            let builder = builder().echo().action_fn(MAIL, |mail, _| async move { Ok(mail.count) });
            let retry = RetryBehavior::default();
            let (runtime, pool) = start(builder, PoolConfig::default().default_retry(retry)).await;
            let calls: Vec<_> = args.iter().cloned().map(|args| ANYTHING.call(args)).collect();
            let works = pool.enqueue_batch(calls).await.unwrap();
            for (args, outcome) in args.iter().zip(works.join().await) {
                let fits = serde_json::from_slice::<Mail>(&serde_json::to_vec(args).unwrap());
                match (fits, outcome) {
                    (Ok(mail), outcome) => prop_assert_eq!(outcome, Ok(mail.count)),
                    (Err(_), Err(JoinError::Failed { attempts, failure })) => {
                        prop_assert_eq!((attempts, failure.kind), (1, FailureKind::Decode));
                        prop_assert!(!failure.retryable, "{}", failure);
                        let of_a_field = args.as_object().is_some_and(|fields| !fields.is_empty());
                        let named = FIELDS.iter().any(|field| failure.message.contains(field));
                        prop_assert!(named || !of_a_field, "{} of {}", failure, args);
                    }
                    (Err(error), outcome) => {
                        prop_assert!(false, "{args} is wrong ({error}), and yet {outcome:?}")
                    }
                }
            }
            // Nobody else has noticed.
            prop_assert_eq!(pool.enqueue(ECHO.call(3)).await.unwrap().join().await, Ok(3));
            prop_assert_eq!(pool.pending(), 0);
            runtime.shutdown(secs(1)).await;
            Ok(())
        })
    });
}

#[test]
fn what_goes_in_comes_out_again() {
    const MIRROR: ActionKey<Value, Value> = ActionKey::new("mirror");
    fuzz(60, vec(json(), 1..8), |values| {
        run_paused(async {
            let builder = builder().action_fn(MIRROR, |value, _| async move { Ok(value) });
            let (runtime, pool) = start(builder, PoolConfig::default()).await;
            let calls: Vec<_> = values.iter().cloned().map(|value| MIRROR.call(value)).collect();
            let works = pool.enqueue_batch(calls).await.unwrap();
            for (value, outcome) in values.iter().zip(works.join().await) {
                // As often as it is written and read, a float may lose its last bit.
                let once = |value: &Value| -> Value {
                    serde_json::from_slice(&serde_json::to_vec(value).unwrap()).unwrap()
                };
                prop_assert_eq!(outcome, Ok(once(&once(value))));
            }
            runtime.shutdown(secs(1)).await;
            Ok(())
        })
    });
}

/// Which serde_json promises only with its feature `float_roundtrip`.
#[test]
fn a_float_keeps_its_last_bit() {
    const HALF: ActionKey<f64, f64> = ActionKey::new("half");
    run_paused(async {
        let builder = builder().action_fn(HALF, |n, _| async move { Ok(n / 2.0) });
        let (runtime, pool) = start(builder, PoolConfig::default()).await;
        let given = 1.698097463705192e138;
        let half = pool.enqueue(HALF.call(given)).await.unwrap().join().await.unwrap();
        assert_eq!(half, given / 2.0);
        runtime.shutdown(secs(1)).await;
    });
}

#[test]
fn an_error_of_a_function_is_kept_whatever_its_message_is() {
    const FAIL: ActionKey<String, u8> = ActionKey::new("fail");
    fuzz(60, vec(any::<String>(), 1..8), |messages| {
        run_paused(async {
            let builder = builder().action_fn(FAIL, |message: String, _| async move {
                Err(WorkError::non_retryable(message))
            });
            let (runtime, pool) = start(builder, PoolConfig::default()).await;
            for message in messages {
                let outcome = pool.enqueue(FAIL.call(message.clone())).await.unwrap().join().await;
                let failure = Failure::permanent(FailureKind::Error, message);
                prop_assert_eq!(outcome, Err(JoinError::Failed { attempts: 1, failure }));
            }
            runtime.shutdown(secs(1)).await;
            Ok(())
        })
    });
}

/// Numbers from all over, and those at the ends.
fn extreme() -> impl Strategy<Value = u64> {
    prop_oneof![Just(0), Just(1), Just(u64::MAX), Just(u64::MAX - 1), 0..100_000_u64, any::<u64>()]
}

fn float() -> impl Strategy<Value = f64> {
    const ENDS: [f64; 7] = [0.0, 1.0, -1.0, f64::NAN, f64::INFINITY, f64::MAX, f64::MIN_POSITIVE];
    prop_oneof![proptest::sample::select(&ENDS[..]), any::<f64>(), 1.0..10.0]
}

fn duration() -> impl Strategy<Value = Duration> {
    (extreme(), 0..1_000_000_000_u32).prop_map(|(secs, nanos)| Duration::new(secs, nanos))
}

fn retry() -> impl Strategy<Value = RetryBehavior> {
    (extreme(), duration(), float()).prop_map(|(attempts, backoff, base)| {
        RetryBehavior::default()
            .max_attempts(attempts.try_into().unwrap_or(u32::MAX))
            .initial_backoff(backoff)
            .base(base)
    })
}

#[test]
fn a_configuration_is_refused_or_in_force() {
    let numbers = (extreme(), extreme(), extreme());
    fuzz(
        150,
        (numbers, retry(), duration(), any::<bool>()),
        |(numbers, retry, timeout, paused)| {
            let (parallelism, pending, payload) = numbers;
            let (parallelism, payload) = (parallelism as usize, payload as usize);
            let config = PoolConfig::default()
                .max_parallelism(parallelism)
                .max_pending(pending)
                .max_payload_bytes(payload)
                .default_retry(retry)
                .attempt_timeout(timeout)
                .paused(paused);
            let fits = parallelism <= MAX_PARALLELISM
                && payload <= MAX_PAYLOAD_BYTES
                && pending > 0
                && !timeout.is_zero()
                && retry.max_attempts > 0
                && retry.base.is_finite()
                && retry.base >= 1.0;
            let checked = config.validate();
            prop_assert_eq!(checked.is_ok(), fits, "{:?}", checked);
            run_paused(async {
                let started = builder().echo().pool("p", config.clone()).start().await;
                let runtime = match (started, checked) {
                    (Err(StartError::Config { pool, error }), Err(expected)) => {
                        prop_assert_eq!(pool.as_str(), "p");
                        // Not by `==`: a base that is no number is not equal to itself.
                        prop_assert_eq!(error.to_string(), expected.to_string());
                        return Ok(());
                    }
                    (started, checked) => {
                        prop_assert!(checked.is_ok() && started.is_ok(), "{:?}", checked);
                        started.unwrap()
                    }
                };
                let pool = runtime.pool("p").unwrap();
                prop_assert_eq!(&*pool.settings(), &config.settings());
                let wide = parallelism > 0 && !paused;
                match pool.enqueue(ECHO.call(7)).await {
                    Ok(work) if wide => {
                        // An attempt that takes no time at all is over before any time is.
                        let outcome = work.join().await;
                        let timed_out = matches!(&outcome, Err(JoinError::Failed { failure, .. })
                        if failure.kind == FailureKind::Timeout || failure.kind == FailureKind::Encode);
                        prop_assert!(outcome == Ok(7) || timed_out, "{:?}", outcome);
                    }
                    Ok(_) => prop_assert_eq!(pool.pending(), 1),
                    Err(EnqueueError::TooLarge { size: 1, max }) => prop_assert_eq!(max, payload),
                    Err(error) => prop_assert!(false, "{}", error),
                }
                runtime.shutdown(secs(1)).await;
                Ok(())
            })
        },
    );
}

#[test]
fn a_configuration_survives_being_written_and_other_text_is_refused() {
    fuzz(500, (retry(), duration(), extreme()), |(retry, timeout, pending)| {
        let config = PoolConfig::default().attempt_timeout(timeout).max_pending(pending);
        // See `a_float_may_lose_its_last_bit`.
        let retry = retry.base(retry.base.clamp(-1.0, 1e9).trunc());
        let config = match retry.validate() {
            Ok(()) => config.default_retry(retry),
            Err(_) => config.no_default_retry(),
        };
        let text = serde_json::to_vec(&config).unwrap();
        prop_assert_eq!(serde_json::from_slice::<PoolConfig>(&text).ok(), Some(config));
        Ok(())
    });
    fuzz(500, json(), |value| {
        if let Ok(config) = serde_json::from_value::<PoolConfig>(value) {
            let _ = (config.validate(), config.settings());
        }
        Ok(())
    });
}

#[test]
fn a_retry_behavior_is_refused_or_waits_for_no_longer_than_a_day() {
    fuzz(2_000, (retry(), any::<u32>(), 0.0..1.0), |(retry, counted, chance)| {
        match retry.validate() {
            Ok(()) => {
                let wait = backoff(&retry, counted.max(1), chance);
                prop_assert!(wait <= RetryBehavior::MAX_BACKOFF, "{:?}", wait);
                let least = Duration::from_millis(retry.initial_backoff_ms / 2);
                prop_assert!(wait >= least.min(RetryBehavior::MAX_BACKOFF), "{:?}", wait);
            }
            Err(ConfigError::NoAttempts) => prop_assert_eq!(retry.max_attempts, 0),
            Err(ConfigError::Base { .. }) => {
                prop_assert!(!(retry.base.is_finite() && retry.base >= 1.0))
            }
            Err(other) => prop_assert!(false, "{}", other),
        }
        Ok(())
    });
}

#[test]
fn what_an_enqueue_says_is_refused_or_done() {
    fuzz(150, (retry(), duration(), duration()), |(retry, delay, timeout)| {
        run_paused(async {
            let (runtime, pool) = start(builder().echo(), PoolConfig::default()).await;
            let enqueued =
                pool.enqueue(ECHO.call(1)).retry(retry).run_after(delay).timeout(timeout).await;
            match enqueued {
                Ok(_) => {
                    prop_assert!(retry.validate().is_ok() && delay <= MAX_DELAY);
                    prop_assert!(!timeout.is_zero());
                    prop_assert_eq!(pool.pending(), 1);
                }
                Err(EnqueueError::TooFarAhead { given, .. }) => prop_assert_eq!(given, delay),
                Err(EnqueueError::Config(ConfigError::NoTimeToRun)) => {
                    prop_assert!(timeout.is_zero())
                }
                Err(EnqueueError::Config(error)) => {
                    prop_assert_eq!(
                        Some(error.to_string()),
                        retry.validate().err().map(|error| error.to_string())
                    );
                }
                Err(error) => prop_assert!(false, "{}", error),
            }
            runtime.shutdown(Duration::ZERO).await;
            Ok(())
        })
    });
}

#[test]
fn waits_that_functions_ask_for_overflow_nothing() {
    const LATER: ActionKey<Duration, u8> = ActionKey::new("later");
    const SNOOZE: ActionKey<Duration, u8> = ActionKey::new("snooze");
    fuzz(60, duration(), |wait| {
        run_paused(async {
            let builder = builder()
                .echo()
                .action_fn(LATER, |wait, _| async move { Err(WorkError::retry_after(wait, "no")) })
                .action_fn(SNOOZE, |wait, _| async move { Err(WorkError::snooze(wait)) });
            let retry = RetryBehavior::default().max_attempts(2);
            let (runtime, pool) = start(builder, PoolConfig::default().default_retry(retry)).await;
            let wait = wait.max(secs(60));
            let later = pool.enqueue(LATER.call(wait)).await.unwrap();
            let snooze = pool.enqueue(SNOOZE.call(wait)).await.unwrap();
            prop_assert_eq!(pool.enqueue(ECHO.call(3)).await.unwrap().join().await, Ok(3));
            settle().await;
            prop_assert_eq!(pool.pending(), 2, "both wait");
            later.cancel().await.unwrap();
            snooze.cancel().await.unwrap();
            prop_assert_eq!(later.join().await, Err(JoinError::Canceled));
            prop_assert_eq!(snooze.join().await, Err(JoinError::Canceled));
            runtime.shutdown(secs(1)).await;
            Ok(())
        })
    });
}

#[test]
fn a_name_has_a_length_that_is_taken_or_is_refused() {
    let name = prop_oneof![any::<String>(), "[a-z.]{0,8}", "\\PC{60,80}"];
    fuzz(150, name, |name| {
        let fits = (1..=200).contains(&name.len());
        run_paused(async {
            match builder().pool(&name, PoolConfig::default()).start().await {
                Ok(runtime) => {
                    prop_assert!(fits);
                    prop_assert_eq!(runtime.pool(&name).unwrap().name().as_str(), &name);
                    runtime.shutdown(Duration::ZERO).await;
                }
                Err(StartError::Config { error: ConfigError::NameLength { given }, .. }) => {
                    prop_assert!(!fits);
                    prop_assert_eq!(given, name);
                }
                Err(error) => prop_assert!(false, "{}", error),
            }
            Ok(())
        })?;
        Ok(())
    });
}

#[test]
fn names_and_ids_are_read_as_they_were_written() {
    fuzz(500, (any::<String>(), any::<u128>()), |(text, number)| {
        let name = Name::intern(&text);
        prop_assert_eq!(name, Name::intern(&text));
        let written = serde_json::to_string(&name).unwrap();
        prop_assert_eq!(serde_json::from_str::<Name>(&written).unwrap(), name);
        let id = WorkId::from_uuid(uuid::Uuid::from_u128(number));
        prop_assert_eq!(id.to_string().parse::<WorkId>().unwrap(), id);
        let _ = text.parse::<WorkId>();
        Ok(())
    });
}

#[test]
fn keys_sort_as_their_bytes_and_prefixes_end_where_they_should() {
    let bytes = || prop_oneof![vec(any::<u8>(), 0..6), vec(254..=255_u8, 0..4)];
    fuzz(3_000, (bytes(), bytes(), any::<(u64, u64)>()), |(prefix, other, (a, b))| {
        let (key, against) = (TableKey::from(prefix.clone()), TableKey::from(other.clone()));
        prop_assert_eq!(key.cmp(&against), prefix.cmp(&other));
        prop_assert_eq!(key.as_bytes(), &*prefix);
        prop_assert_eq!(key.as_str(), std::str::from_utf8(&prefix).ok());
        prop_assert_eq!(key.as_u64().is_some(), prefix.len() == 8);
        prop_assert_eq!(TableKey::from(a).cmp(&TableKey::from(b)), a.cmp(&b));
        prop_assert_eq!(TableKey::from(a).as_u64(), Some(a));

        // Within the range if, and only if, it begins with the prefix.
        let within = against >= key && key.end_of_prefix().is_none_or(|end| against < end);
        prop_assert_eq!(within, other.starts_with(&prefix));
        Ok(())
    });
}

#[test]
fn bytes_that_are_no_json_are_refused_where_they_are_read() {
    fuzz(2_000, vec(any::<u8>(), 0..40), |bytes| {
        let payload = Payload::new(&bytes);
        prop_assert_eq!(payload.as_bytes(), &*bytes);
        let is_json = serde_json::from_slice::<Value>(&bytes).is_ok();
        let written = serde_json::to_string(&payload);
        prop_assert!(written.is_ok() || !is_json, "{:?}", bytes);
        let _ = serde_json::from_slice::<Failure>(&bytes);
        let _ = serde_json::from_slice::<Key>(&bytes);
        let _ = serde_json::from_slice::<RetryBehavior>(&bytes);
        Ok(())
    });
}

#[test]
fn a_wait_from_any_moment_ends_before_the_end_of_time_and_is_not_early() {
    fuzz(2_000, (extreme(), duration()), |(from, wait)| {
        let until = Segment(from).after(wait);
        prop_assert!(until < Segment::UNREGISTERED);
        let reached = u128::from(until.0) == u128::from(u64::MAX) - 1;
        let exact = u128::from(from) + wait.as_nanos().div_ceil(1_000_000);
        prop_assert!(reached || u128::from(until.0) == exact);
        Ok(())
    });
}

#[test]
fn a_run_of_random_requests_loses_nothing() {
    const FLAKY: ActionKey<u8, u8> = ActionKey::new("flaky");
    let request = (any::<u8>(), 0..5_u8, 0..50_u64);
    fuzz(60, vec(request, 1..30), |requests| {
        run_paused(async {
            let builder = builder().action_fn(FLAKY, |n, cx| async move {
                tokio::time::sleep(ms(u64::from(n) % 7)).await;
                match n % 4 {
                    0 => Ok(n),
                    1 if cx.attempt() > 1 => Ok(n),
                    1 => Err(WorkError::retryable("once more")),
                    2 => panic!("on purpose"),
                    _ => Ok(n),
                }
            });
            let retry = RetryBehavior::default().max_attempts(2).initial_backoff(ms(5));
            let config = PoolConfig::default().max_parallelism(2).default_retry(retry);
            let (runtime, pool) = start(builder, config).await;
            let mut works = Vec::new();
            for (n, what, wait) in requests {
                match what {
                    0 => tokio::time::sleep(ms(wait)).await,
                    1 => drop(pool.cancel_all().await.unwrap()),
                    2 => pool
                        .update(PoolConfig::default().max_parallelism(usize::from(n) % 4))
                        .await
                        .unwrap(),
                    _ => works
                        .push((n, pool.enqueue(FLAKY.call(n)).run_after(ms(wait)).await.unwrap())),
                }
            }
            pool.update(PoolConfig::default().max_parallelism(2)).await.unwrap();
            for (n, work) in works {
                let outcome = work.join().await;
                let right = match &outcome {
                    Ok(m) => *m == n && n % 4 != 2,
                    Err(JoinError::Canceled) => true,
                    Err(JoinError::Failed { attempts, failure }) => {
                        n % 4 == 2 && *attempts == 2 && failure.kind == FailureKind::Panic
                    }
                    Err(_) => false,
                };
                prop_assert!(right, "{} became {:?}", n, outcome);
            }
            prop_assert_eq!(pool.pending(), 0);
            runtime.shutdown(secs(1)).await;
            Ok(())
        })
    });
}
