//! The registry: the functions that a runtime can run, with their types erased.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use hashbrown::HashMap;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{
    Action, ActionContext, BlockingAction, Completion, CompletionResult, Lent, Mutation,
    OnComplete, Query, Reader, Transaction, WorkError, WorkErrorKind,
};
use crate::client::{ActionKey, Client};
use crate::model::{
    ConfigError, Failure, FailureKind, FunctionKind, Name, Outcome, Payload, RetryPolicy,
    RunResult, WorkId, cut, decode, encode, encode_typed, validate_name,
};
use crate::shared::{Catalog, Registered, Shared};

/// The future of one attempt. It stays on the thread on which it was made.
pub(crate) type AttemptFuture = Pin<Box<dyn Future<Output = RunResult>>>;

type RunAction = Box<dyn Fn(&[u8], ActionContext) -> Result<AttemptFuture, Failure> + Send + Sync>;
type RunBlocking = fn(&[u8], &ActionContext) -> RunResult;
type ApplyMutation = fn(&[u8], &mut Transaction<'_>) -> RunResult;
type ReadQuery = fn(&[u8], &mut Reader<'_>) -> RunResult;
type ApplyOnComplete = fn(&mut Transaction<'_>, &CompletionCall) -> RunResult;

/// The code of a function, by its kind.
pub(crate) enum Code {
    Action(RunAction),
    Blocking(RunBlocking),
    Mutation(ApplyMutation),
    Query(ReadQuery),
    OnComplete(ApplyOnComplete),
}

/// The input of an `on_complete`, and the stored arguments of a follow-up job.
#[derive(Serialize, Deserialize)]
pub(crate) struct CompletionCall {
    pub work_id: WorkId,
    pub context: Payload,
    pub outcome: Outcome,
    pub attempts: u32,
}

/// The functions registered with a runtime's builder.
#[derive(Default)]
pub(crate) struct Registry {
    catalog: Catalog,
    code: HashMap<Name, Code>,
    /// The first name that was registered twice.
    duplicate: Option<Name>,
}

/// The functions of a runtime and the parts that they can use. One per runtime.
pub(crate) struct Program {
    pub lent: Arc<Lent>,
    code: HashMap<Name, Code>,
}

impl Program {
    pub fn new(lent: Lent, code: HashMap<Name, Code>) -> Program {
        Program { lent: Arc::new(lent), code }
    }

    pub fn code(&self, function: Name) -> Option<&Code> {
        self.code.get(&function)
    }

    pub fn client(&self) -> &Client {
        &self.lent.client
    }

    pub fn shared(&self) -> &Shared {
        &self.lent.client.shared
    }
}

impl Registry {
    pub fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// Returns the functions by name, and their code.
    pub fn into_parts(self) -> (Catalog, HashMap<Name, Code>) {
        (self.catalog, self.code)
    }

    /// Returns the first name that was registered twice, if there is one.
    pub fn duplicate(&self) -> Option<Name> {
        self.duplicate
    }

    /// Checks names and retry policies. Fails with the first invalid function.
    pub fn validate(&self) -> Result<(), (Name, ConfigError)> {
        for (name, registered) in self.catalog.iter() {
            let checked = validate_name(name.as_str()).and_then(|()| match registered.retry {
                RetryPolicy::With(behavior) => behavior.validate(),
                _ => Ok(()),
            });
            checked.map_err(|error| (name, error))?;
        }
        Ok(())
    }

    fn insert(&mut self, name: Name, code: Code, retry: RetryPolicy, timeout: Option<Duration>) {
        let (kind, blocking) = match &code {
            Code::Action(_) => (FunctionKind::Action, false),
            Code::Blocking(_) => (FunctionKind::Action, true),
            Code::Mutation(_) => (FunctionKind::Mutation, false),
            Code::Query(_) => (FunctionKind::Query, false),
            Code::OnComplete(_) => (FunctionKind::OnComplete, false),
        };
        self.code.insert(name, code);
        if self.catalog.insert(name, Registered { kind, blocking, retry, timeout }).is_some() {
            self.duplicate.get_or_insert(name);
        }
    }

    pub fn action<A: Action>(&mut self) {
        let run = |args: &[u8], cx: ActionContext| -> Result<AttemptFuture, Failure> {
            let action: A = decode(args)?;
            Ok(Box::pin(async move { finished(action.run(cx).await, encode_typed) }))
        };
        let name = Name::from_static(A::NAME);
        self.insert(name, Code::Action(Box::new(run)), A::RETRY, A::TIMEOUT);
    }

    pub fn action_fn<I, O, F, Fut>(&mut self, key: ActionKey<I, O>, closure: F)
    where
        I: DeserializeOwned + 'static,
        O: Serialize + 'static,
        F: Fn(I, ActionContext) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<O, WorkError>> + 'static,
    {
        let run = move |args: &[u8], cx: ActionContext| -> Result<AttemptFuture, Failure> {
            let attempt = closure(decode(args)?, cx);
            Ok(Box::pin(async move { finished(attempt.await, encode) }))
        };
        self.insert(key.name, Code::Action(Box::new(run)), RetryPolicy::Inherit, None);
    }

    pub fn blocking_action<B: BlockingAction>(&mut self) {
        let run: RunBlocking = |args, cx| match decode::<B>(args) {
            Ok(action) => finished(action.run(cx), encode_typed),
            Err(failure) => RunResult::Failed(failure),
        };
        self.insert(Name::from_static(B::NAME), Code::Blocking(run), B::RETRY, B::TIMEOUT);
    }

    pub fn mutation<M: Mutation>(&mut self) {
        let apply: ApplyMutation = |args, tx| match decode::<M>(args) {
            Ok(mutation) => finished(mutation.apply(tx), encode_typed),
            Err(failure) => RunResult::Failed(failure),
        };
        self.insert(Name::from_static(M::NAME), Code::Mutation(apply), M::RETRY, None);
    }

    pub fn query<Q: Query>(&mut self) {
        let read: ReadQuery = |args, reader| match decode::<Q>(args) {
            Ok(query) => finished(query.read(reader), encode_typed),
            Err(failure) => RunResult::Failed(failure),
        };
        self.insert(Name::from_static(Q::NAME), Code::Query(read), RetryPolicy::Inherit, None);
    }

    pub fn on_complete<C: OnComplete>(&mut self) {
        let apply: ApplyOnComplete = |tx, call| match completion::<C>(call) {
            Ok(done) => finished(C::apply(tx, done), encode),
            Err(failure) => RunResult::Failed(failure),
        };
        let name = Name::from_static(C::NAME);
        self.insert(name, Code::OnComplete(apply), RetryPolicy::Inherit, None);
    }
}

fn completion<C: OnComplete>(
    call: &CompletionCall,
) -> Result<Completion<C::Context, C::Output>, Failure> {
    Ok(Completion {
        work_id: call.work_id,
        context: decode(call.context.as_bytes())?,
        result: decode_outcome(&call.outcome)?,
        attempts: call.attempts,
    })
}

/// Decodes the result of an outcome.
pub(crate) fn decode_outcome<O: DeserializeOwned>(
    outcome: &Outcome,
) -> Result<CompletionResult<O>, Failure> {
    Ok(match outcome {
        Outcome::Success(output) => CompletionResult::Success(decode(output.as_bytes())?),
        Outcome::Failed(failure) => CompletionResult::Failed(failure.clone()),
        Outcome::Canceled => CompletionResult::Canceled,
    })
}

/// Encodes a function's result for the store.
fn finished<O>(
    returned: Result<O, WorkError>,
    encode: fn(&O) -> Result<Payload, serde_json::Error>,
) -> RunResult {
    match returned {
        Ok(output) => match encode(&output) {
            Ok(payload) => RunResult::Success(payload),
            Err(error) => {
                RunResult::Failed(Failure::permanent(FailureKind::Encode, error.to_string()))
            }
        },
        Err(WorkError(WorkErrorKind::Failed(failure))) => RunResult::Failed(failure),
        Err(WorkError(WorkErrorKind::Canceled)) => RunResult::Canceled,
        Err(WorkError(WorkErrorKind::Snooze(wait))) => RunResult::Snoozed(wait),
        Err(WorkError(WorkErrorKind::LimitPool(wait))) => RunResult::PoolLimited(wait),
        Err(WorkError(WorkErrorKind::LimitKey(wait))) => RunResult::KeyLimited(wait),
    }
}

/// The maximum length of a failure's message: an error may contain a server's whole response.
const MAX_MESSAGE_BYTES: usize = 16 * 1024;

/// Limits the size of a result. A result that is too large fails its job without a retry, since another attempt would
/// give the same; a message that is too large is cut.
pub(crate) fn limit_result(result: RunResult, max: usize) -> RunResult {
    match result {
        RunResult::Failed(mut failure) => {
            cut(&mut failure.message, MAX_MESSAGE_BYTES);
            RunResult::Failed(failure)
        }
        RunResult::Success(output) if output.len() > max => {
            let message = format!("result has {} bytes, at most {max} are kept", output.len());
            RunResult::Failed(Failure::permanent(FailureKind::Encode, message))
        }
        result => result,
    }
}
