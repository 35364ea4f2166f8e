//! The pages: what is asked of the pool for each, and what a form does.

use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::http::header::LOCATION;
use actix_web::{HttpRequest, HttpResponse, web};
use maud::Markup;
use serde::{Deserialize, Serialize};

use super::Permission;
use super::api::{self, Board, Body, Change, Filter};
use super::dashboard::{Dashboard, demand, permissions};
use super::error::ApiError;
use super::html;
use super::view::WorkDetail;

/// How long an attempt that is aborted is given to end by itself.
const GRACE: Duration = Duration::from_secs(5);

const FORM: &str = "application/x-www-form-urlencoded";

/// Links are relative, so that they hold under any prefix; for that the overview ends in a slash.
pub(super) async fn without_slash(request: HttpRequest) -> HttpResponse {
    let last = request.path().rsplit('/').next().unwrap_or_default();
    redirect(StatusCode::PERMANENT_REDIRECT, &format!("./{last}/"))
}

pub(super) async fn overview(board: Board, request: HttpRequest) -> HttpResponse {
    let overview = board.overview().await;
    page("", overview.map(|overview| html::overview(&overview, permissions(&request))))
}

pub(super) async fn works(board: Board, request: HttpRequest) -> HttpResponse {
    page("", works_of(&board, &request).await)
}

async fn works_of(board: &Dashboard, request: &HttpRequest) -> Result<Markup, ApiError> {
    let filter: Filter = api::query(request.query_string())?;
    let works = api::page(board, &filter).await?;
    Ok(html::works(&works, &filter, board.runtime().shared().seams.segment()))
}

/// Where the form ends that looks for a work by its id.
pub(super) async fn find(request: HttpRequest) -> HttpResponse {
    #[derive(Deserialize)]
    struct Find {
        id: String,
    }
    let id = api::query(request.query_string()).and_then(|find: Find| api::work_id(find.id.trim()));
    match id {
        Ok(id) => redirect(StatusCode::SEE_OTHER, &format!("works/{id}")),
        Err(error) => page("", Err(error)),
    }
}

pub(super) async fn work(
    board: Board,
    request: HttpRequest,
    id: web::Path<String>,
) -> HttpResponse {
    page("../", work_of(&board, &request, &id).await)
}

async fn work_of(board: &Dashboard, request: &HttpRequest, id: &str) -> Result<Markup, ApiError> {
    let Said { said } = api::query(request.query_string())?;
    let explained = api::explain(board, api::work_id(id)?).await?;
    let detail = WorkDetail::of(explained, board);
    Ok(html::work(&detail, permissions(request), said.as_deref()))
}

/// What has come of the control that has led here.
#[derive(Deserialize)]
struct Said {
    said: Option<String>,
}

pub(super) async fn cancel(
    board: Board,
    request: HttpRequest,
    id: web::Path<String>,
) -> HttpResponse {
    let done = async {
        demand(&request, Permission::Cancel)?;
        api::do_cancel(&board, api::work_id(&id)?).await
    };
    back_to_work(&id, done.await)
}

pub(super) async fn abort(
    board: Board,
    request: HttpRequest,
    id: web::Path<String>,
) -> HttpResponse {
    let done = async {
        demand(&request, Permission::Abort)?;
        api::do_abort(&board, api::work_id(&id)?, GRACE).await
    };
    back_to_work(&id, done.await)
}

pub(super) async fn run(board: Board, request: HttpRequest, id: web::Path<String>) -> HttpResponse {
    let done = async {
        demand(&request, Permission::RunNow)?;
        api::do_run(&board, api::work_id(&id)?).await
    };
    back_to_work(&id, done.await)
}

pub(super) async fn configure(
    board: Board,
    request: HttpRequest,
    name: web::Path<String>,
    body: Body,
) -> HttpResponse {
    let done: Result<(), ApiError> = async {
        demand(&request, Permission::Configure)?;
        let pool = board.runtime().pool(&name)?;
        let body = api::body_of(&request, body, FORM)?;
        let body = std::str::from_utf8(&body);
        let body = body.map_err(|_| ApiError::invalid("the form is not UTF-8"))?;
        api::do_configure(&board, &pool, api::query::<Change>(body)?).await
    }
    .await;
    match done {
        Ok(()) => redirect(StatusCode::SEE_OTHER, "../"),
        Err(error) => page("../", Err(error)),
    }
}

pub(super) async fn style() -> HttpResponse {
    let style = include_str!("assets/workpool.css");
    HttpResponse::Ok().content_type("text/css; charset=utf-8").body(style)
}

pub(super) async fn script() -> HttpResponse {
    let script = include_str!("assets/workpool.js");
    HttpResponse::Ok().content_type("text/javascript; charset=utf-8").body(script)
}

fn back_to_work(id: &str, done: Result<impl Serialize, ApiError>) -> HttpResponse {
    match done {
        Ok(answer) => {
            let answer = serde_json::to_value(answer).unwrap_or_default();
            let said = answer.as_str().unwrap_or_default();
            redirect(StatusCode::SEE_OTHER, &format!("../{}?said={said}", html::encoded(id)))
        }
        Err(error) => page("../../", Err(error)),
    }
}

fn redirect(status: StatusCode, location: &str) -> HttpResponse {
    HttpResponse::build(status).insert_header((LOCATION, location)).finish()
}

/// A page, or the page that says why there is none. `base` leads from it to the overview.
fn page(base: &str, content: Result<Markup, ApiError>) -> HttpResponse {
    let (status, content) = match content {
        Ok(content) => (StatusCode::OK, content),
        Err(error) => (error.status, html::error(&error)),
    };
    let page = html::page(base, content).into_string();
    HttpResponse::build(status).content_type("text/html; charset=utf-8").body(page)
}
