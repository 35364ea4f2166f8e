//! Server-sent events with changes of the overview.

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

/// The interval of events: four a second look live.
const TICK: Duration = Duration::from_millis(250);

/// The interval of keep-alive comments. They keep proxies from closing the connection, and let the server notice a
/// client that is gone, so that its place becomes free. The server notices that only at the second write, since the
/// first one is answered by a reset.
const QUIET: Duration = Duration::from_secs(2);

/// The time after which a client that has not taken an event is considered gone.
const PATIENCE: Duration = Duration::from_secs(10);

/// The maximum length of a stream. Then the client must reconnect, and is authorized again.
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
    // One event at a time: a slow client misses the events in between.
    let (sender, receiver) = mpsc::channel(1);
    actix_web::rt::spawn(tell(board.operator().clone(), sender, place));
    let stream = ReceiverStream::new(receiver);
    Ok(HttpResponse::Ok().content_type(KIND).streaming(stream))
}

/// Sends changes to the client until it disconnects, its time is up, or the runtime ends.
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

/// Formats an event. JSON has no line breaks, so it is one line of data.
fn event(name: &str, json: &str) -> String {
    format!("event: {name}\ndata: {json}\n\n")
}
