//! The scope: what it is made of and where its routes are.

use std::borrow::Cow;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use actix_web::dev::HttpServiceFactory;
use actix_web::http::StatusCode;
use actix_web::middleware::from_fn;
use actix_web::{HttpMessage, HttpRequest, Resource, web};
use tokio::sync::{Mutex, Semaphore};
use tokio::time::Instant;

use super::api::Answer;
use super::authorizer::AnyAuthorizer;
use super::error::ApiError;
use super::events::{self, MOST_CLIENTS};
use super::view::Overview;
use super::{Authorizer, Permission, Permissions, api, guard, pages};
use crate::error::PoolError;
use crate::model::Name;
use crate::runtime::Runtime;

/// The largest body that is taken: no request needs more than a few words.
const LARGEST_BODY: usize = 4 << 10;

/// Whoever looks need not wait longer for a store that is busy or does not answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// The pools are looked at so often at most, however many are looking.
const OVERVIEW_AGE: Duration = Duration::from_millis(250);

/// What a text was said for, when it is about to be shown. For [`Dashboard::redact`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Sensitive {
    /// The result of a work, as JSON.
    Output,
    /// The message of an error or a panic.
    Error,
    /// The note of an attempt's progress.
    Progress,
}

type Redact = dyn Fn(Sensitive, Name, &str) -> String + Send + Sync;

/// The last look at the pools, and when it was.
type Last = (Instant, Arc<Overview>);

/// A dashboard over a runtime. Made by [`workpool_dashboard`]; clones are one dashboard.
#[derive(Clone)]
#[must_use = "a dashboard is seen where its scope is"]
pub struct Dashboard {
    runtime: Runtime,
    authorizer: Arc<dyn AnyAuthorizer>,
    redact: Option<Arc<Redact>>,
    last: Arc<Mutex<Option<Last>>>,
    /// A place for each who listens.
    clients: Arc<Semaphore>,
}

impl fmt::Debug for Dashboard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dashboard").field("runtime", &self.runtime).finish_non_exhaustive()
    }
}

/// A dashboard with a JSON API for those whom the authorizer lets in. See [the module](crate::web).
///
/// Make it once and take its [`scope`](Dashboard::scope) in each worker's app.
pub fn workpool_dashboard(runtime: Runtime, authorizer: impl Authorizer) -> Dashboard {
    Dashboard {
        runtime,
        authorizer: Arc::new(authorizer),
        redact: None,
        last: Arc::default(),
        clients: Arc::new(Semaphore::new(MOST_CLIENTS)),
    }
}

impl Dashboard {
    /// What is shown in place of results, error messages and progress notes. Arguments are never shown.
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
        self.redact = Some(Arc::new(shown));
        self
    }

    /// The scope under that prefix, such as `/workpool`. An empty one takes everything that nothing before it has taken.
    pub fn scope(&self, prefix: &str) -> impl HttpServiceFactory + use<> {
        let dashboard = self.clone();
        let resource = |path: &str| -> Resource {
            web::resource(path.to_owned()).default_service(web::to(not_allowed))
        };
        web::scope(prefix.trim_end_matches('/'))
            .app_data(web::Data::new(self.clone()))
            .app_data(web::PayloadConfig::new(LARGEST_BODY))
            .service(resource("/healthz").get(api::healthz))
            .service(resource("/api/overview").get(api::overview))
            .service(resource("/api/works").get(api::works))
            .service(resource("/api/works/{id}").get(api::work))
            .service(resource("/api/works/{id}/cancel").post(api::cancel))
            .service(resource("/api/works/{id}/abort").post(api::abort))
            .service(resource("/api/works/{id}/run").post(api::run))
            .service(resource("/api/pools/{name}").get(api::pool).patch(api::configure))
            .service(resource("/api/events").get(events::events))
            .service(resource("").get(pages::without_slash))
            .service(resource("/").get(pages::overview))
            .service(resource("/works").get(pages::works))
            .service(resource("/find").get(pages::find))
            .service(resource("/works/{id}").get(pages::work))
            .service(resource("/works/{id}/cancel").post(pages::cancel))
            .service(resource("/works/{id}/abort").post(pages::abort))
            .service(resource("/works/{id}/run").post(pages::run))
            .service(resource("/pools/{name}").post(pages::configure))
            .service(resource("/assets/workpool.css").get(pages::style))
            .service(resource("/assets/workpool.js").get(pages::script))
            .default_service(web::to(not_found))
            .wrap(from_fn(move |request, next| guard::guard(dashboard.clone(), request, next)))
    }

    pub(super) fn runtime(&self) -> &Runtime {
        &self.runtime
    }

    pub(super) fn authorizer(&self) -> &dyn AnyAuthorizer {
        &*self.authorizer
    }

    pub(super) fn clients(&self) -> Arc<Semaphore> {
        self.clients.clone()
    }

    pub(super) fn shown<'a>(&self, what: Sensitive, of: Name, text: &'a str) -> Cow<'a, str> {
        match &self.redact {
            Some(redact) => redact(what, of, text).into(),
            None => text.into(),
        }
    }

    /// The pools in numbers, not older than a moment.
    pub(super) async fn overview(&self) -> Result<Arc<Overview>, ApiError> {
        // Whoever waits behind one who waits for the store gives up at the same time.
        in_time(async {
            let mut last = self.last.lock().await;
            if let Some((at, overview)) = &*last
                && at.elapsed() < OVERVIEW_AGE
            {
                return Ok(overview.clone());
            }
            let overview = Arc::new(Overview::of(&self.runtime).await?);
            *last = Some((Instant::now(), overview.clone()));
            Ok(overview)
        })
        .await
    }

    /// Something was changed, and whoever did that looks next.
    pub(super) async fn changed(&self) {
        *self.last.lock().await = None;
    }
}

/// Gives up on a store that does not answer.
pub(super) async fn in_time<T>(
    answer: impl Future<Output = Result<T, PoolError>>,
) -> Result<T, ApiError> {
    match tokio::time::timeout(PATIENCE, answer).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(ApiError::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "timed_out",
            "the pool has not answered in time; what was asked for may still happen",
        )),
    }
}

/// Errs unless whoever sent the request may do this.
pub(super) fn demand(request: &HttpRequest, permission: Permission) -> Result<(), ApiError> {
    match permissions(request).allow(permission) {
        true => Ok(()),
        false => Err(ApiError::forbidden("you may look, and not do this")),
    }
}

/// What the guard has found that the sender may do.
pub(super) fn permissions(request: &HttpRequest) -> Permissions {
    request.extensions().get().copied().unwrap_or(Permissions::read_only())
}

async fn not_found() -> Answer {
    Err(ApiError::new(StatusCode::NOT_FOUND, "not_found", "there is nothing here"))
}

async fn not_allowed() -> Answer {
    let message = "this cannot be done here with this method";
    Err(ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message))
}
