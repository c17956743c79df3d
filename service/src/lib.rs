//! edgeweb: a small, secure, observable web service for device firmware.
//!
//! The crate is a library first. [`Server::builder`] takes a [`Config`] and the program's own
//! [`RouteGroup`]s, health checks and pages; [`ServerBuilder::start`] returns a [`ServerHandle`] at
//! once and leaves the calling program in charge. The `edgeweb` command is that library with a
//! configuration file.
//!
//! ```no_run
//! use edgeweb::{Config, Role, RouteGroup, Server};
//!
//! async fn level() -> &'static str {
//!     "42"
//! }
//!
//! let tank = RouteGroup::new("tank").get(Role::Guest, "/tank/level", level);
//! let server = Server::builder().config(Config::default()).routes(tank).start()?;
//! println!("listening on {:?}", server.endpoints());
//! server.wait()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]

mod api;
mod atomic_file;
mod auth;
pub mod config;
pub mod control;
#[cfg(fuzzing)]
pub mod fuzzing;
pub mod logging;
mod server;
mod tls;
mod web;

pub use api::caller::{Admin, Caller, Guest, RequiredRole, User};
pub use api::error::Problem;
pub use api::route_group::{RouteEntry, RouteGroup};
pub use auth::{AuthError, Password, PasswordError, Principal, Role, UserEntry, UserFile, Via};
pub use config::Config;
pub use server::{
    Endpoint, ReloadError, Scheme, ServeError, Server, ServerBuilder, ServerHandle, StartError,
};
pub use tls::TlsError;

/// The framework that handlers are written with, in the version that the service uses.
pub use actix_web;
/// The crate with which an embedding program puts its own pages into its binary.
pub use rust_embed;

/// The version of this crate.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The target that this crate was built for, as rustc names it.
pub const TARGET: &str = env!("EDGEWEB_TARGET");
/// The features that this crate was built with, separated by spaces.
pub const FEATURES: &str = env!("EDGEWEB_FEATURES");

/// The Rust in the README, compiled with the other examples of the documentation.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
