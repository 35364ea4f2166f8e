//! The scope: what it is made of and where its routes are.

use std::borrow::Cow;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use actix_web::dev::HttpServiceFactory;
use actix_web::guard::fn_guard;
use actix_web::http::header::{ALLOW, HeaderValue};
use actix_web::http::{Method, StatusCode};
use actix_web::middleware::from_fn;
use actix_web::{HttpMessage, HttpRequest, Resource, Route, web};
use tokio::sync::{Mutex, Semaphore};
use tokio::time::Instant;

use super::api::Answer;
use super::authorizer::AnyAuthorizer;
use super::error::ApiError;
use super::events::{self, MOST_CLIENTS};
use super::view::{Overview, PoolView};
use super::{Authorizer, Permission, Permissions, api, bulk, guard, openapi, pages};
use crate::board::WorkStatus;
use crate::committer::Listing;
use crate::error::PoolError;
use crate::explain::Explanation;
use crate::list::{WorkFilter, WorkPage};
use crate::model::{Name, WorkId};
use crate::pool::{Workpool, list};
use crate::runtime::Runtime;

/// The largest body that is taken: no request needs more than a few words.
const LARGEST_BODY: usize = 4 << 10;

/// Whoever looks need not wait longer for a store that is busy or does not answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// The pools are looked at so often at most, however many are looking.
const OVERVIEW_AGE: Duration = Duration::from_millis(250);

/// After an answer that the store has looked up some works for, it is left alone for as long as it would take to look
/// up many more, so that the pools do not notice who looks. A listing says itself how long that should be.
const PAUSE_PER_WORK: Duration = Duration::from_micros(20);

/// An explanation counts up to a thousand works that come first.
const PAUSE_AFTER_EXPLANATION: Duration = Duration::from_millis(4);

/// What a text was said for, when it is about to be shown. For [`Dashboard::redact`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Sensitive {
    /// The arguments of a work, as JSON.
    Args,
    /// The result of a work, as JSON.
    Output,
    /// The message of an error or a panic.
    Error,
    /// The note of an attempt's progress.
    Progress,
}

type Redact = dyn Fn(Sensitive, Name, &str) -> String + Send + Sync;

/// What was seen of the pools, when, and after how many changes.
struct Look {
    at: Instant,
    changes: u64,
    overview: Arc<Overview>,
}

/// A dashboard over a runtime. Made by [`workpool_dashboard`]; clones are one dashboard.
#[derive(Clone)]
#[must_use = "a dashboard is seen where its scope is"]
pub struct Dashboard {
    runtime: Runtime,
    authorizer: Arc<dyn AnyAuthorizer>,
    redact: Option<Arc<Redact>>,
    /// The last look at the pools. Whoever looks holds it, so that nobody else does.
    last: Arc<Mutex<Option<Look>>>,
    /// How often something was changed here.
    changes: Arc<AtomicU64>,
    /// A place for each who listens.
    clients: Arc<Semaphore>,
    /// Held by the one who waits for the store.
    reads: Arc<Mutex<()>>,
    /// The same for explanations: the store need not answer for them, so they do not wait behind the others.
    explanations: Arc<Mutex<()>>,
    /// The names under which the service may be asked; all, if nobody has said.
    hosts: Option<Arc<[String]>>,
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
        changes: Arc::default(),
        clients: Arc::new(Semaphore::new(MOST_CLIENTS)),
        reads: Arc::default(),
        explanations: Arc::default(),
        hosts: None,
    }
}

impl Dashboard {
    /// What is shown in place of arguments, results, error messages and progress notes.
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

    /// Takes requests only for these names, as `Host` has them; the port does not matter. Others are answered with 421,
    /// but for `healthz`. Without this every name will do.
    ///
    /// This keeps out pages that let their own name point here. See [the module](crate::web).
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

