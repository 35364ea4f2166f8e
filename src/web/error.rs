//! Errors as HTTP answers: a status, a stable code, and a message.
//!
//! Messages of functions and of the storage are not sent to clients: these errors have no details.

use std::borrow::Cow;
use std::fmt;

use actix_web::http::StatusCode;
use actix_web::http::header::{HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use actix_web::{HttpResponse, HttpResponseBuilder, ResponseError};

use serde::Serialize;
use utoipa::ToSchema;

use crate::client::{EnqueueError, JoinError, PoolError, QueryError};
use crate::model::WorkId;
use crate::ops::OpsError;

/// The body of every error answer.
#[derive(Serialize, ToSchema)]
#[schema(as = Error)]
pub(super) struct ErrorAnswer<'a> {
    pub error: ErrorBody<'a>,
}

#[derive(Serialize, ToSchema)]
pub(super) struct ErrorBody<'a> {
    /// A stable code: it does not change between versions.
    pub code: &'a str,
    pub message: &'a str,
}

/// An error of the dashboard or of an extractor.
#[derive(Debug)]
pub(super) struct ApiError {
    pub status: StatusCode,
    pub code: &'static str,
    pub message: Cow<'static, str>,
    /// An additional header of the answer, if any.
    header: Option<(HeaderName, HeaderValue)>,
}

impl ApiError {
    pub fn new(
        status: StatusCode,
        code: &'static str,
        message: impl Into<Cow<'static, str>>,
    ) -> ApiError {
        ApiError { status, code, message: message.into(), header: None }
    }

    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> ApiError {
        self.header = Some((name, value));
        self
    }

    /// Begins the answer: its status and headers, without the body.
    pub fn begin(&self) -> HttpResponseBuilder {
        let mut answer = HttpResponse::build(self.status);
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            answer.insert_header((RETRY_AFTER, "1"));
        }
        if let Some(header) = &self.header {
            answer.insert_header(header.clone());
        }
        answer
    }

    pub fn invalid(message: impl Into<Cow<'static, str>>) -> ApiError {
        ApiError::new(StatusCode::BAD_REQUEST, "invalid_value", message)
    }

    pub fn forbidden(message: &'static str) -> ApiError {
        ApiError::new(StatusCode::FORBIDDEN, "forbidden", message)
    }

    pub fn no_such_work(work_id: WorkId) -> ApiError {
        let message = format!("job {work_id} is not known, or its outcome is forgotten");
        ApiError::new(StatusCode::NOT_FOUND, "unknown_work", message)
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl ResponseError for ApiError {
    fn status_code(&self) -> StatusCode {
        self.status
    }

    fn error_response(&self) -> HttpResponse {
        let error = ErrorBody { code: self.code, message: &self.message };
        self.begin().json(ErrorAnswer { error })
    }
}

const SHUT_DOWN: (StatusCode, &str) = (StatusCode::SERVICE_UNAVAILABLE, "shut_down");
const STORAGE: (StatusCode, &str) = (StatusCode::SERVICE_UNAVAILABLE, "storage_failed");
const INVALID: (StatusCode, &str) = (StatusCode::BAD_REQUEST, "invalid_value");

/// Converts an error into the answer that the client gets.
trait Answer: fmt::Display {
    fn kind(&self) -> (StatusCode, &'static str);

    fn answer(&self) -> ApiError {
        let (status, code) = self.kind();
        match code {
            "storage_failed" => ApiError::new(status, code, "the storage failed"),
            "work_failed" => ApiError::new(status, code, "the job failed"),
            "internal" => ApiError::new(status, code, "the request could not be carried out"),
            _ => ApiError::new(status, code, self.to_string()),
        }
    }
}

const INTERNAL: (StatusCode, &str) = (StatusCode::INTERNAL_SERVER_ERROR, "internal");

impl Answer for PoolError {
    fn kind(&self) -> (StatusCode, &'static str) {
        match self {
            PoolError::Unknown { .. } => (StatusCode::NOT_FOUND, "unknown_pool"),
            PoolError::UnknownSchedule { .. } => (StatusCode::NOT_FOUND, "unknown_schedule"),
            PoolError::Duplicate(_) => (StatusCode::CONFLICT, "duplicate_pool"),
            PoolError::Config(_) => INVALID,
            PoolError::Closed => SHUT_DOWN,
            PoolError::Storage(_) => STORAGE,
        }
    }
}

impl Answer for EnqueueError {
    fn kind(&self) -> (StatusCode, &'static str) {
        match self {
            EnqueueError::TooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "too_large"),
            EnqueueError::Overloaded { .. } => (StatusCode::SERVICE_UNAVAILABLE, "overloaded"),
            EnqueueError::TooFarAhead { .. } => (StatusCode::BAD_REQUEST, "too_far_ahead"),
            EnqueueError::Config(_) => INVALID,
            EnqueueError::Encode(_) | EnqueueError::UnknownFunction { .. } => INTERNAL,
            EnqueueError::Closed => SHUT_DOWN,
            EnqueueError::Storage(_) => STORAGE,
        }
    }
}

impl Answer for QueryError {
    fn kind(&self) -> (StatusCode, &'static str) {
        match self {
            QueryError::UnknownFunction(_) | QueryError::Failed(_) | QueryError::Json(_) => {
                INTERNAL
            }
            QueryError::Closed => SHUT_DOWN,
            QueryError::Storage(_) => STORAGE,
        }
    }
}

impl Answer for JoinError {
    fn kind(&self) -> (StatusCode, &'static str) {
        match self {
            JoinError::Failed { .. } => (StatusCode::INTERNAL_SERVER_ERROR, "work_failed"),
            JoinError::Canceled => (StatusCode::CONFLICT, "work_canceled"),
            JoinError::Unknown(_) => (StatusCode::NOT_FOUND, "unknown_work"),
            JoinError::Decode(_) => INTERNAL,
            JoinError::Closed => SHUT_DOWN,
            JoinError::Storage(_) => STORAGE,
        }
    }
}

impl From<PoolError> for ApiError {
    fn from(error: PoolError) -> ApiError {
        error.answer()
    }
}

impl From<OpsError> for ApiError {
    fn from(error: OpsError) -> ApiError {
        let message = error.to_string();
        match error {
            OpsError::Pool(error) => error.answer(),
            OpsError::Enqueue(error) => error.answer(),
            OpsError::UnknownWork(work_id) => ApiError::no_such_work(work_id),
            OpsError::TimedOut => {
                ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "timed_out", message)
            }
            OpsError::NoFilter => ApiError::new(StatusCode::BAD_REQUEST, "no_filter", message),
            OpsError::Invalid(problem) => ApiError::invalid(problem),
            OpsError::Partly { done, cause } => {
                let cause = ApiError::from(*cause);
                let message = format!("{}; {done} jobs were done before", cause.message);
                ApiError::new(cause.status, cause.code, message)
            }
        }
    }
}

