//! Groups of routes that know nothing of each other, and the check that they may live together.

use std::collections::BTreeMap;
use std::sync::Arc;

use actix_web::http::{Method, header};
use actix_web::web::ServiceConfig;
use actix_web::{FromRequest, Handler, HttpResponse, Responder, Route, guard, web};

use super::error::Problem;
use crate::auth::Role;

/// A named set of routes that a program adds to the service.
///
/// Paths are those of actix-web: `/pump/{id}/speed`. A group stands under the prefix of the role
/// that each route asks for, so `get(Role::Guest, "/tank/level", …)` is `GET /api/public/tank/level`.
/// Two groups that claim the same path are refused at start.
#[derive(Clone)]
pub struct RouteGroup {
    name: String,
    routes: Vec<GroupRoute>,
}

/// A route as a list shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RouteEntry {
    /// The method; a GET route answers HEAD as well.
    pub method: String,
    /// The path as actix-web has it, `/api/admin/users/{name}`.
    pub path: String,
    /// The role that it asks for.
    pub role: Role,
}

#[derive(Clone)]
struct GroupRoute {
    method: Method,
    path: String,
    make: Arc<dyn Fn() -> Route + Send + Sync>,
}

impl RouteGroup {
    /// An empty group; `name` is what an error about it says.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            routes: Vec::new(),
        }
    }

    /// Adds a GET route, which answers HEAD as well.
    #[must_use]
    pub fn get<F, Args>(self, role: Role, path: &str, handler: F) -> Self
    where
        F: Handler<Args> + Send + Sync,
        Args: FromRequest + 'static,
        F::Output: Responder + 'static,
    {
        self.route(role, Method::GET, path, handler)
    }

    /// Adds a POST route.
    #[must_use]
    pub fn post<F, Args>(self, role: Role, path: &str, handler: F) -> Self
    where
        F: Handler<Args> + Send + Sync,
        Args: FromRequest + 'static,
        F::Output: Responder + 'static,
    {
        self.route(role, Method::POST, path, handler)
    }

    /// Adds a PUT route.
    #[must_use]
    pub fn put<F, Args>(self, role: Role, path: &str, handler: F) -> Self
    where
        F: Handler<Args> + Send + Sync,
        Args: FromRequest + 'static,
        F::Output: Responder + 'static,
    {
        self.route(role, Method::PUT, path, handler)
    }

    /// Adds a DELETE route.
    #[must_use]
    pub fn delete<F, Args>(self, role: Role, path: &str, handler: F) -> Self
    where
        F: Handler<Args> + Send + Sync,
        Args: FromRequest + 'static,
        F::Output: Responder + 'static,
    {
        self.route(role, Method::DELETE, path, handler)
    }

    /// Adds a route for any method.
    #[must_use]
    pub fn route<F, Args>(self, role: Role, method: Method, path: &str, handler: F) -> Self
    where
        F: Handler<Args> + Send + Sync,
        Args: FromRequest + 'static,
        F::Output: Responder + 'static,
    {
        let slash = if path.starts_with('/') { "" } else { "/" };
        let path = format!("{}{slash}{path}", role.prefix());
        self.at(method, path, handler)
    }

    /// Adds a GET route outside the prefixes of the roles.
    pub(crate) fn get_at<F, Args>(self, path: &str, handler: F) -> Self
    where
        F: Handler<Args> + Send + Sync,
        Args: FromRequest + 'static,
        F::Output: Responder + 'static,
    {
        self.at(Method::GET, String::from(path), handler)
    }

    fn at<F, Args>(mut self, method: Method, path: String, handler: F) -> Self
    where
        F: Handler<Args> + Send + Sync,
        Args: FromRequest + 'static,
        F::Output: Responder + 'static,
    {
        self.routes.push(GroupRoute {
            method,
            path,
            make: Arc::new(move || Route::new().to(handler.clone())),
        });
        self
    }

    /// The name that errors about the group say.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The paths that the group claims, as patterns.
    pub(crate) fn paths(&self) -> impl Iterator<Item = &str> {
        self.routes.iter().map(|route| route.path.as_str())
    }

    /// The routes of the group. The role that each asks for is that of its path.
    pub(crate) fn routes(&self) -> impl Iterator<Item = RouteEntry> {
        self.routes.iter().map(|route| RouteEntry {
            method: route.method.to_string(),
            path: route.path.clone(),
            role: Role::of_path(&route.path),
        })
    }

    /// Registers the routes with an application, one resource a path, 405 with `Allow` for the rest.
    pub(crate) fn register(&self, app: &mut ServiceConfig) {
        // Sorted, `{` comes after letters and digits: within a group a literal path is found before
        // a parameter that would match it too.
        let mut by_path: BTreeMap<&str, Vec<&GroupRoute>> = BTreeMap::new();
        for route in &self.routes {
            by_path.entry(&route.path).or_default().push(route);
        }
        for (path, routes) in by_path {
            let mut resource = web::resource(path);
            let mut allow = Vec::new();
            for route in routes {
                allow.push(route.method.as_str());
                resource = if route.method == Method::GET {
                    allow.push("HEAD");
                    resource.route((route.make)().guard(guard::Any(guard::Get()).or(guard::Head())))
                } else {
                    resource.route((route.make)().method(route.method.clone()))
                };
            }
            app.service(resource.default_service(method_not_allowed(allow.join(", "))));
        }
    }
}