    /// The scope under that prefix, such as `/workpool`. An empty one takes everything that nothing before it has taken.
    pub fn scope(&self, prefix: &str) -> impl HttpServiceFactory + use<> {
        let dashboard = self.clone();
        let resource = |path: &str, allowed: &'static str| -> Resource {
            let refuse = move || async move { not_allowed(allowed) };
            web::resource(path.to_owned()).default_service(web::to(refuse))
        };
        let read = |path: &str| resource(path, READ);
        let act = |path: &str| resource(path, "POST");
        web::scope(prefix.trim_end_matches('/'))
            .app_data(web::Data::new(self.clone()))
            .app_data(web::PayloadConfig::new(LARGEST_BODY))
            .service(read("/healthz").route(reads().to(api::healthz)))
            .service(read("/api/overview").route(reads().to(api::overview)))
            .service(read("/api/config").route(reads().to(api::config)))
            .service(read("/api/works").route(reads().to(api::works)))
            .service(act("/api/works/cancel").post(bulk::cancel))
            .service(act("/api/works/run").post(bulk::run))
            .service(act("/api/works/retry").post(bulk::retry))
            .service(read("/api/works/{id}").route(reads().to(api::work)))
            .service(act("/api/works/{id}/cancel").post(api::cancel))
            .service(act("/api/works/{id}/abort").post(api::abort))
            .service(act("/api/works/{id}/run").post(api::run))
            .service(act("/api/works/{id}/retry").post(api::retry))
            .service(
                resource("/api/pools/{name}", "GET, HEAD, PATCH")
                    .route(reads().to(api::pool))
                    .patch(api::configure),
            )
            .service(read("/api/events").route(reads().to(events::events)))
            .service(read("/api/openapi.json").route(reads().to(openapi::document)))
            .service(read("").route(reads().to(pages::without_slash)))
            .service(read("/").route(reads().to(pages::overview)))
            .service(read("/config").route(reads().to(pages::config)))
            .service(read("/works").route(reads().to(pages::works)))
            .service(
                resource("/works/cancel", "GET, HEAD, POST")
                    .route(reads().to(pages::confirm_cancel))
                    .post(pages::cancel_many),
            )
            .service(
                resource("/works/run", "GET, HEAD, POST")
                    .route(reads().to(pages::confirm_run))
                    .post(pages::run_many),
            )
            .service(
                resource("/works/retry", "GET, HEAD, POST")
                    .route(reads().to(pages::confirm_retry))
                    .post(pages::retry_many),
            )
            .service(read("/find").route(reads().to(pages::find)))
            .service(read("/works/{id}").route(reads().to(pages::work)))
            .service(act("/works/{id}/cancel").post(pages::cancel))
            .service(act("/works/{id}/abort").post(pages::abort))
            .service(act("/works/{id}/run").post(pages::run))
            .service(act("/works/{id}/retry").post(pages::retry))
            .service(act("/pools/{name}").post(pages::configure))
            .service(read("/assets/workpool.css").route(reads().to(pages::style)))
            .service(read("/assets/workpool.js").route(reads().to(pages::script)))
            .service(read("/assets/workpool.svg").route(reads().to(pages::icon)))
            .default_service(web::to(not_found))
            .wrap(from_fn(move |request, next| guard::guard(dashboard.clone(), request, next)))
    }

    pub(super) fn runtime(&self) -> &Runtime {
        &self.runtime
    }

    pub(super) fn authorizer(&self) -> &dyn AnyAuthorizer {
        &*self.authorizer
    }

    pub(super) fn known_hosts(&self) -> Option<&[String]> {
        self.hosts.as_deref()
    }

    /// A page of works.
    pub(super) async fn list(&self, filter: WorkFilter) -> Result<WorkPage, ApiError> {
        let shared = self.runtime.shared().clone();
        let listed = async move {
            let Listing { page, pause } = list(&shared, filter).await?;
            Ok((page, pause))
        };
        self.read(listed).await
    }

    /// One pool in numbers.
    pub(super) async fn pool(&self, pool: Workpool) -> Result<PoolView, ApiError> {
        self.read(async move { Ok((PoolView::of(&pool).await?, PAUSE_PER_WORK)) }).await
    }

    /// Where works are.
    pub(super) async fn statuses(
        &self,
        pool: Workpool,
        works: Vec<WorkId>,
    ) -> Result<Vec<WorkStatus>, ApiError> {
        let pause = PAUSE_PER_WORK * works.len() as u32;
        self.read(async move { Ok((pool.status_batch(&works).await?, pause)) }).await
    }

    /// Why a work is where it is.
    pub(super) async fn explain(
        &self,
        pool: Workpool,
        work_id: WorkId,
    ) -> Result<Explanation, ApiError> {
        let explained = async move { Ok((pool.explain(work_id).await?, PAUSE_AFTER_EXPLANATION)) };
        one_by_one(&self.explanations, explained).await
    }

    async fn read<T: 'static>(
        &self,
        answer: impl Future<Output = Result<(T, Duration), PoolError>> + 'static,
    ) -> Result<T, ApiError> {
        one_by_one(&self.reads, answer).await
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
            let mut last = self.last.clone().lock_owned().await;
            let changes = self.changes.load(Ordering::SeqCst);
            if let Some(look) = &*last
                && look.at.elapsed() < OVERVIEW_AGE
                && look.changes == changes
            {
                return Ok(look.overview.clone());
            }
            let runtime = self.runtime.clone();
            until_answered(async move {
                let overview = Arc::new(Overview::of(&runtime).await?);
                let at = Instant::now();
                *last = Some(Look { at, changes, overview: overview.clone() });
                Ok(overview)
            })
            .await
        })
        .await
    }

    /// Something was changed, and whoever did that looks next.
    pub(super) fn changed(&self) {
        self.changes.fetch_add(1, Ordering::SeqCst);
    }
}

