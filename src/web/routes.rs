//! The scope: the routes of the dashboard.

use actix_web::dev::HttpServiceFactory;
use actix_web::guard::fn_guard;
use actix_web::http::header::{ALLOW, HeaderValue};
use actix_web::http::{Method, StatusCode};
use actix_web::middleware::from_fn;
use actix_web::{Resource, Route, web};

use super::dashboard::Dashboard;
use super::error::ApiError;
use super::query::Answer;
use super::{api, events, guard, openapi, pages};

/// The maximum size of a body: no request needs more than a few words.
const LARGEST_BODY: usize = 4 << 10;

/// The maximum size of the form with the ids of selected jobs.
const LARGEST_SELECTION: usize = 16 << 10;

impl Dashboard {
    /// Returns the scope under that prefix, such as `/workpool`. With an empty prefix it takes every request that no
    /// earlier service has taken.
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
            .service(act("/api/works/cancel").post(api::cancel_many))
            .service(act("/api/works/run").post(api::run_many))
            .service(act("/api/works/retry").post(api::retry_many))
            .service(read("/api/works/{id}").route(reads().to(api::work)))
            .service(act("/api/works/{id}/cancel").post(api::cancel))
            .service(act("/api/works/{id}/abort").post(api::abort))
            .service(act("/api/works/{id}/run").post(api::run))
            .service(act("/api/works/{id}/priority").post(api::set_priority))
            .service(act("/api/works/{id}/retry").post(api::retry))
            .service(
                resource("/api/pools/{name}", "GET, HEAD, PATCH")
                    .route(reads().to(api::pool))
                    .patch(api::configure),
            )
            .service(read("/api/pools/{name}/keys").route(reads().to(api::keys)))
            .service(read("/api/schedules").route(reads().to(api::schedules)))
            .service(act("/api/schedules/{id}/pause").post(api::pause_schedule))
            .service(act("/api/schedules/{id}/resume").post(api::resume_schedule))
            .service(act("/api/schedules/{id}/trigger").post(api::trigger_schedule))
            .service(read("/api/events").route(reads().to(events::events)))
            .service(read("/api/openapi.json").route(reads().to(openapi::document)))
            .service(read("").route(reads().to(pages::without_slash)))
            .service(read("/").route(reads().to(pages::overview)))
            .service(read("/config").route(reads().to(pages::config)))
            .service(read("/schedules").route(reads().to(pages::schedules)))
            .service(act("/schedules/{id}/{action}").post(pages::act_on_schedule))
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
            .service(
                act("/works/selected")
                    .app_data(web::PayloadConfig::new(LARGEST_SELECTION))
                    .post(pages::selected),
            )
            .service(read("/find").route(reads().to(pages::find)))
            .service(read("/works/{id}").route(reads().to(pages::work)))
            .service(act("/works/{id}/cancel").post(pages::cancel))
            .service(act("/works/{id}/abort").post(pages::abort))
            .service(act("/works/{id}/run").post(pages::run))
            .service(act("/works/{id}/priority").post(pages::set_priority))
            .service(act("/works/{id}/retry").post(pages::retry))
            .service(
                resource("/pools/{name}", "GET, HEAD, POST")
                    .route(reads().to(pages::pool))
                    .post(pages::configure),
            )
            .service(read("/pools/{name}/keys").route(reads().to(pages::keys)))
            .service(read("/assets/workpool.css").route(reads().to(pages::style)))
            .service(read("/assets/workpool.js").route(reads().to(pages::script)))
            .service(read("/assets/workpool.svg").route(reads().to(pages::icon)))
            .default_service(web::to(not_found))
            .wrap(from_fn(move |request, next| guard::guard(dashboard.clone(), request, next)))
    }
}

async fn not_found() -> Answer {
    Err(ApiError::new(StatusCode::NOT_FOUND, "not_found", "there is nothing here"))
}

/// The methods of a read-only path.
const READ: &str = "GET, HEAD";

/// A route for reads. The server sends no body for `HEAD`.
fn reads() -> Route {
    web::route()
        .guard(fn_guard(|request| matches!(request.head().method, Method::GET | Method::HEAD)))
}

fn not_allowed(allowed: &'static str) -> Answer {
    let message = "this cannot be done here with this method";
    let error = ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message);
    Err(error.with_header(ALLOW, HeaderValue::from_static(allowed)))
}
