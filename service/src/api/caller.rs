//! The caller of a handler, with the role that the handler asks for in its type.

use std::future::{Ready, ready};
use std::marker::PhantomData;
use std::ops::Deref;

use actix_web::dev::Payload;
use actix_web::http::StatusCode;
use actix_web::{FromRequest, HttpMessage, HttpRequest};

use super::error::Problem;
use crate::auth::{Principal, Role};

/// A role as a type: [`Guest`], [`User`] or [`Admin`].
pub trait RequiredRole: 'static {
    /// The role.
    const ROLE: Role;
}

/// [`Role::Guest`] as a type.
#[derive(Debug)]
pub struct Guest;
/// [`Role::User`] as a type.
#[derive(Debug)]
pub struct User;
/// [`Role::Admin`] as a type.
#[derive(Debug)]
pub struct Admin;

impl RequiredRole for Guest {
    const ROLE: Role = Role::Guest;
}
impl RequiredRole for User {
    const ROLE: Role = Role::User;
}
impl RequiredRole for Admin {
    const ROLE: Role = Role::Admin;
}

/// Who calls a handler. A handler that takes `Caller<Admin>` is not run for anybody else, whatever its path.
///
/// ```
/// use edgeweb::{Admin, Caller};
///
/// async fn open_valve(caller: Caller<Admin>) -> String {
///     format!("opened by {}", caller.name)
/// }
/// ```
#[derive(Debug)]
pub struct Caller<R: RequiredRole>(Principal, PhantomData<R>);

impl<R: RequiredRole> Deref for Caller<R> {
    type Target = Principal;

    fn deref(&self) -> &Principal {
        &self.0
    }
}

impl<R: RequiredRole> FromRequest for Caller<R> {
    type Error = Problem;
    type Future = Ready<Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let principal = request.extensions().get::<Principal>().cloned();
        let principal = principal.unwrap_or_else(Principal::guest);
        ready(if principal.role >= R::ROLE {
            Ok(Self(principal, PhantomData))
        } else if principal.role == Role::Guest {
            Err(Problem::unauthorized())
        } else {
            Err(Problem::new(
                StatusCode::FORBIDDEN,
                "this route asks for a larger role than yours",
            ))
        })
    }
}
