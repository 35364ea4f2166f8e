//! How a work is described before it is enqueued.

use std::marker::PhantomData;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::committer::OnFinish;
use crate::config::{MAX_DELAY, Settings};
use crate::error::{ConfigError, EnqueueError};
use crate::function::{Function, OnComplete, RetryPolicy};
use crate::model::{
    ArgBytes, FunctionKind, Name, OnCompleteCall, Payload, RetryBehavior, Segment, SpanLink, Spec,
    SpecOptions, WorkId,
};
use crate::registry::encode;
use crate::shared::{PoolShared, Shared};

/// A work, or a batch of works of one function, that is about to be enqueued.
///
/// `T` is where to: a pool ([`Workpool::enqueue`](crate::Workpool::enqueue)), a pool in one go
/// ([`Workpool::enqueue_batch`](crate::Workpool::enqueue_batch)) or a transaction's pool
/// ([`TransactionPool::enqueue`](crate::TransactionPool::enqueue)).
#[must_use = "a work is enqueued when this is awaited, or by `do_enqueue` or `submit`"]
pub struct Enqueue<T, F, K> {
    pub(crate) target: T,
    pub(crate) functions: Vec<F>,
    pub(crate) options: Options,
    kind: PhantomData<fn() -> K>,
}

/// Targets that take one work at a time, so that its id can be chosen.
pub trait OneWork {}

impl OneWork for &crate::Workpool {}
impl OneWork for crate::TransactionPool<'_, '_> {}

/// Many works for one pool. See [`Workpool::enqueue_batch`](crate::Workpool::enqueue_batch).
#[derive(Debug)]
pub struct Batch<'p>(pub(crate) &'p crate::Workpool);

/// What can be said about how a work is run.
#[derive(Default)]
pub(crate) struct Options {
    ids: Ids,
    due: Due,
    retry: RetryPolicy,
    timeout: Option<Duration>,
    on_complete: Option<Result<OnCompleteCall, serde_json::Error>>,
    on_finish: Option<OnFinish>,
}

#[derive(Default)]
enum Ids {
    /// Made with the works.
    #[default]
    Fresh,
    /// One for each work, in order.
    Chosen(Vec<WorkId>),
}

#[derive(Default)]
enum Due {
    #[default]
    Now,
    After(Duration),
    At(SystemTime),
}

/// Works as they go to the store.
pub(crate) struct Prepared {
    /// Each with the time before which it is not started.
    pub works: Vec<(Arc<Spec>, Segment)>,
    /// Whether the ids were just made, so that no other work can have them.
    pub fresh: bool,
    pub on_finish: Option<OnFinish>,
}

impl<T, F: Function<K>, K> Enqueue<T, F, K> {
    pub(crate) fn new(target: T, functions: Vec<F>) -> Self {
        Enqueue { target, functions, options: Options::default(), kind: PhantomData }
    }

    /// Chooses the id. If a work of this id is there or was there (as long as its outcome is remembered), nothing is
    /// enqueued and the handle is on that one.
    pub fn id(mut self, work_id: WorkId) -> Self
    where
        T: OneWork,
    {
        self.options.ids = Ids::Chosen(vec![work_id]);
        self
    }

    /// Starts it no earlier than after `delay`; at most [`MAX_DELAY`].
    pub fn run_after(mut self, delay: Duration) -> Self {
        self.options.due = Due::After(delay);
        self
    }

    /// Starts it no earlier than at `time`; a time that has passed is now.
    pub fn run_at(mut self, time: SystemTime) -> Self {
        self.options.due = Due::At(time);
        self
    }

    /// Retries failed attempts like this, whatever the function and the pool say.
    pub fn retry(mut self, behavior: RetryBehavior) -> Self {
        self.options.retry = RetryPolicy::With(behavior);
        self
    }

    /// Makes one attempt only, whatever the function and the pool say.
    pub fn no_retry(mut self) -> Self {
        self.options.retry = RetryPolicy::Never;
        self
    }

