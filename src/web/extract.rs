//! Extractors for handlers: the runtime and its pools.

use std::future::{Ready, ready};
use std::marker::PhantomData;
use std::ops::Deref;

use actix_web::dev::Payload;
use actix_web::http::StatusCode;
use actix_web::{Error, FromRequest, HttpRequest, web};

use super::error::ApiError;
use crate::client::Workpool;
use crate::runtime::Runtime;

/// A type that stands for a pool's name, for [`Pool`].
pub trait PoolName: 'static {
    /// The pool's name.
    const NAME: &'static str;
}

/// The pool of that name, as an extractor for handlers. Needs `web::Data<Runtime>` in the app.
///
/// ```
/// # actix_workpool::doctest::run(async {
/// # use actix_workpool::doctest::{self, Double};
/// # use actix_web::{App, test};
/// use actix_web::{HttpResponse, Result, web};
/// use actix_workpool::web::{Pool, PoolName};
///
/// struct Default;
/// impl PoolName for Default {
///     const NAME: &'static str = "default";
/// }
///
/// async fn double(pool: Pool<Default>, number: web::Path<u64>) -> Result<HttpResponse> {
///     let work = pool.enqueue(Double(*number)).await?; // an error answers the request
///     Ok(HttpResponse::Accepted().body(work.id().to_string()))
/// }
///
/// # let runtime = doctest::runtime().await?;
/// let app = App::new()
///     .app_data(web::Data::new(runtime.clone()))
///     .route("/double/{number}", web::post().to(double));
/// # let app = test::init_service(app).await;
/// # let request = test::TestRequest::post().uri("/double/4").to_request();
/// # assert_eq!(test::call_service(&app, request).await.status(), 202);
/// # runtime.shutdown(std::time::Duration::ZERO).await;
/// # Ok(()) });
/// ```
pub struct Pool<N>(Workpool, PhantomData<fn() -> N>);

impl<N> Pool<N> {
    /// Returns the handle.
    #[must_use]
    pub fn into_inner(self) -> Workpool {
        self.0
    }
}

impl<N> Deref for Pool<N> {
    type Target = Workpool;

    fn deref(&self) -> &Workpool {
        &self.0
    }
}

impl<N> std::fmt::Debug for Pool<N> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl<N: PoolName> FromRequest for Pool<N> {
    type Error = Error;
    type Future = Ready<Result<Self, Error>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let runtime = data::<Runtime>(request);
        ready(runtime.and_then(|runtime| Ok(Pool(runtime.pool(N::NAME)?, PhantomData))))
    }
}

/// Extracts the runtime from the `web::Data<Runtime>` of the app.
impl FromRequest for Runtime {
    type Error = Error;
    type Future = Ready<Result<Self, Error>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(data(request))
    }
}

/// Extracts the pool from the `web::Data<Workpool>` of the app. With several pools, use [`Pool`].
impl FromRequest for Workpool {
    type Error = Error;
    type Future = Ready<Result<Self, Error>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(data(request))
    }
}

fn data<T: Clone + 'static>(request: &HttpRequest) -> Result<T, Error> {
    match request.app_data::<web::Data<T>>() {
        Some(data) => Ok(T::clone(data)),
        None => {
            crate::observe::telemetry::data_missing(std::any::type_name::<T>());
            let message = "the service is not configured for this request";
            let code = "not_configured";
            Err(ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, code, message).into())
        }
    }
}