fn method_not_allowed(allow: String) -> Route {
    web::to(move || {
        let allow = allow.clone();
        async move { refuse_method(&allow) }
    })
}

/// 405 with the methods that are allowed (RFC 9110, section 15.5.6).
pub(crate) fn refuse_method(allow: &str) -> HttpResponse {
    use actix_web::ResponseError;
    let mut response = Problem::new(
        actix_web::http::StatusCode::METHOD_NOT_ALLOWED,
        format!("the methods at this path are {allow}"),
    )
    .error_response();
    if let Ok(value) = header::HeaderValue::from_str(allow) {
        response.headers_mut().insert(header::ALLOW, value);
    }
    response
}

/// Two groups of different names that some path would belong to.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the path {path} is claimed by \"{first}\" and by \"{second}\" ({other}); change one of them"
)]
pub struct PathConflict {
    /// The path as the second claims it.
    pub path: String,
    /// The path as the first claims it.
    pub other: String,
    /// The one that claimed it first.
    pub first: String,
    /// The one that claimed it as well.
    pub second: String,
}

/// Finds the first two claimants, by different entries of `claims`, of one path.
pub(crate) fn check_conflicts<'a>(
    claims: impl IntoIterator<Item = (usize, &'a str, String)>,
) -> Result<(), PathConflict> {
    let mut seen: Vec<(usize, &str, String)> = Vec::new();
    for (index, name, path) in claims {
        if let Some((_, first, other)) = seen
            .iter()
            .find(|(other_index, _, other)| *other_index != index && overlap(other, &path))
        {
            return Err(PathConflict {
                path,
                other: other.clone(),
                first: (*first).to_string(),
                second: name.to_string(),
            });
        }
        seen.push((index, name, path));
    }
    Ok(())
}

/// Whether some path matches both patterns, segment by segment. A parameter matches any segment, a
/// parameter that may span segments (`{tail:.*}`) whatever follows. Where a parameter has a pattern
/// of its own this says yes rather than no.
fn overlap(a: &str, b: &str) -> bool {
    let mut left = a.split('/');
    let mut right = b.split('/');
    loop {
        match (left.next(), right.next()) {
            (None, None) => return true,
            (l, r) if l.is_some_and(is_tail) || r.is_some_and(is_tail) => return true,
            (Some(l), Some(r)) if l == r || is_parameter(l) || is_parameter(r) => {}
            _ => return false,
        }
    }
}

fn is_parameter(segment: &str) -> bool {
    segment.contains(['{', '}'])
}

fn is_tail(segment: &str) -> bool {
    is_parameter(segment)
        && (segment.contains(".*") || segment.contains(".+") || segment.contains("}*"))
}

#[cfg(test)]
mod tests {
    use super::overlap;

    #[test]
    fn patterns_overlap_when_one_path_matches_both() {
        for (a, b, expected) in [
            ("/a/b", "/a/b", true),
            ("/a/b", "/a/c", false),
            ("/a", "/a/b", false),
            ("/a/{id}", "/a/list", true),
            ("/a/{id}", "/a/{name}", true),
            ("/a/{id}/x", "/a/list/y", false),
            ("/a/{id}", "/b/{id}", false),
            ("/a/{tail:.*}", "/a/b/c/d", true),
            ("/a/{tail}*", "/a/b/c/d", true),
            ("/{tail:.*}", "/health", true),
            ("/a/{id:[0-9]+}", "/a/7", true),
            ("/a/{id:[0-9]+}/x", "/a/7/y", false),
        ] {
            assert_eq!(overlap(a, b), expected, "{a} {b}");
            assert_eq!(overlap(b, a), expected, "{b} {a}");
        }
    }
}
