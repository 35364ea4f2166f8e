//! The functions that a runtime can run, with their types erased.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use hashbrown::HashMap;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::context::ActionContext;
use crate::error::{ConfigError, StartError, WorkError, WorkErrorKind};
use crate::function::{
    Action, ActionKey, BlockingAction, Completion, CompletionResult, Mutation, OnComplete, Query,
    RetryPolicy,
};
use crate::model::{
    Failure, FailureKind, FunctionKind, Name, Outcome, Payload, RunResult, Spec, WorkId, cut,
};
use crate::transaction::{Reader, Transaction};

/// The future of one attempt. It stays on the thread on which it was made.
pub(crate) type AttemptFuture = Pin<Box<dyn Future<Output = RunResult>>>;

type RunAction = Box<dyn Fn(&[u8], ActionContext) -> Result<AttemptFuture, Failure> + Send + Sync>;
type RunBlocking = fn(&[u8], &ActionContext) -> RunResult;
type ApplyMutation = fn(&[u8], &mut Transaction<'_>) -> RunResult;
type ReadQuery = fn(&[u8], &mut Reader<'_>) -> RunResult;
type ApplyOnComplete = fn(&mut Transaction<'_>, &CompletionCall) -> RunResult;

/// How a function is run.
pub(crate) enum Code {
    Action(RunAction),
    Blocking(RunBlocking),
    Mutation(ApplyMutation),
    Query(ReadQuery),
    OnComplete(ApplyOnComplete),
}

/// A function with its own defaults.
pub(crate) struct Registered {
    pub code: Code,
    pub retry: RetryPolicy,
    pub timeout: Option<Duration>,
}

/// A completion on its way to an `on_complete`: also the stored arguments of a follow-up work.
#[derive(Serialize, Deserialize)]
pub(crate) struct CompletionCall {
    pub work_id: WorkId,
    pub context: Payload,
    pub outcome: Outcome,
    pub attempts: u32,
}

#[derive(Default)]
pub(crate) struct Registry {
    functions: HashMap<Name, Registered>,
    /// The first name that was registered twice.
    duplicate: Option<Name>,
}

impl Registry {
    pub fn get(&self, name: Name) -> Option<&Registered> {
        self.functions.get(&name)
    }

    #[cfg(feature = "actix-web")]
    pub fn iter(&self) -> impl Iterator<Item = (Name, &Registered)> {
        self.functions.iter().map(|(name, registered)| (*name, registered))
    }

    /// Whether this process has the code that a work needs.
    pub fn can_run(&self, spec: &Spec) -> bool {
        matches!(
            (spec.kind, self.get(spec.function).map(|function| &function.code)),
            (FunctionKind::Action, Some(Code::Action(_) | Code::Blocking(_)))
                | (FunctionKind::Mutation, Some(Code::Mutation(_)))
                | (FunctionKind::Query, Some(Code::Query(_)))
                | (FunctionKind::OnComplete, Some(Code::OnComplete(_)))
        )
    }

    /// Everything that is wrong with what was registered.
    pub fn validate(&self) -> Result<(), StartError> {
        if let Some(name) = self.duplicate {
            return Err(StartError::DuplicateFunction(name));
        }
        for (name, registered) in &self.functions {
            let checked = validate_name(name.as_str()).and_then(|()| match registered.retry {
                RetryPolicy::With(behavior) => behavior.validate(),
                _ => Ok(()),
            });
            checked.map_err(|error| StartError::Function { function: *name, error })?;
        }
        Ok(())
    }

    fn insert(&mut self, name: Name, code: Code, retry: RetryPolicy, timeout: Option<Duration>) {
        let previous = self.functions.insert(name, Registered { code, retry, timeout });
        if previous.is_some() {
            self.duplicate.get_or_insert(name);
        }
    }

    pub fn action<A: Action>(&mut self) {
        let run = |args: &[u8], cx: ActionContext| -> Result<AttemptFuture, Failure> {
            let action: A = decode(args)?;
            Ok(Box::pin(async move { finished(action.run(cx).await) }))
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
            Ok(Box::pin(async move { finished(attempt.await) }))
        };
        self.insert(key.name, Code::Action(Box::new(run)), RetryPolicy::Inherit, None);
    }

    pub fn blocking_action<B: BlockingAction>(&mut self) {
        let run: RunBlocking = |args, cx| match decode::<B>(args) {
            Ok(action) => finished(action.run(cx)),
            Err(failure) => RunResult::Failed(failure),
        };
        self.insert(Name::from_static(B::NAME), Code::Blocking(run), B::RETRY, B::TIMEOUT);
    }

    pub fn mutation<M: Mutation>(&mut self) {
        let apply: ApplyMutation = |args, tx| match decode::<M>(args) {
            Ok(mutation) => finished(mutation.apply(tx)),
            Err(failure) => RunResult::Failed(failure),
        };
        self.insert(Name::from_static(M::NAME), Code::Mutation(apply), M::RETRY, None);
    }

    pub fn query<Q: Query>(&mut self) {
        let read: ReadQuery = |args, reader| match decode::<Q>(args) {
            Ok(query) => finished(query.read(reader)),
            Err(failure) => RunResult::Failed(failure),
        };
        self.insert(Name::from_static(Q::NAME), Code::Query(read), RetryPolicy::Inherit, None);
    }

    pub fn on_complete<C: OnComplete>(&mut self) {
        let apply: ApplyOnComplete = |tx, call| match completion::<C>(call) {
            Ok(done) => finished(C::apply(tx, done)),
            Err(failure) => RunResult::Failed(failure),
        };
        let name = Name::from_static(C::NAME);
        self.insert(name, Code::OnComplete(apply), RetryPolicy::Inherit, None);
    }
}

/// Names are stored with every row; 200 bytes are enough to say what something does.
pub(crate) fn validate_name(name: &str) -> Result<(), ConfigError> {
    match name.len() {
        1..=200 => Ok(()),
        _ => Err(ConfigError::NameLength { given: name.to_owned() }),
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

/// The outcome of a work, with its result decoded.
pub(crate) fn decode_outcome<O: DeserializeOwned>(
    outcome: &Outcome,
) -> Result<CompletionResult<O>, Failure> {
    Ok(match outcome {
        Outcome::Success(output) => CompletionResult::Success(decode(output.as_bytes())?),
        Outcome::Failed(failure) => CompletionResult::Failed(failure.clone()),
        Outcome::Canceled => CompletionResult::Canceled,
    })
}

/// Decodes stored JSON; what does not decode never will, and the failure names the field.
pub(crate) fn decode<T: DeserializeOwned>(json: &[u8]) -> Result<T, Failure> {
    serde_json::from_slice(json).map_err(|error| {
        // Only now, for it is slow: where in the value it went wrong. The value itself is not repeated.
        let mut decoder = serde_json::Deserializer::from_slice(json);
        let field = match serde_path_to_error::deserialize::<_, T>(&mut decoder) {
            Err(error) => error.path().to_string(),
            Ok(_) => ".".to_owned(),
        };
        let message = error.to_string();
        let problem = match message.split_once(": ") {
            // "invalid type: string \"secret\", expected u64 at line 1 column 9"
            Some((problem, rest)) => match rest.rsplit_once("expected ") {
                Some((_, expected)) => format!("{problem}, expected {expected}"),
                None => problem.to_owned(),
            },
            None => message,
        };
        let place = if field == "." { String::new() } else { format!("field `{field}`: ") };
        Failure::permanent(FailureKind::Decode, format!("{place}{problem}"))
    })
}

/// What the function returned, as the store keeps it.
fn finished<O: Serialize>(returned: Result<O, WorkError>) -> RunResult {
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
    }
}

/// Messages of failures are cut to this: an error may carry a whole page that a server has sent.
const MAX_MESSAGE_BYTES: usize = 16 * 1024;

/// A result that is too large to keep fails its work: another attempt would give the same. A message that is too large
/// is cut.
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

/// Encodes a value through a buffer that is kept, so that the only allocation is that of the payload itself.
pub(crate) fn encode<T: Serialize + ?Sized>(value: &T) -> Result<Payload, serde_json::Error> {
    use std::cell::RefCell;
    thread_local!(static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) });
    BUFFER.with(|buffer| match buffer.try_borrow_mut() {
        Ok(mut buffer) => {
            buffer.clear();
            // One large result does not keep its memory for ever.
            buffer.shrink_to(64 * 1024);
            serde_json::to_writer(&mut *buffer, value)?;
            Ok(Payload::new(&buffer))
        }
        // A `Serialize` that itself encodes a payload.
        Err(_) => Ok(Payload::new(&serde_json::to_vec(value)?)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    #[allow(dead_code)]
    struct Args {
        to: String,
        retries: Inner,
    }

    #[derive(Debug, Deserialize)]
    #[allow(dead_code)]
    struct Inner {
        count: u64,
    }

    fn problem(json: &str) -> String {
        decode::<Args>(json.as_bytes()).expect_err("does not decode").message
    }

    #[test]
    fn a_value_of_the_wrong_type_is_named_by_its_field_and_not_shown() {
        let message = problem(r#"{"to":"a","retries":{"count":"s3cret"}}"#);
        assert!(message.contains("retries.count"), "{message}");
        assert!(message.contains("u64"), "{message}");
        assert!(!message.contains("s3cret"), "{message}");
    }

    #[test]
    fn a_missing_field_is_named() {
        let message = problem(r#"{"retries":{"count":1}}"#);
        assert!(message.contains("missing field `to`"), "{message}");
    }

    #[test]
    fn null_takes_no_memory() {
        assert!(encode(&()).expect("encodes").is_empty());
        assert_eq!(encode(&1).expect("encodes").as_bytes(), b"1");
    }
}
