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
//! | `/` | the overview as a page; from there lead links to works by state and to each work, with its controls |
//! | `GET api/overview` | each pool in numbers |
//! | `GET api/works?pool=&state=&function=&outcome=&cursor=&limit=` | works by state (`pending`, `running`, `finished`), a page at a time |
//! | `GET api/works/{id}` | where a work is, and why |
//! | `POST api/works/{id}/cancel` | [`Permission::Cancel`] |
//! | `POST api/works/{id}/abort?grace_ms=` | [`Permission::Abort`] |
//! | `POST api/works/{id}/run` | [`Permission::RunNow`] |
//! | `GET api/pools/{name}` | one pool |
//! | `PATCH api/pools/{name}` | [`Permission::Configure`]; takes `{"max_parallelism": 4, "paused": false}` |
//! | `GET api/events` | server-sent events: `overview` whenever something in it has changed, four times a second at most |
//! | `GET healthz` | whether the store answers; open to everybody, and says nothing else |
//!
//! To end a service, stop the server first and then [shut the runtime down](crate::Runtime::shutdown). The server has to
//! leave signals to the program for that (`HttpServer::disable_signals`): one that handles them stops the whole actix
//! system, and the attempts that run in it are lost. `examples/web.rs` shows how.
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
mod pages;
mod view;

pub use authorizer::{
    Authorizer, InsecureAllowAll, Permission, Permissions, Refusal, insecure_allow_all,
};
pub use dashboard::{Dashboard, Sensitive, workpool_dashboard};
pub use extract::{Pool, PoolName};
