//! At home in an actix-web service: a dashboard with a JSON API, extractors, and errors that answer requests.
//!
//! [`workpool_dashboard`] makes a scope that shows what the pools do and lets those who may control them. Everything in
//! it but `healthz` asks the [`Authorizer`] first; what changes something must come from the same origin.
//!
//! ```
//! # use actix_workpool::{Runtime, doctest};
//! # doctest::run(async {
//! # let runtime = doctest::runtime().await?;
//! use actix_web::{App, HttpRequest};
//! use actix_workpool::web::{Permission, Permissions, Refusal, workpool_dashboard};
//!
//! // Whoever has come through the proxy may look, and those it calls operators may cancel.
//! let dashboard = workpool_dashboard(runtime.clone(), |request: &HttpRequest| {
//!     match request.headers().get("x-role").map(|role| role.as_bytes()) {
//!         Some(b"operator") => Ok(Permissions::read_only().with(Permission::Cancel)),
//!         Some(_) => Ok(Permissions::read_only()),
//!         None => Err(Refusal::Forbidden),
//!     }
//! });
//! let app = move || App::new().service(dashboard.scope("/workpool"));
//! # let _ = app;
//! # runtime.shutdown(std::time::Duration::ZERO).await;
//! # Ok(()) });
//! ```
//!
//! | below the scope | |
//! |---|---|
//! | `/` | the overview as a page; from there lead links to jobs by state and to each job, with its controls |
//! | `/works`, `/config` | jobs by state, from which all of a pool and function can be canceled or run; what is set |
//! | `GET api/overview` | each pool in numbers; `lately` has the rates and the start lag of the last minute, and of the last ten in slots of ten seconds |
//! | `GET api/works?pool=&state=&function=&outcome=&cursor=&limit=` | jobs by state (`pending`, `running`, `finished`), a page at a time |
//! | `POST api/works/cancel?pool=&function=&limit=` | [`Permission::Cancel`]; all jobs that wait and are of that pool and function (one of the two may be left out), 1,000 at most; answers `{"done": 12, "more": false}` |
//! | `POST api/works/run?pool=&function=&limit=` | [`Permission::RunNow`]; the same for those that are not due |
//! | `POST api/works/retry?pool=&function=&limit=` | [`Permission::Retry`]; enqueues failed jobs once more, those that were not yet |
//! | `GET api/works/{id}` | where a job is, and why, with its attempts, arguments and result |
//! | `POST api/works/{id}/cancel` | [`Permission::Cancel`] |
//! | `POST api/works/{id}/abort?grace_ms=` | [`Permission::Abort`] |
//! | `POST api/works/{id}/run` | [`Permission::RunNow`] |
//! | `POST api/works/{id}/retry` | [`Permission::Retry`]; answers `{"answer": "enqueued", "work_id": "…"}` |
//! | `GET api/pools/{name}` | one pool |
//! | `PATCH api/pools/{name}` | [`Permission::Configure`]; takes `{"max_parallelism": 4, "paused": false}` |
//! | `GET api/config` | what is set: of each pool, and of the runtime with its functions |
//! | `GET api/events` | server-sent events: `overview` whenever something in it has changed, four times a second at most |
//! | `GET api/openapi.json` | all of this as an OpenAPI 3.1 document; `docs/openapi.json` is a copy |
//! | `GET healthz` | whether the store answers; open to everybody, and says nothing else |
//!
//! The store is asked for one list at a time, and for one explanation, and then left to the pools for a moment: however
//! often somebody looks, they go on at their pace. Where it does not answer for five seconds, the answer is 503 `timed_out`.
//!
//! A method that a path does not take is answered with 405 and `Allow`; `HEAD` is taken wherever `GET` is. Below `api/`, and for
//! `healthz`, errors are JSON; elsewhere they are pages.
//!
//! A page of another site can make a browser take a name of its own for the address of this service (DNS rebinding), and
//! then is of the same origin. It gets no further than the authorizer lets it, for a browser keeps what it logs in with
//! for each name; but one that asks for nothing, as [`insecure_allow_all`] or one that looks at addresses, lets it in. Say by
//! [`Dashboard::hosts`] which names the service has.
//!
//! What functions have said is neither logged nor in the answer of a handler that passes an error on. A middleware that
//! logs errors as they are does tell it, as actix-web's `Logger` does at the level debug.
//!
//! To end a service, let [`Runtime::serve`](crate::Runtime::serve) run the server: it stops the server first and then
//! shuts the runtime down.
//!
//! 64-bit numbers are strings, times are milliseconds since the Unix epoch, and an error is
//! `{"error":{"code":"…","message":"…"}}`.
mod api;
mod authorizer;
mod dashboard;
mod error;
mod events;
mod extract;
mod guard;
mod html;
mod openapi;
mod pages;
mod query;
mod routes;
mod serve;

pub use crate::ops::Sensitive;
pub use authorizer::{
    Authorizer, InsecureAllowAll, Permission, Permissions, Refusal, insecure_allow_all,
};
pub use dashboard::{Dashboard, workpool_dashboard};
pub use extract::{Pool, PoolName};
