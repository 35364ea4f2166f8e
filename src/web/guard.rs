//! The guard: checks of every request to a dashboard, and headers of every answer.

use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, HOST, HeaderMap, HeaderName, HeaderValue, ORIGIN,
    REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use actix_web::http::uri::Authority;
use actix_web::http::{Method, StatusCode};
use actix_web::middleware::Next;
use actix_web::{Error, HttpMessage, HttpResponse};

use super::dashboard::Dashboard;
use super::error::ApiError;
use super::pages;

/// The maximum length of a path and query.
const LONGEST_URI: usize = 4 << 10;

/// The headers of every answer: no content from other sites, nothing inline, no embedding in other pages.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
    connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

const HEADERS: [(HeaderName, HeaderValue); 6] = [
    (CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
    (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
    (CACHE_CONTROL, HeaderValue::from_static("no-store")),
    // With "no-referrer" a form would have the origin "null", which without TLS is the only information on its source.
    (REFERRER_POLICY, HeaderValue::from_static("same-origin")),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        HeaderValue::from_static("same-origin"),
    ),
];

/// Accepts requests from an allowed origin and a user with read access. For pages, errors become pages.
pub(super) async fn guard(
    dashboard: Dashboard,
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let base = base_of(request.match_info().unprocessed(), request.path());
    let mut answer = match check(&dashboard, &request).await {
        Ok(()) => next.call(request).await?.map_into_boxed_body(),
        Err(Refused::Error(error)) => request.error_response(error),
        Err(Refused::Answer(answer)) => request.into_response(*answer),
    };
    let error = answer.response().error().and_then(|error| error.as_error::<ApiError>());
    if let (Some(base), Some(error)) = (base, error) {
        let page = pages::error(&base, error);
        answer = answer.into_response(page);
    }
    for (name, value) in HEADERS {
        answer.headers_mut().insert(name, value);
    }
    Ok(answer)
}

/// Returns the relative link from a page to the overview; `None` for paths that are no pages. `path` is relative to the
/// scope, `whole` is the complete path.
fn base_of(path: &str, whole: &str) -> Option<String> {
    if path == "/healthz" || path == "/api" || path.starts_with("/api/") {
        return None;
    }
    Some(match path.strip_prefix('/') {
        Some(path) => "../".repeat(path.matches('/').count()),
        // Without the trailing slash, links are relative to the parent of the scope.
        None => format!("{}/", whole.rsplit('/').next().unwrap_or_default()),
    })
}

/// The reason why a request is refused.
enum Refused {
    Error(ApiError),
    /// The authorizer's own answer.
    Answer(Box<HttpResponse>),
}

impl From<ApiError> for Refused {
    fn from(error: ApiError) -> Refused {
        Refused::Error(error)
    }
}

async fn check(dashboard: &Dashboard, request: &ServiceRequest) -> Result<(), Refused> {
    if request.uri().to_string().len() > LONGEST_URI {
        let message = "the path and query are too long";
        return Err(ApiError::new(StatusCode::URI_TOO_LONG, "uri_too_long", message).into());
    }
    let reads = request.method() == Method::GET || request.method() == Method::HEAD;
    let path = request.match_info().unprocessed();
    let host = host(request.headers(), request.uri().authority());
    if let Some(known) = dashboard.known_hosts()
        && path != "/healthz"
        && !is_known(host, known)
    {
        let message = "the service is not known by this name";
        let status = StatusCode::MISDIRECTED_REQUEST;
        return Err(ApiError::new(status, "unknown_host", message).into());
    }
    // Listening changes nothing, but takes one of a limited number of places.
    if (!reads || path == "/api/events") && !is_same_origin(request.headers(), host) {
        let message = "the request comes from another site";
        return Err(ApiError::new(StatusCode::FORBIDDEN, "cross_site", message).into());
    }
    if path == "/healthz" {
        return Ok(());
    }
    match dashboard.authorizer().decide(request.request()).await {
        Ok(permissions) => {
            request.extensions_mut().insert(permissions);
            Ok(())
        }
        Err(refusal) => Err(match refusal.into_error() {
            Ok(error) => Refused::Error(error),
            Err(answer) => Refused::Answer(answer),
        }),
    }
}

/// Returns the name, and the port if given, to which the request was sent.
fn host<'a>(headers: &'a HeaderMap, authority: Option<&'a Authority>) -> Option<&'a str> {
    match headers.get(HOST) {
        Some(host) => host.to_str().ok(),
        None => authority.map(Authority::as_str),
    }
}

/// Returns `true` if a host is one of those names, on any port.
fn is_known(host: Option<&str>, known: &[String]) -> bool {
    let authority = host.and_then(|host| host.parse::<Authority>().ok());
    // User information before an at sign is not part of a host.
    let authority = authority.filter(|authority| !authority.as_str().contains('@'));
    authority.is_some_and(|authority| {
        known.iter().any(|known| known.eq_ignore_ascii_case(authority.host()))
    })
}

/// Returns `true` if a request that changes something was made by a page of the same origin, or by no page at all.
///
/// Browsers state the source of a request in `Sec-Fetch-Site`, or, as without TLS, the page's origin in `Origin`. A
/// request with neither comes from another program, which a web page cannot trick into sending it.
fn is_same_origin(headers: &HeaderMap, host: Option<&str>) -> bool {
    if let Some(site) = headers.get("sec-fetch-site") {
        return site == "same-origin" || site == "none";
    }
    let Some(origin) = headers.get(ORIGIN) else { return true };
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
        let headers = pairs.collect();
        is_same_origin(&headers, host(&headers, None))
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

    #[test]
    fn hosts_are_known_by_their_names_on_any_port() {
        let known = ["ops.example".to_owned(), "127.0.0.1".to_owned(), "[::1]".to_owned()];
        for host in ["ops.example", "OPS.example:8080", "127.0.0.1:80", "[::1]:8080", "[::1]"] {
            assert!(is_known(Some(host), &known), "{host}");
        }
        for host in
            ["", "evil.example", "ops.example.evil", "ops.example@evil", "evil@ops.example", "::1"]
        {
            assert!(!is_known(Some(host), &known), "{host}");
        }
        assert!(!is_known(None, &known));
    }

    #[test]
    fn each_page_knows_the_way_to_the_overview() {
        for (path, whole, base) in [
            ("/", "/ops/", Some("")),
            ("", "/ops/workpool", Some("workpool/")),
            ("/works/1", "/ops/works/1", Some("../")),
            ("/works/1/cancel", "/works/1/cancel", Some("../../")),
            ("/api/works", "/api/works", None),
            ("/healthz", "/healthz", None),
        ] {
            assert_eq!(base_of(path, whole).as_deref(), base, "{path}");
        }
    }
}
