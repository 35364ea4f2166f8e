//! Changes as server-sent events.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use actix_web::http::{Method, StatusCode};
use actix_web::{HttpRequest, HttpResponse, ResponseError, web};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::{Instant, timeout};
use tokio_stream::wrappers::ReceiverStream;

use super::error::ApiError;
use super::query::{Answer, Board};
use crate::ops::{Operator, Overview};

/// Four times a second is live for an eye.
const TICK: Duration = Duration::from_millis(250);

/// After so long without news something is said all the same, so that nothing between here and there hangs up, and
/// that a client that has gone gives its place to another soon: the server sees that only when it writes, twice, as the
/// first one is answered by a reset.
const QUIET: Duration = Duration::from_secs(2);

/// One who has not taken an event after so long is not there any more.
const PATIENCE: Duration = Duration::from_secs(10);

/// Then the client has to come again, and is looked at again.
const LONGEST: Duration = Duration::from_secs(5 * 60);

const KIND: &str = "text/event-stream";

type Sender = mpsc::Sender<Result<web::Bytes, Infallible>>;

#[utoipa::path(
    get,
    path = "/api/events",
    summary = "What changes, as server-sent events",
    responses((
        status = 200,
        description = "`overview` whenever something in it has changed, `unavailable` when the store does not answer.",
        content_type = "text/event-stream",
        body = String
    ))
)]
pub(super) async fn events(board: Board, request: HttpRequest) -> Answer {
    if request.method() == Method::HEAD {
        return Ok(HttpResponse::Ok().content_type(KIND).finish());
    }
    let Ok(place) = board.clients().try_acquire_owned() else {
        let message = "too many are listening; ask for the overview now and then";
        return Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "too_many_clients", message));
    };
    // One event at a time: one who reads slowly misses what was in between.
    let (sender, receiver) = mpsc::channel(1);
    actix_web::rt::spawn(tell(board.operator().clone(), sender, place));
    let stream = ReceiverStream::new(receiver);
    Ok(HttpResponse::Ok().content_type(KIND).streaming(stream))
}

/// Tells the client what changes until it goes, its time is up, or the runtime ends.
async fn tell(operator: Operator, sender: Sender, _place: OwnedSemaphorePermit) {
    let begun = Instant::now();
    let mut said = begun;
    let mut last: Option<Arc<Overview>> = None;
    while begun.elapsed() < LONGEST && !operator.is_closed() {
        let event = match operator.overview().await.map_err(ApiError::from) {
            Ok(now) if last.as_ref().is_some_and(|last| last.pools == now.pools) => None,
            Ok(now) => {
                let event = serde_json::to_string(&*now).map(|json| event("overview", &json));
                last = Some(now);
                event.ok()
            }
            Err(error) => {
                last = None;
                Some(event(
                    "unavailable",
                    &format!("{{\"status\":{}}}", error.status_code().as_u16()),
                ))
            }
        };
        let event = event.or_else(|| (said.elapsed() >= QUIET).then(|| ":\n\n".to_owned()));
        if let Some(event) = event {
            said = Instant::now();
            match timeout(PATIENCE, sender.send(Ok(event.into()))).await {
                Ok(Ok(())) => {}
                _ => return,
            }
        }
        if timeout(TICK, sender.closed()).await.is_ok() {
            return;
        }
    }
}

/// JSON has no line breaks, so it is one line of data.
fn event(name: &str, json: &str) -> String {
    format!("event: {name}\ndata: {json}\n\n")
}