    /// Limits each attempt to `timeout`, whatever the function and the pool say. For actions; mutations and queries run
    /// in the store and have no timeout.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.options.timeout = Some(timeout);
        self
    }

    /// Runs `C` in the commit that completes the work, with this context.
    pub fn on_complete<C: OnComplete<Output = F::Output>>(mut self, context: C::Context) -> Self {
        let call = encode(&context)
            .map(|context| OnCompleteCall { name: Name::from_static(C::NAME), context });
        self.options.on_complete = Some(call);
        self
    }

    pub(crate) fn on_finish(mut self, on_finish: OnFinish) -> Self {
        self.options.on_finish = Some(on_finish);
        self
    }
}

impl<F: Function<K>, K> Enqueue<Batch<'_>, F, K> {
    /// Chooses the id of each work, as [`id`](Self::id) does of one: what was enqueued before is not enqueued again, and
    /// neither is what the batch has twice. So a batch that may or may not have been enqueued can simply be repeated.
    ///
    /// An id that is made of what is to be done needs no list of what was enqueued already:
    ///
    /// ```
    /// # actix_workpool::doctest::run(async {
    /// # let runtime = actix_workpool::doctest::runtime().await?;
    /// # use actix_workpool::{WorkId, doctest::Double};
    /// # use uuid::Uuid;
    /// let pool = runtime.pool("default")?;
    /// let id = |work: &Double| WorkId::from_uuid(Uuid::from_u128(work.0.into()));
    /// pool.enqueue_batch([Double(1), Double(2)]).ids(id).await?;
    /// let works = pool.enqueue_batch([Double(2), Double(3)]).ids(id).await?; // enqueues 3
    /// assert_eq!(works.join().await, [Ok(4), Ok(6)]);
    /// assert_eq!(pool.diagnostics().await?.report.succeeded, 3);
    /// # runtime.shutdown(std::time::Duration::ZERO).await;
    /// # Ok(()) });
    /// ```
    pub fn ids(mut self, id: impl FnMut(&F) -> WorkId) -> Self {
        self.options.ids = Ids::Chosen(self.functions.iter().map(id).collect());
        self
    }
}

impl<T, F, K> std::fmt::Debug for Enqueue<T, F, K> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Enqueue").field("works", &self.functions.len()).finish_non_exhaustive()
    }
}

/// Checks everything that can be checked here, and encodes. The works come in order.
pub(crate) fn prepare<F: Function<K>, K>(
    functions: &[F],
    mut options: Options,
    shared: &Shared,
    pool: &PoolShared,
) -> Result<Prepared, EnqueueError> {
    let mut prepared = Prepared { works: Vec::new(), fresh: true, on_finish: None };
    let Some(first) = functions.first() else { return Ok(prepared) };
    let ids = std::mem::take(&mut options.ids);
    let mut common = Common::new(first, options, shared, pool)?;
    // Ids that are drawn from a seed may have been drawn before.
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

/// What the works of one enqueue have in common, checked once.
struct Common {
    pool: crate::model::PoolId,
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
        let registered = shared.registry.get(name).ok_or(EnqueueError::UnknownFunction(name))?;
        let settings = pool.settings();
        let due = due_segment(options.due, shared)?;

        let retry = resolve_retry(options.retry, registered.retry, &settings)?;
        // What runs in the store cannot be dropped midway, and waits for its turn there.
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
            shared.registry.get(call.name).ok_or(EnqueueError::UnknownFunction(call.name))?;
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

/// The enqueue's word goes before the function's, and that before the pool's.
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
        // At once, that is in the slice of time under way.
        Due::Now => return Ok(shared.seams.segment()),
        Due::After(delay) if planted!(DelayHalved) => delay / 2,
        Due::After(delay) => delay,
        // By the wall clock of this moment; the pool's own need not agree with it.
        Due::At(time) => shared.seams.until_wall(time),
    };
    if delay > MAX_DELAY {
        return Err(EnqueueError::TooFarAhead { given: delay, max: MAX_DELAY });
    }
    Ok(Segment(0).after(shared.seams.now() + delay))
}

/// The payload of a follow-up work of a failed `on_complete`.
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
