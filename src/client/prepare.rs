//! Validation and encoding of jobs before they go to the store.

use std::time::Duration;

use super::enqueue::{Due, Ids, Keys, Options, Prepared};
use super::{EnqueueError, Function};
use crate::model::{
    ConfigError, Conflict, FunctionKind, MAX_DELAY, MAX_WEIGHT, Name, Payload, Rate, RetryBehavior,
    RetryPolicy, Segment, Settings, SpanLink, Spec, SpecHead, SpecOptions, WorkKey,
};
use crate::protocol::OnFinish;
use crate::shared::{PoolShared, Shared};

/// Validates and encodes the jobs, in order.
pub(crate) fn prepare<F: Function<K>, K>(
    functions: &[F],
    mut options: Options,
    shared: &Shared,
    pool: &PoolShared,
) -> Result<Prepared, EnqueueError> {
    let mut prepared = Prepared {
        works: Vec::new(),
        fresh: true,
        conflict: options.conflict.unwrap_or_default(),
        retry_of: None,
        on_finish: None,
    };
    let Some(first) = functions.first() else { return Ok(prepared) };
    let ids = std::mem::take(&mut options.ids);
    let keys = std::mem::take(&mut options.keys);
    let weight = keys.check(options.weight)?;
    let has_key = !matches!(keys, Keys::None);
    let mut common = Common::new(first, options, has_key, shared, pool)?;
    // Ids generated from a seed may have been used before.
    prepared.fresh = matches!(ids, Ids::Fresh) && !shared.seams.is_seeded();
    prepared.on_finish = common.on_finish.take();
    prepared.works.reserve_exact(functions.len());
    let mut block = Vec::new();
    let mut lengths = Vec::new();
    let mut fresh = shared.seams.work_ids(functions.len());
    for (number, function) in functions.iter().enumerate() {
        let begin = block.len();
        if let Some(key) = keys.of(number) {
            Spec::put_key(&mut block, key, weight);
        }
        let from = block.len();
        function.encode(&mut block)?;
        common.check_size(block.len() - from)?;
        lengths.push(block.len() - begin);
        if block.len() >= Spec::BLOCK || number + 1 == functions.len() {
            let first = prepared.works.len();
            let works = lengths.drain(..).enumerate().map(|(place, len)| match &ids {
                Ids::Fresh => (fresh.draw(), len),
                Ids::Chosen(ids) => (ids[first + place], len),
            });
            let specs = Spec::of_block(common.head.clone(), has_key, &block, works);
            prepared.works.extend(specs.map(|spec| (spec, common.due)));
            block.clear();
        }
    }
    Ok(prepared)
}

impl Keys {
    /// Returns the key of a job.
    fn of(&self, number: usize) -> Option<&[u8]> {
        match self {
            Keys::None => None,
            Keys::Same(key) => Some(key),
            Keys::Each(keys) => Some(&keys[number]),
        }
    }

    /// Checks the keys and their weight, and returns the weight.
    fn check(&self, weight: Option<u16>) -> Result<u16, ConfigError> {
        let keys = match self {
            Keys::None if weight.is_some() => return Err(ConfigError::WeightWithoutKey),
            Keys::None => &[],
            Keys::Same(key) => std::slice::from_ref(key),
            Keys::Each(keys) => &keys[..],
        };
        keys.iter().try_for_each(|key| WorkKey::validate(key))?;
        match weight.unwrap_or(1) {
            weight @ 1..=MAX_WEIGHT => Ok(weight),
            given => Err(ConfigError::Weight { given, max: MAX_WEIGHT }),
        }
    }
}

/// The common parts of the jobs of one enqueue, validated once.
struct Common {
    head: SpecHead,
    on_finish: Option<OnFinish>,
    due: Segment,
    max_payload_bytes: usize,
}

