//! The handlers of pages and forms.

use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::http::header::LOCATION;
use actix_web::{HttpRequest, HttpResponse, web};
use maud::Markup;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::Permission;
use super::dashboard::Dashboard;
use super::error::ApiError;
use super::html::{self, Here, Nav};
use super::query::{
    Board, Body, Did, Filter, ListQuery, NOTHING, RangeQuery, Selected, body_of, demand,
    permission_of, permissions, query, work_id,
};
use crate::model::Priority;
use crate::ops::{Bulk, BulkAction, Done, PoolChange, RetryAnswer, ScheduleAction, TO_SAY};

/// The time in which an aborted attempt may end by itself.
const GRACE: Duration = Duration::from_secs(5);

const HTML: &str = "text/html; charset=utf-8";

const FORM: &str = "application/x-www-form-urlencoded";

/// Redirects the overview to its path with a slash: links are relative, so that they work under any prefix.
pub(super) async fn without_slash(request: HttpRequest) -> HttpResponse {
    let last = request.path().rsplit('/').next().unwrap_or_default();
    redirect(StatusCode::PERMANENT_REDIRECT, &format!("./{last}/"))
}

pub(super) async fn overview(board: Board, request: HttpRequest) -> HttpResponse {
    let content = async {
        let range = query::<RangeQuery>(request.query_string())?.range()?;
        let overview = board.operator().overview().await?;
        Ok(html::overview(&overview, range, permissions(&request)))
    };
    let content = content.await;
    page(&board, "", "Overview", Some(Here::Overview), content).await
}

pub(super) async fn pool(
    board: Board,
    request: HttpRequest,
    name: web::Path<String>,
) -> HttpResponse {
    let content = async {
        let range = query::<RangeQuery>(request.query_string())?.range()?;
        let pool = board.operator().pool(&name)?;
        let (pool, rates) = board.operator().look_at(pool).await?;
        let now = board.operator().now().into();
        Ok(html::pool(&pool, &rates, now, range, permissions(&request)))
    };
    let content = content.await;
    page(&board, "../", &format!("Pool {name}"), None, content).await
}

pub(super) async fn keys(board: Board, name: web::Path<String>) -> HttpResponse {
    let content = async {
        let operator = board.operator();
        let pool = operator.pool(&name)?;
        let keys = operator.keys(pool).await?;
        Ok(html::keys(&name, &keys, operator.now().into()))
    };
    let content = content.await;
    page(&board, "../../", &format!("Keys of pool {name}"), None, content).await
}

pub(super) async fn works(board: Board, request: HttpRequest) -> HttpResponse {
    let filter = query::<ListQuery>(request.query_string()).map(ListQuery::split);
    match filter {
        Ok((filter, did)) => {
            let (title, here) = html::list_title(&filter);
            let content = works_of(&board, &request, &filter, did).await;
            page(&board, "", title, Some(here), content).await
        }
        Err(said) => error("", &said),
    }
}

async fn works_of(
    board: &Dashboard,
    request: &HttpRequest,
    filter: &Filter,
    did: Option<Did>,
) -> Result<Markup, ApiError> {
    let operator = board.operator();
    let page = operator.page(filter.works()?).await?;
    Ok(html::works(&html::Listed {
        page: &page,
        filter,
        did,
        now: operator.now().into(),
        pools: operator.pool_names(),
        functions: operator.function_names(),
        may: permissions(request),
    }))
}

/// Acts on the jobs that are selected in a list, and returns to the list.
pub(super) async fn selected(board: Board, request: HttpRequest, body: Body) -> HttpResponse {
    let done: Result<String, ApiError> = async {
        let body = text_of(&request, body)?;
        let Selected { action, works, list } = Selected::parse(&body)?;
        demand(&request, permission_of(action))?;
        let did = match works.is_empty() {
            true => format!("did={NOTHING}"),
            false => {
                let done = board.operator().act_on_these(action, &works).await?;
                format!("did={}&done={done}", action.as_str())
            }
        };
        let fields = [
            ("state", &list.state),
            ("outcome", &list.outcome),
            ("pool", &list.pool),
            ("function", &list.function),
            ("priority", &list.priority),
            ("key", &list.key),
            ("limit", &list.limit),
        ];
        let list: String =
            fields.map(|(name, value)| format!("{name}={}&", html::encoded(value))).concat();
        Ok(format!("../works?{list}{did}"))
    }
    .await;
    match done {
        Ok(back) => redirect(StatusCode::SEE_OTHER, &back),
        Err(said) => error("../", &said),
    }
}

pub(super) async fn config(board: Board, request: HttpRequest) -> HttpResponse {
    let config = board.operator().config();
    let content = Ok(html::config(&config, permissions(&request)));
    page(&board, "", "Configuration", Some(Here::Configuration), content).await
}

pub(super) async fn schedules(board: Board, request: HttpRequest) -> HttpResponse {
    let content = async {
        let Said { said } = query(request.query_string())?;
        let schedules = board.operator().schedules().await?;
        let now = board.operator().now().into();
        Ok(html::schedules(&schedules, now, permissions(&request), said.as_deref()))
    };
    let content = content.await;
    page(&board, "", "Schedules", Some(Here::Schedules), content).await
}

