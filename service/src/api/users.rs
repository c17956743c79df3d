//! `/api/admin/users`: who can log in.

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use actix_web::web::{Data, Json, Path};
use serde::{Deserialize, Serialize};

use super::caller::{Admin, Caller};
use super::error::Problem;
use super::route_group::RouteGroup;
use super::session::{blocking, hashing, rfc3339};
use crate::auth::{Password, Role, Source, UserEntry};
use crate::server::Core;

pub(super) fn routes() -> RouteGroup {
    RouteGroup::new("edgeweb users")
        .get(Role::Admin, "/users", list)
        .post(Role::Admin, "/users", add)
        .put(Role::Admin, "/users/{name}", change)
        .delete(Role::Admin, "/users/{name}", remove)
}

#[derive(Serialize)]
struct Users {
    users: Vec<User>,
}

#[derive(Serialize)]
struct User {
    username: String,
    role: Role,
    created: String,
    changed: String,
}

impl From<UserEntry> for User {
    fn from(user: UserEntry) -> Self {
        Self {
            username: user.name,
            role: user.role,
            created: rfc3339(user.created),
            changed: rfc3339(user.changed),
        }
    }
}

async fn list(_: Caller<Admin>, core: Data<Core>) -> Result<HttpResponse, Problem> {
    let users = core.auth.users()?.into_iter().map(User::from).collect();
    Ok(HttpResponse::Ok()
        .insert_header(("cache-control", "no-store"))
        .json(Users { users }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewUser {
    username: String,
    password: Password,
    role: Role,
}

async fn add(
    caller: Caller<Admin>,
    from: Source,
    core: Data<Core>,
    Json(asked): Json<NewUser>,
) -> Result<HttpResponse, Problem> {
    let who = (*caller).clone();
    let asked = hashing(core, move |core| {
        core.auth
            .add_user(&who, from, &asked.username, &asked.password, asked.role)?;
        Ok(asked)
    })
    .await?;
    #[derive(Serialize)]
    struct Added {
        username: String,
        role: Role,
    }
    let location = format!("/api/admin/users/{}", asked.username);
    Ok(HttpResponse::Created()
        .insert_header(("location", location))
        .json(Added {
            username: asked.username,
            role: asked.role,
        }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Change {
    role: Option<Role>,
    password: Option<Password>,
}

async fn change(
    caller: Caller<Admin>,
    from: Source,
    core: Data<Core>,
    name: Path<String>,
    Json(asked): Json<Change>,
) -> Result<HttpResponse, Problem> {
    if asked.role.is_none() && asked.password.is_none() {
        return Err(Problem::new(
            StatusCode::BAD_REQUEST,
            "say a role, a password, or both",
        ));
    }
    let who = (*caller).clone();
    hashing(core, move |core| {
        let password = asked.password.as_ref();
        core.auth
            .change_user(&who, from, &name, asked.role, password)
    })
    .await?;
    Ok(HttpResponse::NoContent().finish())
}

async fn remove(
    caller: Caller<Admin>,
    from: Source,
    core: Data<Core>,
    name: Path<String>,
) -> Result<HttpResponse, Problem> {
    let who = (*caller).clone();
    blocking(core, move |core| core.auth.remove_user(&who, from, &name)).await?;
    Ok(HttpResponse::NoContent().finish())
}