impl From<EnqueueError> for ApiError {
    fn from(error: EnqueueError) -> ApiError {
        error.answer()
    }
}

macro_rules! response_error {
    ($($error:ty),*) => { $(
        /// Answers `{"error":{"code":"…","message":"…"}}`, without messages of functions or of the storage.
        impl ResponseError for $error {
            fn status_code(&self) -> StatusCode {
                self.kind().0
            }

            fn error_response(&self) -> HttpResponse {
                self.answer().error_response()
            }
        }
    )* };
}

response_error!(PoolError, EnqueueError, QueryError, JoinError);

impl super::Refusal {
    pub(super) fn into_error(self) -> Result<ApiError, Box<HttpResponse>> {
        Ok(match self {
            super::Refusal::Unauthorized { challenge } => {
                let error =
                    ApiError::new(StatusCode::UNAUTHORIZED, "unauthorized", "log in to go on");
                match challenge {
                    Some(challenge) => error.with_header(WWW_AUTHENTICATE, challenge),
                    None => error,
                }
            }
            super::Refusal::Forbidden => ApiError::forbidden("this is not for you to see"),
            super::Refusal::Response(answer) => return Err(answer),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Failure, FailureKind};

    #[test]
    fn what_a_function_has_said_is_not_told() {
        let failure = Failure::permanent(FailureKind::Error, "password is hunter2");
        let told = [
            JoinError::Failed { attempts: 1, failure: failure.clone() }.answer(),
            JoinError::Decode("hunter2".into()).answer(),
            QueryError::Failed(failure).answer(),
        ];
        for error in told {
            assert!(!error.message.contains("hunter2"), "{error:?}");
        }
    }

    #[test]
    fn the_caller_is_told_what_it_may_change() {
        let error = EnqueueError::TooLarge { size: 9, max: 8 }.answer();
        assert_eq!((error.status.as_u16(), error.code), (413, "too_large"));
        assert!(error.message.contains("at most 8"), "{error:?}");
        assert_eq!(
            PoolError::Unknown { name: "x".into(), pools: Vec::new() }.answer().status,
            StatusCode::NOT_FOUND
        );
        assert!(PoolError::Closed.answer().error_response().headers().contains_key(RETRY_AFTER));
    }
}