pub(super) async fn act_on_schedule(
    board: Board,
    request: HttpRequest,
    path: web::Path<(String, String)>,
) -> HttpResponse {
    let (id, action) = path.into_inner();
    let all = [ScheduleAction::Pause, ScheduleAction::Resume, ScheduleAction::Trigger];
    let done: Result<_, ApiError> = async {
        demand(&request, Permission::Schedule)?;
        let named = all.into_iter().find(|one| one.as_str() == action);
        let action = named
            .ok_or_else(|| ApiError::invalid("a schedule can be paused, resumed or triggered"))?;
        board.operator().act_on_schedule(&id, action).await?;
        Ok(action)
    }
    .await;
    match done {
        Ok(action) => {
            let location = format!("../../schedules?said={}", action.as_str());
            redirect(StatusCode::SEE_OTHER, &location)
        }
        Err(said) => error("../../", &said),
    }
}

pub(super) async fn confirm_cancel(board: Board, request: HttpRequest) -> HttpResponse {
    let content = confirm(&board, &request, BulkAction::Cancel).await;
    page(&board, "../", "Many jobs", None, content).await
}

pub(super) async fn confirm_run(board: Board, request: HttpRequest) -> HttpResponse {
    let content = confirm(&board, &request, BulkAction::Run).await;
    page(&board, "../", "Many jobs", None, content).await
}

pub(super) async fn confirm_retry(board: Board, request: HttpRequest) -> HttpResponse {
    let content = confirm(&board, &request, BulkAction::Retry).await;
    page(&board, "../", "Many jobs", None, content).await
}

/// Returns the number of affected jobs, and the form to confirm the action. Counting needs the same permission.
async fn confirm(
    board: &Dashboard,
    request: &HttpRequest,
    action: BulkAction,
) -> Result<Markup, ApiError> {
    demand(request, permission_of(action))?;
    let Confirm { pool, function, cursor, done } = query(request.query_string())?;
    let bulk = Bulk { pool, function, cursor, ..Bulk::default() };
    let found = board.operator().find(action, &bulk, TO_SAY).await?;
    Ok(html::bulk(action, &found, &bulk, done))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Confirm {
    #[serde(default)]
    pool: String,
    #[serde(default)]
    function: String,
    #[serde(default)]
    cursor: String,
    /// The number of jobs that the last action has changed.
    done: Option<usize>,
}

pub(super) async fn cancel_many(board: Board, request: HttpRequest, body: Body) -> HttpResponse {
    act_on_many(&board, &request, body, BulkAction::Cancel).await
}

pub(super) async fn run_many(board: Board, request: HttpRequest, body: Body) -> HttpResponse {
    act_on_many(&board, &request, body, BulkAction::Run).await
}

pub(super) async fn retry_many(board: Board, request: HttpRequest, body: Body) -> HttpResponse {
    act_on_many(&board, &request, body, BulkAction::Retry).await
}

async fn act_on_many(
    board: &Dashboard,
    request: &HttpRequest,
    body: Body,
    action: BulkAction,
) -> HttpResponse {
    let done: Result<String, ApiError> = async {
        demand(request, permission_of(action))?;
        let bulk: Bulk = form(request, body)?;
        let Done { done, next, .. } = board.operator().act(action, &bulk).await?;
        let (pool, function) = (html::encoded(&bulk.pool), html::encoded(&bulk.function));
        let cursor = next.map(|next| format!("&cursor={next}")).unwrap_or_default();
        Ok(format!("{}?pool={pool}&function={function}{cursor}&done={done}", action.as_str()))
    }
    .await;
    match done {
        Ok(next) => redirect(StatusCode::SEE_OTHER, &next),
        Err(said) => error("../", &said),
    }
}

/// Handles the form that finds a job by its id.
pub(super) async fn find(request: HttpRequest) -> HttpResponse {
    #[derive(Deserialize)]
    struct Find {
        id: String,
    }
    let id = query(request.query_string()).and_then(|find: Find| work_id(find.id.trim()));
    match id {
        Ok(id) => redirect(StatusCode::SEE_OTHER, &format!("works/{id}")),
        Err(said) => error("", &said),
    }
}

pub(super) async fn work(
    board: Board,
    request: HttpRequest,
    id: web::Path<String>,
) -> HttpResponse {
    let content = work_of(&board, &request, &id).await;
    page(&board, "../", &format!("Job {id}"), None, content).await
}

async fn work_of(board: &Dashboard, request: &HttpRequest, id: &str) -> Result<Markup, ApiError> {
    let Said { said } = query(request.query_string())?;
    let detail = board.operator().job(work_id(id)?).await?;
    Ok(html::job(&detail, permissions(request), said.as_deref()))
}

/// The answer of the control that led to this page.
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
        Ok(board.operator().cancel(work_id(&id)?).await?)
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
        Ok(board.operator().abort(work_id(&id)?, GRACE).await?)
    };
    back_to_work(&id, done.await)
}

