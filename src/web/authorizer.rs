//! Permissions: who may do what.

use std::fmt;
use std::future::Future;
use std::pin::Pin;

use actix_web::http::header::HeaderValue;
use actix_web::{HttpRequest, HttpResponse};

/// A permission in a dashboard, beyond looking.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Permission {
    /// Cancel a job.
    Cancel,
    /// Cancel a job and drop its attempt.
    Abort,
    /// End the wait of a job.
    RunNow,
    /// Enqueue a failed job once more.
    Retry,
    /// Change a pool's parallelism, pause and resume it.
    Configure,
}

impl Permission {
    const ALL: [Permission; 5] = [
        Permission::Cancel,
        Permission::Abort,
        Permission::RunNow,
        Permission::Retry,
        Permission::Configure,
    ];

    const fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// The permissions of somebody. Whoever has any may look; one who may not even do that is refused.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Permissions(u8);

impl Permissions {
    /// To look, and nothing else.
    #[must_use]
    pub const fn read_only() -> Permissions {
        Permissions(0)
    }

    /// Everything, also what later versions add.
    #[must_use]
    pub const fn full() -> Permissions {
        Permissions(u8::MAX)
    }

    /// These and one more.
    #[must_use]
    pub const fn with(self, permission: Permission) -> Permissions {
        Permissions(self.0 | permission.bit())
    }

    /// Returns `true` if they contain this one.
    #[must_use]
    pub const fn allow(self, permission: Permission) -> bool {
        self.0 & permission.bit() != 0
    }
}

impl fmt::Debug for Permissions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(Permission::ALL.iter().filter(|one| self.allow(**one))).finish()
    }
}

/// The reason why somebody does not get in.
#[derive(Debug)]
#[non_exhaustive]
pub enum Refusal {
    /// Nobody knows who it is: 401. With a challenge a browser asks, as for `Basic realm="workpool"`.
    Unauthorized {
        /// The value of `WWW-Authenticate`.
        challenge: Option<HeaderValue>,
    },
    /// It is known who it is, or does not matter: 403.
    Forbidden,
    /// Anything else, such as a redirect to where one logs in.
    Response(Box<HttpResponse>),
}

impl From<HttpResponse> for Refusal {
    fn from(answer: HttpResponse) -> Refusal {
        Refusal::Response(Box::new(answer))
    }
}

/// Decides who may do what. Asked at every request, before anything else is looked at.
///
/// A plain function or closure from the request to the permissions is one too; see
/// [the module](crate::web) for such a one.
///
/// ```
/// use actix_web::HttpRequest;
/// use actix_workpool::web::{Authorizer, Permissions, Refusal};
///
/// struct Sessions;
///
/// impl Authorizer for Sessions {
///     async fn authorize(&self, request: &HttpRequest) -> Result<Permissions, Refusal> {
///         // Here a database may be asked.
///         match request.headers().contains_key("x-session") {
///             true => Ok(Permissions::full()),
///             false => Err(Refusal::Unauthorized { challenge: None }),
///         }
///     }
/// }
/// ```
pub trait Authorizer: Send + Sync + 'static {
    /// Returns the permissions of whoever sent this request.
    ///
    /// # Errors
    /// Fails if it may not even look.
    fn authorize(
        &self,
        request: &HttpRequest,
    ) -> impl Future<Output = Result<Permissions, Refusal>>;
}

impl<F> Authorizer for F
where
    F: Fn(&HttpRequest) -> Result<Permissions, Refusal> + Send + Sync + 'static,
{
    async fn authorize(&self, request: &HttpRequest) -> Result<Permissions, Refusal> {
        self(request)
    }
}

/// Lets everybody do everything. Made by [`insecure_allow_all`].
#[derive(Clone, Copy, Debug)]
pub struct InsecureAllowAll(());

/// Lets everybody who reaches the address do everything, and warns about that in the log: for trying things out.
#[must_use]
pub fn insecure_allow_all() -> InsecureAllowAll {
    crate::observe::telemetry::dashboard_open();
    InsecureAllowAll(())
}

impl Authorizer for InsecureAllowAll {
    async fn authorize(&self, _: &HttpRequest) -> Result<Permissions, Refusal> {
        Ok(Permissions::full())
    }
}

type Decision<'a> = Pin<Box<dyn Future<Output = Result<Permissions, Refusal>> + 'a>>;

/// An [`Authorizer`] of any type.
pub(super) trait AnyAuthorizer: Send + Sync {
    fn decide<'a>(&'a self, request: &'a HttpRequest) -> Decision<'a>;
}

impl<A: Authorizer> AnyAuthorizer for A {
    fn decide<'a>(&'a self, request: &'a HttpRequest) -> Decision<'a> {
        Box::pin(self.authorize(request))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permissions_are_what_was_given_and_no_more() {
        let cancel = Permissions::read_only().with(Permission::Cancel);
        for permission in Permission::ALL {
            assert!(!Permissions::read_only().allow(permission));
            assert!(Permissions::full().allow(permission));
            assert_eq!(cancel.allow(permission), permission == Permission::Cancel);
        }
        assert_eq!(format!("{cancel:?}"), "{Cancel}");
    }
}
