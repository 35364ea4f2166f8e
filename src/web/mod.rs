//! Integration into an actix-web service: a dashboard with a JSON API, extractors, and errors that answer requests.
//!
//! [`workpool_dashboard`] makes a scope that shows the pools and lets authorized users control them. Every request
//! except `healthz` is checked by the [`Authorizer`] first; requests that change something must come from the same
//! origin.
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
//! | `/` | the overview: totals, charts of throughput and start lag, and the pools; `?range=24h` shows a day instead of ten minutes |
//! | `/pools/{name}` | one pool, with its own charts and its controls |
//! | `/pools/{name}/keys` | the keys of a pool with the most waiting jobs |
//! | `/works` | jobs by state, with a redacted preview of their arguments; selected jobs, or all of a pool and function, are canceled, run now or retried |
//! | `/works/{id}` | a job with its timeline, arguments, result, error and controls |
//! | `/schedules` | schedules with their next times and last jobs; they are paused, resumed and triggered |
//! | `/config` | the configuration |
//! | `GET api/overview` | each pool in numbers; its `status` is `running`, `idle`, `paused` (or its parallelism is 0), or `full` (every slot is taken and jobs that are due wait); `lately` has the rates and the start lag of the last minute, and of the last ten minutes in slots of ten seconds |
//! | `GET api/works?pool=&state=&function=&outcome=&priority=&key=&cursor=&limit=` | jobs by state (`pending`, `running`, `finished`), a page at a time |
//! | `POST api/works/cancel?pool=&function=&limit=` | [`Permission::Cancel`]; cancels the waiting jobs of that pool and function (one of the two may be left out), 1,000 at most; answers `{"done": 12, "more": false}` |
//! | `POST api/works/run?pool=&function=&limit=` | [`Permission::RunNow`]; makes jobs due that are not due yet, in the same way |
//! | `POST api/works/retry?pool=&function=&limit=` | [`Permission::Retry`]; enqueues failed jobs once more, except those already retried; without pool and function those of all |
//! | `GET api/works/{id}` | the state of a job and the reason, with its attempts, arguments and result |
//! | `POST api/works/{id}/cancel` | [`Permission::Cancel`] |
//! | `POST api/works/{id}/abort?grace_ms=` | [`Permission::Abort`] |
//! | `POST api/works/{id}/run` | [`Permission::RunNow`] |
//! | `POST api/works/{id}/priority?priority=` | [`Permission::SetPriority`]; -128 to 127, the smallest starts first |
//! | `POST api/works/{id}/retry` | [`Permission::Retry`]; answers `{"answer": "enqueued", "work_id": "…"}` |
//! | `GET api/pools/{name}` | one pool |
//! | `GET api/pools/{name}/keys` | the [keys](crate::Enqueue::key) of a pool with the most waiting jobs, at most 100 |
//! | `PATCH api/pools/{name}` | [`Permission::Configure`]; takes `{"max_parallelism": 4, "paused": false}` |
//! | `GET api/schedules` | schedules, with their next times and last jobs |
//! | `POST api/schedules/{id}/pause`, `resume`, `trigger` | [`Permission::Schedule`] |
//! | `GET api/config` | the configuration of each pool, and of the runtime with its functions |
//! | `GET api/events` | server-sent events: `overview` whenever it has changed, four times a second at most |
//! | `GET api/openapi.json` | this API as an OpenAPI 3.1 document; `docs/openapi.json` is a copy |
//! | `GET healthz` | whether the store answers, and nothing else; open to everybody |
//!
//! The dashboard asks the store for one list and one explanation at a time, and pauses after each, so that it does not
//! slow the pools down. If the store does not answer for five seconds, the answer is 503 `timed_out`.
//!
//! Other methods are answered with 405 and `Allow`; `HEAD` works wherever `GET` does. Below `api/`, and for `healthz`,
//! errors are JSON; elsewhere they are pages.
//!
//! Set the names of the service with [`Dashboard::hosts`] to prevent DNS rebinding: a page of another site can make its
//! own name point to the address of this service, and then has the same origin. An authorizer that checks credentials
//! stops it, since browsers keep credentials per name. An authorizer without credentials, such as
//! [`insecure_allow_all`] or one that checks addresses, lets it in.
//!
//! Messages of functions are neither logged nor in the answer of a handler that passes an error on. A middleware that
//! logs errors as they are does reveal them, as actix-web's `Logger` does at the level debug.
//!
//! Run the server with [`Runtime::serve`](crate::Runtime::serve) for a clean end: it stops the server first and then
//! shuts the runtime down.
//!
//! A key is shown as its text, or as `0x` and hexadecimal digits if it is not UTF-8 or has control characters. Lists are
//! asked for the jobs of a key in the same way, also where keys are redacted.
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