pub(super) async fn run(board: Board, request: HttpRequest, id: web::Path<String>) -> HttpResponse {
    let done = async {
        demand(&request, Permission::RunNow)?;
        Ok(board.operator().run_now(work_id(&id)?).await?)
    };
    back_to_work(&id, done.await)
}

pub(super) async fn set_priority(
    board: Board,
    request: HttpRequest,
    id: web::Path<String>,
    body: Body,
) -> HttpResponse {
    let done = async {
        demand(&request, Permission::SetPriority)?;
        let PriorityForm { priority } = form(&request, body)?;
        Ok(board.operator().set_priority(work_id(&id)?, Priority::new(priority)).await?)
    };
    back_to_work(&id, done.await)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PriorityForm {
    priority: i8,
}

/// Retries a failed job, and redirects to the new job.
pub(super) async fn retry(
    board: Board,
    request: HttpRequest,
    id: web::Path<String>,
) -> HttpResponse {
    let done: Result<_, ApiError> = async {
        demand(&request, Permission::Retry)?;
        Ok(board.operator().retry(work_id(&id)?).await?)
    }
    .await;
    let (id, said) = match done {
        Ok(RetryAnswer::Enqueued(again)) => (again.to_string(), "enqueued"),
        Ok(RetryAnswer::AlreadyEnqueued(again)) => (again.to_string(), "already_enqueued"),
        Ok(RetryAnswer::NotRegistered) => (id.into_inner(), "not_here"),
        Ok(RetryAnswer::PoolNotStarted) => (id.into_inner(), "not_started"),
        Ok(RetryAnswer::NotFailed | RetryAnswer::NotFound) => (id.into_inner(), "not_failed"),
        Err(said) => return error("../../", &said),
    };
    redirect(StatusCode::SEE_OTHER, &format!("../{}?said={said}", html::encoded(&id)))
}

pub(super) async fn configure(
    board: Board,
    request: HttpRequest,
    name: web::Path<String>,
    body: Body,
) -> HttpResponse {
    let done: Result<String, ApiError> = async {
        demand(&request, Permission::Configure)?;
        let pool = board.operator().pool(&name)?;
        let Back { back } = query(request.query_string())?;
        let back = match back.as_str() {
            "" => "../".to_owned(),
            "config" => "../config".to_owned(),
            "pool" => format!("../pools/{}", html::encoded(&name)),
            _ => return Err(ApiError::invalid("back is config or pool")),
        };
        board.operator().configure(&pool, form::<PoolChange>(&request, body)?).await?;
        Ok(back)
    }
    .await;
    match done {
        Ok(back) => redirect(StatusCode::SEE_OTHER, &back),
        Err(said) => error("../", &said),
    }
}

/// The page that the form was on, if not the overview.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Back {
    #[serde(default)]
    back: String,
}

fn form<T: DeserializeOwned>(request: &HttpRequest, body: Body) -> Result<T, ApiError> {
    query(&text_of(request, body)?)
}

/// Returns the body of a form.
fn text_of(request: &HttpRequest, body: Body) -> Result<String, ApiError> {
    let body = body_of(request, body, FORM)?;
    String::from_utf8(body.into()).map_err(|_| ApiError::invalid("the form is not UTF-8"))
}

pub(super) async fn style() -> HttpResponse {
    let style = include_str!("assets/workpool.css");
    HttpResponse::Ok().content_type("text/css; charset=utf-8").body(style)
}

pub(super) async fn script() -> HttpResponse {
    let script = include_str!("assets/workpool.js");
    HttpResponse::Ok().content_type("text/javascript; charset=utf-8").body(script)
}

pub(super) async fn icon() -> HttpResponse {
    HttpResponse::Ok().content_type("image/svg+xml").body(include_str!("assets/workpool.svg"))
}

fn back_to_work(id: &str, done: Result<impl Serialize, ApiError>) -> HttpResponse {
    match done {
        Ok(answer) => {
            let answer = serde_json::to_value(answer).unwrap_or_default();
            let said = answer.as_str().unwrap_or_default();
            redirect(StatusCode::SEE_OTHER, &format!("../{}?said={said}", html::encoded(id)))
        }
        Err(said) => error("../../", &said),
    }
}

fn redirect(status: StatusCode, location: &str) -> HttpResponse {
    HttpResponse::build(status).insert_header((LOCATION, location)).finish()
}

/// Returns a page, or the error page. `base` is the relative link to the overview, `here` the page's entry in the
/// navigation.
async fn page(
    board: &Dashboard,
    base: &str,
    title: &str,
    here: Option<Here>,
    content: Result<Markup, ApiError>,
) -> HttpResponse {
    match content {
        Ok(content) => {
            let nav = Nav { here, totals: board.operator().totals().await };
            let page = html::page(base, title, &nav, content).into_string();
            HttpResponse::Ok().content_type(HTML).body(page)
        }
        Err(said) => error(base, &said),
    }
}

/// Returns the error page.
pub(super) fn error(base: &str, error: &ApiError) -> HttpResponse {
    let page =
        html::page(base, html::title_of(error), &Nav::default(), html::error(error)).into_string();
    error.begin().content_type(HTML).body(page)
}