impl Common {
    fn new<F: Function<K>, K>(
        function: &F,
        options: Options,
        has_key: bool,
        shared: &Shared,
        pool: &PoolShared,
    ) -> Result<Common, EnqueueError> {
        let name = function.name();
        let registered = shared.catalog.get(name).ok_or(unknown(name, F::REGISTER))?;
        let settings = pool.settings();
        if let Some(conflict) = options.conflict {
            conflict.validate()?;
            options.unique.as_ref().ok_or(ConfigError::ConflictWithoutKey)?;
        }
        if let Some(unique) = &options.unique {
            unique.validate()?;
        }
        let due = match (options.due, options.conflict) {
            (Due::Now, Some(Conflict::Debounce(wait))) => Due::After(wait),
            (due, _) => due,
        };
        let due = due_segment(due, shared)?;

        let retry = resolve_retry(options.retry, registered.retry, &settings)?;
        // A mutation or query has no timeout: it cannot be dropped midway, and waits for its turn in the store.
        let timeout = match F::KIND {
            FunctionKind::Action => {
                options.timeout.or(registered.timeout).or(settings.attempt_timeout)
            }
            FunctionKind::Mutation | FunctionKind::Query | FunctionKind::OnComplete => None,
        };
        if timeout == Some(Duration::ZERO) {
            return Err(ConfigError::NoTimeToRun.into());
        }
        let on_complete = options.on_complete.transpose()?;
        if let Some(call) = &on_complete {
            shared.catalog.get(call.name).ok_or(unknown(call.name, "on_complete::<..>()"))?;
        }
        let cost = options.cost.unwrap_or(1);
        let burst_of = |rate: Option<Rate>| rate.map_or(u32::MAX, |rate| rate.max_burst());
        let burst = match has_key {
            true => burst_of(settings.rate).min(burst_of(settings.per_key.max_rate())),
            false => burst_of(settings.rate),
        };
        if cost == 0 || cost > burst {
            return Err(ConfigError::Cost { given: cost, max: burst }.into());
        }
        let span = match tracing::Span::current() {
            span if span.is_none() => SpanLink(None),
            span => SpanLink(Some(span)),
        };
        let plain = retry.is_none()
            && timeout.is_none()
            && on_complete.is_none()
            && cost == 1
            && options.unique.is_none()
            && span.0.is_none();
        let (extra_cost, unique) = (cost - 1, options.unique);
        let rare = SpecOptions { on_complete, retry, timeout, extra_cost, unique, span };
        Ok(Common {
            head: SpecHead {
                pool: pool.id,
                kind: F::KIND,
                function: name,
                enqueued_at: shared.seams.segment(),
                priority: options.priority,
                options: (!plain).then(|| Box::new(rare)),
            },
            on_finish: options.on_finish,
            due,
            max_payload_bytes: settings.max_payload_bytes,
        })
    }

    fn check_size(&self, args: usize) -> Result<(), EnqueueError> {
        let call = self.head.on_complete();
        let (size, max) =
            (args + call.map_or(0, |call| call.context.len()), self.max_payload_bytes);
        if size > max { Err(EnqueueError::TooLarge { size, max }) } else { Ok(()) }
    }
}

fn unknown(function: Name, register: &'static str) -> EnqueueError {
    EnqueueError::UnknownFunction { function, register }
}

/// Resolves the retry policy: the enqueue's overrides the function's, which overrides the pool's.
fn resolve_retry(
    enqueue: RetryPolicy,
    function: RetryPolicy,
    settings: &Settings,
) -> Result<Option<RetryBehavior>, ConfigError> {
    let decided = match (enqueue, function) {
        (RetryPolicy::Inherit, function) => function,
        (enqueue, _) => enqueue,
    };
    match decided {
        RetryPolicy::Inherit => Ok(settings.default_retry),
        RetryPolicy::Never => Ok(None),
        RetryPolicy::With(behavior) => behavior.validate().map(|()| Some(behavior)),
    }
}

fn due_segment(due: Due, shared: &Shared) -> Result<Segment, EnqueueError> {
    let delay = match due {
        // In the current segment.
        Due::Now => return Ok(shared.seams.segment()),
        Due::After(delay) if planted!(DelayHalved) => delay / 2,
        Due::After(delay) => delay,
        // Measured by the current wall clock, which may differ from the pool's own clock.
        Due::At(time) => shared.seams.until_wall(time),
    };
    if delay > MAX_DELAY {
        return Err(EnqueueError::TooFarAhead { given: delay, max: MAX_DELAY });
    }
    if delay.is_zero() {
        // No later than a job without a delay, which would else overtake it.
        return Ok(shared.seams.segment());
    }
    Ok(Segment(0).after(shared.seams.now() + delay))
}

/// Creates the follow-up job of a failed `on_complete`.
pub(crate) fn follow_up(
    shared: &Shared,
    failed: &Spec,
    call: Name,
    args: &Payload,
    now: Segment,
) -> Spec {
    let options = SpecOptions { retry: Some(RetryBehavior::default()), ..SpecOptions::default() };
    let head = SpecHead {
        pool: failed.pool,
        kind: FunctionKind::OnComplete,
        function: call,
        enqueued_at: now,
        priority: failed.priority,
        options: Some(Box::new(options)),
    };
    Spec::new(shared.seams.work_id(), head, args.as_bytes())
}
