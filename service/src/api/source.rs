//! Where a request comes from, for handlers that take passwords.

use std::future::{Ready, ready};

use actix_web::dev::Payload;
use actix_web::http::StatusCode;
use actix_web::{FromRequest, HttpMessage, HttpRequest};

use super::error::Problem;
use crate::auth::Source;

/// A handler that takes it is not run for a request that others can read.
impl FromRequest for Source {
    type Error = Problem;
    type Future = Ready<Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let source = request.extensions().get::<Self>().copied();
        ready(match source {
            Some(source) if source.private => Ok(source),
            Some(_) => Err(Problem::only_over_https()),
            None => Err(Problem::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "the request has no source",
            )),
        })
    }
}
