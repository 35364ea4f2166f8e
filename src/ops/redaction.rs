//! Redaction: replaces texts that may be secret.

use std::borrow::Cow;
use std::sync::Arc;

use crate::model::Name;

/// The kind of a text that is about to be shown. For [`Dashboard::redact`](crate::web::Dashboard::redact).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Sensitive {
    /// The arguments of a job, as JSON.
    Args,
    /// The result of a job, as JSON.
    Output,
    /// The message of an error or a panic.
    Error,
    /// The note of an attempt's progress.
    Progress,
    /// The key of a job. In the list of the keys of a pool, where the functions of the jobs are not known, a key is shown
    /// as it is only if that is what each registered function, and one with an empty name, would have it.
    Key,
}

type Redact = dyn Fn(Sensitive, Name, &str) -> String + Send + Sync;

/// Replaces texts before they are shown. By default every text is shown as it is.
#[derive(Clone, Default)]
pub(crate) struct Redaction(Option<Arc<Redact>>);

impl Redaction {
    pub fn by(redact: impl Fn(Sensitive, Name, &str) -> String + Send + Sync + 'static) -> Self {
        Redaction(Some(Arc::new(redact)))
    }

    /// Returns the text to show. `of` is the function that produced it.
    pub fn shown<'a>(&self, what: Sensitive, of: Name, text: &'a str) -> Cow<'a, str> {
        match &self.0 {
            Some(redact) => redact(what, of, text).into(),
            None => text.into(),
        }
    }
}
