//! What every request to a dashboard goes through, and what every answer carries.

use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, HOST, HeaderMap, HeaderName, HeaderValue, ORIGIN,
    REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use actix_web::http::uri::Authority;
use actix_web::http::{Method, StatusCode};
use actix_web::middleware::Next;
use actix_web::{Error, HttpMessage, HttpResponse, ResponseError};

use super::dashboard::Dashboard;
use super::error::ApiError;

/// The longest path and query that is looked at.
const LONGEST_URI: usize = 4 << 10;

/// Nothing from elsewhere, nothing inline, and no page around it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
    connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

const HEADERS: [(HeaderName, HeaderValue); 6] = [
    (CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
    (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
    (CACHE_CONTROL, HeaderValue::from_static("no-store")),
    // With "no-referrer" a form would be sent with the origin "null", and without TLS nothing else says where it is from.
    (REFERRER_POLICY, HeaderValue::from_static("same-origin")),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        HeaderValue::from_static("same-origin"),
    ),
];

/// Lets a request through that comes from the right place and from somebody who may look.
pub(super) async fn guard(
    dashboard: Dashboard,
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let mut answer = match check(&dashboard, &request).await {
        Ok(()) => next.call(request).await?.map_into_boxed_body(),
        Err(refused) => request.into_response(refused),
    };
    for (name, value) in HEADERS {
        answer.headers_mut().insert(name, value);
    }
    Ok(answer)
}

async fn check(dashboard: &Dashboard, request: &ServiceRequest) -> Result<(), HttpResponse> {
    if request.uri().to_string().len() > LONGEST_URI {
        let message = "the path and query are too long";
        let error = ApiError::new(StatusCode::URI_TOO_LONG, "uri_too_long", message);
        return Err(error.error_response());
    }
    let reads = request.method() == Method::GET || request.method() == Method::HEAD;
    let path = request.match_info().unprocessed();
    // Listening changes nothing, but takes one of few places.
    if (!reads || path == "/api/events")
        && !is_same_origin(request.headers(), request.uri().authority())
    {
        let message = "the request comes from another site";
        let error = ApiError::new(StatusCode::FORBIDDEN, "cross_site", message);
        return Err(error.error_response());
    }
    if path == "/healthz" {
        return Ok(());
    }
    let decision = dashboard.authorizer().decide(request.request()).await;
    let permissions = decision.map_err(super::Refusal::into_response)?;
    request.extensions_mut().insert(permissions);
    Ok(())
}

/// Whether a request that changes something was made by a page of the same origin, or by no page at all.
///
/// Browsers say where a request comes from in `Sec-Fetch-Site`; where they do not, as without TLS, they say in `Origin`
/// whose page has made it. One with neither comes from another program, which nobody can trick into sending it.
fn is_same_origin(headers: &HeaderMap, authority: Option<&Authority>) -> bool {
    if let Some(site) = headers.get("sec-fetch-site") {
        return site == "same-origin" || site == "none";
    }
    let Some(origin) = headers.get(ORIGIN) else { return true };
    let host = match headers.get(HOST) {
        Some(host) => host.to_str().ok(),
        None => authority.map(Authority::as_str),
    };
    let origin = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
    match (origin, host) {
        (Some(("http" | "https", origin)), Some(host)) => origin.eq_ignore_ascii_case(host),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_taken(headers: &[(&'static str, &'static str)]) -> bool {
        let pairs = headers
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        is_same_origin(&pairs.collect(), None)
    }

    #[test]
    fn only_pages_of_the_same_origin_change_something() {
        let host = ("host", "ops.example:8080");
        for site in ["same-origin", "none"] {
            assert!(is_taken(&[host, ("sec-fetch-site", site)]), "{site}");
        }
        for site in ["cross-site", "same-site", "", "other"] {
            let lying = ("origin", "https://ops.example:8080");
            assert!(!is_taken(&[host, lying, ("sec-fetch-site", site)]), "{site}");
        }
        for origin in ["http://ops.example:8080", "https://OPS.example:8080"] {
            assert!(is_taken(&[host, ("origin", origin)]), "{origin}");
        }
        for origin in [
            "null",
            "",
            "http://ops.example",
            "http://evil.example",
            "http://ops.example:8080.evil.example",
            "http://evil.example/ops.example:8080",
            "file://ops.example:8080",
            "ops.example:8080",
        ] {
            assert!(!is_taken(&[host, ("origin", origin)]), "{origin}");
            assert!(!is_taken(&[("origin", origin)]), "{origin}");
        }
        assert!(is_taken(&[host]));
    }
}
