//! Every error that a client sees: `application/problem+json` (RFC 9457), made in this one place.

use std::borrow::Cow;
use std::fmt::{self, Write};

use actix_web::body::BoxBody;
use actix_web::error::{JsonPayloadError, PathError, PayloadError, QueryPayloadError};
use actix_web::http::{StatusCode, header};
use actix_web::{HttpRequest, HttpResponse, ResponseError};
use bytes::Bytes;
use serde::Serialize;

use crate::auth::{AuthError, seconds};

/// A problem (RFC 9457) that a handler answers with.
///
/// ```
/// use edgeweb::{Problem, actix_web::http::StatusCode};
///
/// async fn open() -> Result<&'static str, Problem> {
///     Err(Problem::new(StatusCode::CONFLICT, "the valve is moving; ask again in a second"))
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    status: StatusCode,
    detail: Cow<'static, str>,
    /// Seconds after which to try again.
    retry_after: Option<u64>,
    /// What a 401 says of the token that came.
    challenge: &'static str,
}

/// The members of RFC 9457, section 3.1. `type` is absent, which means `about:blank`.
#[derive(Serialize)]
struct Members<'a> {
    status: u16,
    title: &'a str,
    detail: &'a str,
}

const MEDIA_TYPE: &str = "application/problem+json";

impl Problem {
    /// A problem with `status`; `detail` tells a person what happened and what to do next.
    pub fn new(status: StatusCode, detail: impl Into<Cow<'static, str>>) -> Self {
        Self {
            status,
            detail: detail.into(),
            retry_after: (status == StatusCode::SERVICE_UNAVAILABLE).then_some(1),
            // RFC 9110, section 15.5.2, wants one in every 401.
            challenge: "Bearer",
        }
    }

    /// Says when to try again, in seconds.
    pub(crate) fn retry_after(mut self, seconds: u64) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    pub(crate) fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "there is nothing at this path")
    }

    pub(crate) fn unauthorized() -> Self {
        Self::new(
            StatusCode::UNAUTHORIZED,
            "this route needs somebody who is logged in: POST /api/public/session",
        )
    }

    /// A token came, and it is not good (RFC 6750, section 3.1).
    pub(crate) fn invalid_token() -> Self {
        Self {
            challenge: "Bearer error=\"invalid_token\"",
            ..Self::new(
                StatusCode::UNAUTHORIZED,
                "the token is not good, or no longer: POST /api/public/session gives a new one",
            )
        }
    }

    /// Passwords, codes and tokens are not looked at where others can read them.
    pub(crate) fn only_over_https() -> Self {
        Self::new(
            StatusCode::FORBIDDEN,
            "passwords and tokens are taken only over HTTPS; what was sent in clear others may have read: change it",
        )
    }

    pub(crate) fn body_too_large(limit: usize) -> Self {
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("the body is larger than the {limit} bytes that are taken here"),
        )
    }

    fn json(&self) -> String {
        serde_json::to_string(&Members {
            status: self.status.as_u16(),
            title: self.status.canonical_reason().unwrap_or("Error"),
            detail: &self.detail,
        })
        .unwrap_or_default() // three plain members always serialise
    }

    /// The whole HTTP/1.1 response, for a connection on which no request was read to its end.
    pub(crate) fn to_http1(
        &self,
        security_headers: impl Iterator<Item = (header::HeaderName, &'static str)>,
    ) -> Bytes {
        let body = self.json();
        let retry = self
            .retry_after
            .map_or_else(String::new, |seconds| format!("retry-after: {seconds}\r\n"));
        let mut head = format!(
            "HTTP/1.1 {} {}\r\ncontent-type: {MEDIA_TYPE}\r\ncontent-length: {}\r\n\
             cache-control: no-store\r\n{retry}connection: close\r\n",
            self.status.as_u16(),
            self.status.canonical_reason().unwrap_or("Error"),
            body.len(),
        );
        for (name, value) in security_headers {
            // Writing to a String cannot fail.
            let _ = write!(head, "{name}: {value}\r\n");
        }
        Bytes::from(format!("{head}\r\n{body}"))
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.status, self.detail)
    }
}

impl std::error::Error for Problem {}

impl ResponseError for Problem {
    fn status_code(&self) -> StatusCode {
        self.status
    }

    fn error_response(&self) -> HttpResponse<BoxBody> {
        let mut response = HttpResponse::build(self.status);
        response
            .insert_header((header::CONTENT_TYPE, MEDIA_TYPE))
            .insert_header((header::CACHE_CONTROL, "no-store"));
        if let Some(seconds) = self.retry_after {
            response.insert_header((header::RETRY_AFTER, seconds));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            response.insert_header((header::WWW_AUTHENTICATE, self.challenge));
        }
        response.body(self.json())
    }
}

impl From<AuthError> for Problem {
    fn from(error: AuthError) -> Self {
        let text = error.to_string();
        match error {
            AuthError::File { .. } | AuthError::Closed(_) | AuthError::Internal(_) => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, text).retry_after(60)
            }
            AuthError::Busy => Self::new(StatusCode::SERVICE_UNAVAILABLE, text).retry_after(5),
            AuthError::Delayed(delay) => {
                Self::new(StatusCode::TOO_MANY_REQUESTS, text).retry_after(seconds(delay))
            }
            AuthError::Refused => Self::new(StatusCode::UNAUTHORIZED, text),
            AuthError::WrongCode
            | AuthError::RoleTooLarge
            | AuthError::NotASession
            | AuthError::NotForApiTokens => Self::new(StatusCode::FORBIDDEN, text),
            AuthError::NoSuchUser | AuthError::NoSuchToken => {
                Self::new(StatusCode::NOT_FOUND, text)
            }
            AuthError::ClaimClosed
            | AuthError::Exists
            | AuthError::LastAdmin
            | AuthError::OwnPassword
            | AuthError::Full(_)
            | AuthError::StateDir => Self::new(StatusCode::CONFLICT, text),
            AuthError::Name | AuthError::Password(_) | AuthError::GuestRole | AuthError::Expiry => {
                Self::new(StatusCode::BAD_REQUEST, text)
            }
        }
    }
}

impl From<PayloadError> for Problem {
    fn from(error: PayloadError) -> Self {
        let status = match &error {
            PayloadError::Overflow => StatusCode::PAYLOAD_TOO_LARGE,
            PayloadError::Io(io) if io.kind() == std::io::ErrorKind::TimedOut => {
                StatusCode::REQUEST_TIMEOUT
            }
            _ => StatusCode::BAD_REQUEST,
        };
        Self::new(status, error.to_string())
    }
}

impl From<JsonPayloadError> for Problem {
    fn from(error: JsonPayloadError) -> Self {
        match error {
            JsonPayloadError::Payload(error) => error.into(),
            JsonPayloadError::Overflow { limit }
            | JsonPayloadError::OverflowKnownLength { limit, .. } => Self::body_too_large(limit),
            JsonPayloadError::ContentType => Self::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "the body must be application/json",
            ),
            error => Self::new(StatusCode::BAD_REQUEST, error.to_string()),
        }
    }
}

impl From<PathError> for Problem {
    fn from(error: PathError) -> Self {
        Self::new(StatusCode::NOT_FOUND, error.to_string())
    }
}

impl From<QueryPayloadError> for Problem {
    fn from(error: QueryPayloadError) -> Self {
        Self::new(StatusCode::BAD_REQUEST, error.to_string())
    }
}

/// Turns an extractor's error into a problem; made for the `error_handler` of its configuration.
pub(crate) fn problem<E: Into<Problem>>(error: E, _: &HttpRequest) -> actix_web::Error {
    error.into().into()
}
