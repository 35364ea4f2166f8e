//! Authorization: permissions of the users of a dashboard.

use std::fmt;
use std::future::Future;
use std::pin::Pin;

use actix_web::http::header::HeaderValue;
use actix_web::{HttpRequest, HttpResponse};

/// A permission in a dashboard, beyond read access.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Permission {
    /// Cancel a job.
    Cancel,
    /// Cancel a job and drop its attempt.
    Abort,
    /// Make a job due now.
    RunNow,
    /// Change the priority of a job.
    SetPriority,
    /// Enqueue a failed job once more.
    Retry,
    /// Pause, resume and trigger a schedule.
    Schedule,
    /// Change a pool's parallelism, pause it and resume it.
    Configure,
}

impl Permission {
    const ALL: [Permission; 7] = [
        Permission::Cancel,
        Permission::Abort,
        Permission::RunNow,
        Permission::SetPriority,
        Permission::Schedule,
        Permission::Retry,
        Permission::Configure,
    ];

    const fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// The permissions of a user. They always include read access; a user without read access is refused.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Permissions(u8);

impl Permissions {
    /// Read access only.
    #[must_use]
    pub const fn read_only() -> Permissions {
        Permissions(0)
    }

    /// All permissions, including those that later versions add.
    #[must_use]
    pub const fn full() -> Permissions {
        Permissions(u8::MAX)
    }

    /// Adds a permission.
    #[must_use]
    pub const fn with(self, permission: Permission) -> Permissions {
        Permissions(self.0 | permission.bit())
    }

    /// Returns `true` if they contain this permission.
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

/// The reason why a user is refused.
#[derive(Debug)]
#[non_exhaustive]
pub enum Refusal {
    /// The user is not authenticated: 401. With a challenge, such as `Basic realm="workpool"`, a browser asks for a
    /// login.
    Unauthorized {
        /// The value of `WWW-Authenticate`.
        challenge: Option<HeaderValue>,
    },
    /// The user is authenticated, or need not be, but has no access: 403.
    Forbidden,
    /// Any other answer, such as a redirect to a login page.
    Response(Box<HttpResponse>),
}

impl From<HttpResponse> for Refusal {
    fn from(answer: HttpResponse) -> Refusal {
        Refusal::Response(Box::new(answer))
    }
}

/// Decides the permissions of a request. Called for every request, before it is handled.
///
/// A plain function or closure from the request to the permissions is an authorizer too; see
/// [the module](crate::web) for an example.
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
    /// Returns the permissions of the sender of this request.
    ///
    /// # Errors
    /// Fails if the sender has no read access.
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

/// An authorizer that gives everybody all permissions. Made by [`insecure_allow_all`].
#[derive(Clone, Copy, Debug)]
pub struct InsecureAllowAll(());

/// Gives everybody who reaches the address all permissions, and logs a warning. For trying things out.
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
