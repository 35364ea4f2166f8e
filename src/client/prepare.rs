//! Validation and encoding of jobs before they go to the store.

use std::sync::Arc;
use std::time::Duration;

use super::enqueue::{Due, Ids, Options, Prepared};
use super::{EnqueueError, Function};
use crate::model::{
    ArgBytes, ConfigError, FunctionKind, MAX_DELAY, Name, Payload, PoolId, RetryBehavior,
    RetryPolicy, Segment, Settings, SpanLink, Spec, SpecOptions, WorkId,
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
    let mut prepared = Prepared { works: Vec::new(), fresh: true, retry_of: None, on_finish: None };
    let Some(first) = functions.first() else { return Ok(prepared) };
    let ids = std::mem::take(&mut options.ids);
    let mut common = Common::new(first, options, shared, pool)?;
    // Ids generated from a seed may have been used before.
    prepared.fresh = matches!(ids, Ids::Fresh) && !shared.seams.is_seeded();
    prepared.on_finish = common.on_finish.take();
    prepared.works.reserve_exact(functions.len());
    let mut block = Vec::new();
    let mut parts = Vec::new();
    for (number, function) in functions.iter().enumerate() {
        let from = block.len();
        function.encode(&mut block)?;
        common.check_size(block.len() - from)?;
        parts.push((from, block.len() - from));
        if block.len() >= ArgBytes::BLOCK || number + 1 == functions.len() {
            let shared_block = Arc::from(block.as_slice());
            for (from, len) in parts.drain(..) {
                let work_id = match &ids {
                    Ids::Fresh => shared.seams.work_id(),
                    Ids::Chosen(ids) => ids[prepared.works.len()],
                };
                let spec = common.spec(work_id, ArgBytes::part(&shared_block, from, len));
                prepared.works.push((Arc::new(spec), common.due));
            }
            block.clear();
        }
    }
    Ok(prepared)
}

/// The common parts of the jobs of one enqueue, validated once.
struct Common {
    pool: PoolId,
    kind: FunctionKind,
    function: Name,
    options: Option<SpecOptions>,
    on_finish: Option<OnFinish>,
    now: Segment,
    due: Segment,
    max_payload_bytes: usize,
}

impl Common {
    fn new<F: Function<K>, K>(
        function: &F,
        options: Options,
        shared: &Shared,
        pool: &PoolShared,
    ) -> Result<Common, EnqueueError> {
        let name = function.name();
        let registered = shared.catalog.get(name).ok_or(unknown(name, F::REGISTER))?;
        let settings = pool.settings();
        let due = due_segment(options.due, shared)?;

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
        let span = match tracing::Span::current() {
            span if span.is_none() => SpanLink(None),
            span => SpanLink(Some(span)),
        };
        let plain =
            retry.is_none() && timeout.is_none() && on_complete.is_none() && span.0.is_none();
        Ok(Common {
            pool: pool.id,
            kind: F::KIND,
            function: name,
            options: (!plain).then_some(SpecOptions { on_complete, retry, timeout, span }),
            on_finish: options.on_finish,
            now: shared.seams.segment(),
            due,
            max_payload_bytes: settings.max_payload_bytes,
        })
    }

    fn check_size(&self, args: usize) -> Result<(), EnqueueError> {
        let call = self.options.as_ref().and_then(|options| options.on_complete.as_ref());
        let (size, max) =
            (args + call.map_or(0, |call| call.context.len()), self.max_payload_bytes);
        if size > max { Err(EnqueueError::TooLarge { size, max }) } else { Ok(()) }
    }

    fn spec(&self, work_id: WorkId, args: ArgBytes) -> Spec {
        Spec {
            work_id,
            pool: self.pool,
            kind: self.kind,
            function: self.function,
            args,
            enqueued_at: self.now,
            options: self.options.clone().map(Box::new),
        }
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
    Ok(Segment(0).after(shared.seams.now() + delay))
}

/// Creates the follow-up job of a failed `on_complete`.
pub(crate) fn follow_up(
    shared: &Shared,
    failed: &Spec,
    call: Name,
    args: &Payload,
    now: Segment,
) -> Arc<Spec> {
    let options = SpecOptions { retry: Some(RetryBehavior::default()), ..SpecOptions::default() };
    Arc::new(Spec {
        work_id: shared.seams.work_id(),
        pool: failed.pool,
        kind: FunctionKind::OnComplete,
        function: call,
        args: ArgBytes::new(args.as_bytes()),
        enqueued_at: now,
        options: Some(Box::new(options)),
    })
}