/// Asks the store when nobody else does and a pause has passed; each answer says how long that is to be after it.
///
/// Whoever waits behind others gives up at the same time as they do. The turn of one who gave up ends only when the store
/// has answered: what it owes does not pile up while it stands still.
async fn one_by_one<T: 'static>(
    turns: &Arc<Mutex<()>>,
    answer: impl Future<Output = Result<(T, Duration), PoolError>> + 'static,
) -> Result<T, ApiError> {
    in_time(async {
        let turn = turns.clone().lock_owned().await;
        until_answered(async move {
            let (answer, pause) = answer.await?;
            if !pause.is_zero() {
                actix_web::rt::spawn(async move {
                    tokio::time::sleep(pause).await;
                    drop(turn);
                });
            }
            Ok(answer)
        })
        .await
    })
    .await
}

/// Waits for an answer that comes to its end also if nobody waits any more: until then it keeps what it holds.
async fn until_answered<T: 'static>(
    answer: impl Future<Output = Result<T, PoolError>> + 'static,
) -> Result<T, PoolError> {
    // Only the end of its thread keeps it from that.
    actix_web::rt::spawn(answer).await.map_err(|_| PoolError::Closed)?
}

/// Gives up on a store that does not answer.
pub(super) async fn in_time<T, E: Into<ApiError>>(
    answer: impl Future<Output = Result<T, E>>,
) -> Result<T, ApiError> {
    match tokio::time::timeout(PATIENCE, answer).await {
        Ok(answer) => answer.map_err(E::into),
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

/// What a path takes that is only read.
const READ: &str = "GET, HEAD";

/// A route for those who read. The server sends no body to those who ask for the `HEAD`.
fn reads() -> Route {
    web::route()
        .guard(fn_guard(|request| matches!(request.head().method, Method::GET | Method::HEAD)))
}

fn not_allowed(allowed: &'static str) -> Answer {
    let message = "this cannot be done here with this method";
    let error = ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message);
    Err(error.with_header(ALLOW, HeaderValue::from_static(allowed)))
}
