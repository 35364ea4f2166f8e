//! Answers with OpenAPI schemas. Each one is made from its twin in the engine or the model, which have no schemas.

use std::borrow::Cow;

use serde::Serialize;
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{Object, ObjectBuilder, OneOfBuilder, Schema, SchemaType, Type};
use utoipa::{PartialSchema, ToSchema};

use super::big::Big;
use crate::engine;
use crate::model::{self, Cursor, Name, WorkId};

/// Defines enums that mirror a twin, variant by variant.
macro_rules! twins {
    ($($(#[$doc:meta])* $name:ident of $twin:path { $($variant:ident,)* })*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
        #[serde(rename_all = "snake_case")]
        pub(crate) enum $name {
            $($variant,)*
        }

        impl From<$twin> for $name {
            fn from(twin: $twin) -> $name {
                use $twin as Twin;
                match twin {
                    $(Twin::$variant => $name::$variant,)*
                }
            }
        }
    )*};
}

twins! {
    /// The answer to a cancel.
    CancelAnswer of engine::arrivals::CancelAnswer {
        Requested,
        AlreadyRequested,
        AlreadyFinished,
        NotFound,
    }

    /// The answer to the request to run a job now.
    RunNowAnswer of engine::arrivals::RunNowAnswer {
        Moved,
        AlreadyDue,
        NotRegistered,
        Canceled,
        Running,
        AlreadyFinished,
        NotFound,
    }

    /// The answer to a change of the priority.
    PriorityAnswer of engine::arrivals::PriorityAnswer {
        Changed,
        Canceled,
        Running,
        AlreadyFinished,
        NotFound,
    }

    /// The basis of an expected start.
    Basis of engine::explain::Basis {
        Due,
        Estimate,
        AtTheEarliest,
    }

    /// The kind of a failure.
    FailureKind of model::FailureKind {
        Error,
        Panic,
        Timeout,
        Lost,
        Decode,
        Encode,
    }
}

/// The answer to the request to retry a failed job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(tag = "answer", content = "work_id", rename_all = "snake_case")]
pub(crate) enum RetryAnswer {
    /// The job was enqueued once more, as a new job with this id.
    Enqueued(WorkId),
    /// The job was already enqueued once more, with this id.
    AlreadyEnqueued(WorkId),
    /// The job has not failed: it has no outcome yet, or another one.
    NotFailed,
    /// The job's function is not registered in this process.
    NotRegistered,
    /// This process has not started the job's pool.
    PoolNotStarted,
    /// No job of this id is known.
    NotFound,
}

impl From<engine::arrivals::RetryAnswer> for RetryAnswer {
    fn from(twin: engine::arrivals::RetryAnswer) -> RetryAnswer {
        use engine::arrivals::RetryAnswer as Twin;
        match twin {
            Twin::Enqueued(work_id) => RetryAnswer::Enqueued(work_id),
            Twin::AlreadyEnqueued(work_id) => RetryAnswer::AlreadyEnqueued(work_id),
            Twin::NotFailed => RetryAnswer::NotFailed,
            Twin::NotRegistered => RetryAnswer::NotRegistered,
            Twin::PoolNotStarted => RetryAnswer::PoolNotStarted,
            Twin::NotFound => RetryAnswer::NotFound,
        }
    }
}

/// One of these words.
pub(crate) fn words(all: &[&str]) -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::String).enum_values(Some(all.iter().copied()))
}

/// Returns the schema of a size, or empty.
pub(crate) fn size_or_nothing(most: usize, usual: usize) -> Schema {
    let size = ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(1));
    let size = size.maximum(Some(most)).default(Some(usual.into()));
    OneOfBuilder::new().item(size).item(words(&[""])).build().into()
}

pub(super) fn state() -> Object {
    words(&["pending", "running", "finished"]).build()
}

pub(super) fn pool_status() -> Object {
    words(&["paused", "full", "running", "idle"]).build()
}

pub(super) fn outcome_if_any() -> Object {
    let all = [Some("success"), Some("failed"), Some("canceled"), None];
    let kinds = SchemaType::from_iter([Type::String, Type::Null]);
    ObjectBuilder::new().schema_type(kinds).enum_values(Some(all)).build()
}

/// Types that are strings in JSON.
macro_rules! texts {
    ($($of:ty, $name:literal, $says:literal, $pattern:expr;)*) => { $(
        impl PartialSchema for $of {
            fn schema() -> RefOr<Schema> {
                let text = ObjectBuilder::new().schema_type(Type::String);
                text.description(Some($says)).pattern($pattern).build().into()
            }
        }

        impl ToSchema for $of {
            fn name() -> Cow<'static, str> {
                $name.into()
            }
        }
    )* };
}

texts! {
    Big, "Big", "A number of 64 bits.", Some("^(0|[1-9][0-9]{0,19})$");
    Name, "Name", "The name of a pool or a function.", None::<&str>;
    WorkId, "WorkId", "The id of a job, a UUID.", None::<&str>;
    Cursor, "Cursor", "Where a page ends and the next one begins.", None::<&str>;
}
