//! The dashboard: an operator of a runtime with an authorizer.

use std::fmt;
use std::sync::Arc;

use tokio::sync::Semaphore;

use super::Authorizer;
use super::authorizer::AnyAuthorizer;
use crate::model::Name;
use crate::ops::{Operator, Redaction, Sensitive};
use crate::runtime::Runtime;

/// The maximum number of clients that listen to events at once. They share one look-up of the pools.
const MOST_CLIENTS: usize = 32;

/// A dashboard over a runtime. Made by [`workpool_dashboard`]; clones share one dashboard.
#[derive(Clone)]
#[must_use = "a dashboard is seen where its scope is"]
pub struct Dashboard {
    /// Keeps the runtime alive.
    runtime: Runtime,
    operator: Operator,
    authorizer: Arc<dyn AnyAuthorizer>,
    /// One permit per listening client.
    clients: Arc<Semaphore>,
    /// The accepted host names; `None` accepts all.
    hosts: Option<Arc<[String]>>,
}

impl fmt::Debug for Dashboard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dashboard").field("runtime", &self.runtime).finish_non_exhaustive()
    }
}

/// Creates a dashboard with a JSON API for the users that the authorizer allows. See [the module](crate::web).
///
/// Create it once and use its [`scope`](Dashboard::scope) in each worker's app.
pub fn workpool_dashboard(runtime: Runtime, authorizer: impl Authorizer) -> Dashboard {
    Dashboard {
        operator: Operator::new(runtime.client().clone()),
        runtime,
        authorizer: Arc::new(authorizer),
        clients: Arc::new(Semaphore::new(MOST_CLIENTS)),
        hosts: None,
    }
}

impl Dashboard {
    /// Sets the redaction: a function that returns the text shown in place of arguments, results, error messages,
    /// progress notes and keys. Lists show the beginning of what it returns for arguments, if those have at most 16 KiB.
    ///
    /// ```
    /// # use actix_workpool::{Runtime, web::{Sensitive, insecure_allow_all, workpool_dashboard}};
    /// # fn with(runtime: Runtime) {
    /// let dashboard = workpool_dashboard(runtime, insecure_allow_all()).redact(
    ///     |what, function, text| match (what, function.as_str()) {
    ///         (Sensitive::Output, "token.issue") => "(secret)".to_owned(),
    ///         _ => text.to_owned(),
    ///     },
    /// );
    /// # }
    /// ```
    pub fn redact(
        mut self,
        shown: impl Fn(Sensitive, Name, &str) -> String + Send + Sync + 'static,
    ) -> Self {
        self.operator.redaction = Redaction::by(shown);
        self
    }

    /// Accepts requests only for these names in the `Host` header; the port does not matter. Other requests are
    /// answered with 421, except `healthz`. By default every name is accepted.
    ///
    /// This protects against DNS rebinding. See [the module](crate::web).
    ///
    /// ```
    /// # use actix_workpool::{Runtime, web::{insecure_allow_all, workpool_dashboard}};
    /// # fn with(runtime: Runtime) {
    /// let dashboard = workpool_dashboard(runtime, insecure_allow_all())
    ///     .hosts(["localhost", "127.0.0.1", "[::1]"]);
    /// # }
    /// ```
    pub fn hosts<S: Into<String>>(mut self, names: impl IntoIterator<Item = S>) -> Self {
        self.hosts = Some(names.into_iter().map(Into::into).collect());
        self
    }

    pub(super) fn operator(&self) -> &Operator {
        &self.operator
    }

    pub(super) fn authorizer(&self) -> &dyn AnyAuthorizer {
        &*self.authorizer
    }

    pub(super) fn known_hosts(&self) -> Option<&[String]> {
        self.hosts.as_deref()
    }

    pub(super) fn clients(&self) -> Arc<Semaphore> {
        self.clients.clone()
    }
}
