//! Sockets, workers, limits and life cycle; puts the other parts together.

mod authorize;
mod connection;
mod endpoints;
mod generation;
mod guard;
mod host;
mod http2;
mod in_clear;
mod lifecycle;
mod listeners;
#[cfg(feature = "policy")]
mod policy;
mod port_owner;
mod readiness;
mod run;
mod security_headers;
mod service_manager;
mod throttle;
mod tls_stream;

pub use endpoints::Endpoint;
#[cfg(fuzzing)]
pub(crate) use host::fuzz as fuzz_host;
pub use listeners::{ListenError, Scheme};

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU16, AtomicUsize};
use std::sync::{Arc, Condvar, Mutex, PoisonError, RwLock, mpsc};

use rust_embed::Embed;
use tokio::sync::{mpsc as async_mpsc, watch};

use crate::api::own_groups;
use crate::api::route_group::{PathConflict, RouteEntry, RouteGroup, check_conflicts};
#[cfg(feature = "policy")]
use crate::auth::policy::Policy;
use crate::auth::{Auth, AuthError};
use crate::config::{Config, ConfigError};
use crate::tls::{Tls, TlsError};
use crate::web::{Mount, Source};
use lifecycle::Lifecycle;
use readiness::{Check, Readiness};
use throttle::Throttle;

/// What all workers of all generations share.
pub(crate) struct Core {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) lifecycle: Lifecycle,
    pub(crate) readiness: Readiness,
    pub(crate) tls: Tls,
    pub(crate) auth: Auth,
    #[cfg(feature = "policy")]
    policy: Policy,
    #[cfg(feature = "policy")]
    policy_refused: Throttle,
    groups: Vec<RouteGroup>,
    mounts: Vec<Mount>,
    /// Where redirections lead; 0 when nothing is listened on over TLS.
    https_port: AtomicU16,
    connections: Arc<AtomicUsize>,
    control_connections: Arc<AtomicUsize>,
    connection_limit_reached: Throttle,
}

impl Core {
    /// Takes up a new configuration, as far as it is not a generation's.
    fn reconfigure(&self, config: &Config) -> Result<(), StartError> {
        self.tls.reconfigure(config)?;
        self.auth.reconfigure(config)?;
        #[cfg(feature = "policy")]
        self.policy
            .load(&config.auth.policy_file)
            .map_err(StartError::Policy)?;
        Ok(())
    }
}

#[cfg(feature = "policy")]
fn read_policy(config: &Config) -> Result<Policy, StartError> {
    let policy = Policy::default();
    policy
        .load(&config.auth.policy_file)
        .map_err(StartError::Policy)?;
    Ok(policy)
}

/// The service. Made by [`Server::builder`].
#[derive(Debug)]
pub struct Server(());

impl Server {
    /// Starts a description of the service to run.
    pub fn builder() -> ServerBuilder {
        ServerBuilder {
            name: String::from("edgeweb"),
            version: String::from(crate::VERSION),
            config: Config::default(),
            groups: Vec::new(),
            checks: Vec::new(),
            mounts: Vec::new(),
            systemd: false,
        }
    }
}

/// The description of a service: configuration and what the program adds to it.
#[must_use]
pub struct ServerBuilder {
    name: String,
    version: String,
    config: Config,
    groups: Vec<RouteGroup>,
    checks: Vec<Check>,
    mounts: Vec<Mount>,
    systemd: bool,
}

impl ServerBuilder {
    /// The name and the version that `GET /api/public/about` says.
    pub fn name(mut self, name: impl Into<String>, version: impl Into<String>) -> Self {
        self.name = name.into();
        self.version = version.into();
        self
    }

    /// The configuration; the defaults unless this is called.
    pub fn config(mut self, config: Config) -> Self {
        self.config = config;
        self
    }

    /// Adds a group of routes.
    pub fn routes(mut self, group: RouteGroup) -> Self {
        self.groups.push(group);
        self
    }

    /// Adds a check that `GET /health/ready` asks. It runs on a thread of its own, at most four times
    /// a second; one that takes more than 2 s counts as failed until it comes back.
    pub fn health_check(
        mut self,
        name: impl Into<String>,
        check: impl Fn() -> Result<(), String> + Send + Sync + 'static,
    ) -> Self {
        self.checks.push(Check {
            name: name.into(),
            run: Arc::new(check),
        });
        self
    }

    /// Serves pages that the program carries in its binary under `prefix`, such as `/manual`.
    ///
    /// Files beside a page with the same name and `.br` or `.gz` at its end are its compressed forms.
    pub fn embedded_assets<E: Embed>(self, prefix: impl Into<String>) -> Self {
        self.mount(prefix, Source::Embedded(E::get))
    }

    /// Serves a directory of the device under `prefix`, such as `/manual`. No path leaves it.
    #[cfg(feature = "overlay")]
    pub fn asset_directory(self, prefix: impl Into<String>, directory: impl Into<PathBuf>) -> Self {
        self.mount(prefix, Source::Directory(directory.into()))
    }

    fn mount(mut self, prefix: impl Into<String>, source: Source) -> Self {
        self.mounts.push(Mount::new(&prefix.into(), source));
        self
    }

    /// Whether to work with systemd as `sd_notify(3)` and `sd_listen_fds(3)` say: take the sockets
    /// that it passes, tell it of ready, reload and stop, and feed its watchdog. Off unless this is
    /// called, because there can be only one in a process who does so.
    pub fn systemd(mut self, enabled: bool) -> Self {
        self.systemd = enabled;
        self
    }

    /// Binds every socket, starts the workers and returns; the calling program stays in charge.
    ///
    /// # Errors
    /// [`StartError`] when the configuration is out of bounds, two groups claim a path, a socket
    /// cannot be bound or a thread cannot be started. Nothing is left running then.
    pub fn start(self) -> Result<ServerHandle, StartError> {
        self.config.check()?;
        let groups: Vec<RouteGroup> = own_groups().into_iter().chain(self.groups).collect();
        let group_claims = groups.iter().enumerate().flat_map(|(index, group)| {
            group
                .paths()
                .map(move |path| (index, group.name(), path.to_owned()))
        });
        let mount_claims = self.mounts.iter().enumerate().flat_map(|(index, mount)| {
            let index = groups.len() + index;
            let claims = mount.claims();
            claims
                .into_iter()
                .map(move |path| (index, mount.name(), path))
        });
        check_conflicts(group_claims.chain(mount_claims))?;

        let core = Arc::new(Core {
            name: self.name,
            version: self.version,
            lifecycle: Lifecycle::new(),
            readiness: Readiness::new(self.checks),
            tls: Tls::open(&self.config)?,
            auth: Auth::open(&self.config)?,
            #[cfg(feature = "policy")]
            policy: read_policy(&self.config)?,
            #[cfg(feature = "policy")]
            policy_refused: Throttle::default(),
            groups,
            mounts: self.mounts,
            https_port: AtomicU16::new(0),
            connections: Arc::default(),
            control_connections: Arc::default(),
            connection_limit_reached: Throttle::default(),
        });
        run::start(core, self.config, self.systemd)
    }
}

/// A running service. Clones are handles to the same one; dropping them does not stop it.
#[derive(Clone)]
pub struct ServerHandle {
    core: Arc<Core>,
    commands: async_mpsc::UnboundedSender<Command>,
    endpoints: Arc<RwLock<Vec<Endpoint>>>,
    end: Arc<End>,
    ended: watch::Receiver<bool>,
}

/// What the handle asks of the service.
enum Command {
    Reload(Box<Config>, mpsc::SyncSender<Result<(), ReloadError>>),
    Stop,
    StopNow,
}

/// How the service ended, once it has.
#[derive(Default)]
struct End {
    result: Mutex<Option<Result<(), ServeError>>>,
    reached: Condvar,
}

impl ServerHandle {
    /// The addresses that are listened on at the moment.
    #[must_use]
    pub fn endpoints(&self) -> Vec<Endpoint> {
        self.endpoints
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// The addresses that are listened on at the moment, without what is spoken there.
    #[must_use]
    pub fn addrs(&self) -> Vec<SocketAddr> {
        self.endpoints().iter().map(Endpoint::socket_addr).collect()
    }

    /// Every route of the service and of the program, in the order in which they are looked for.
    #[must_use]
    pub fn routes(&self) -> Vec<RouteEntry> {
        self.core
            .groups
            .iter()
            .flat_map(RouteGroup::routes)
            .collect()
    }

    /// The one-time code with which `POST /api/public/claim` makes the first administrator; `None` when somebody
    /// exists, or the code has ended. It is in the log at severity notice as well. Show it where only somebody
    /// who has the device in front of them sees it.
    #[must_use]
    pub fn claim_code(&self) -> Option<String> {
        self.core.auth.claim_code()
    }

    /// Puts `config` in the place of the running configuration. Requests that are being served are
    /// not disturbed. When it returns an error, the old configuration is still in force.
    ///
    /// Blocks for the few milliseconds that this takes.
    ///
    /// # Errors
    /// [`ReloadError`] says what in `config` cannot be done.
    pub fn reload(&self, config: Config) -> Result<(), ReloadError> {
        let (reply, answer) = mpsc::sync_channel(1);
        self.commands
            .send(Command::Reload(Box::new(config), reply))
            .map_err(|_| ReloadError::Stopping)?;
        answer.recv().unwrap_or(Err(ReloadError::Stopping))
    }

    /// Begins to stop: what is being served comes to its end, within the drain limit of the
    /// configuration, and everything else is refused. Returns at once; [`ServerHandle::wait`] waits.
    pub fn begin_stop(&self) {
        // A service that has ended needs no command to end.
        let _ = self.commands.send(Command::Stop);
    }

    /// Stops without waiting for what is being served.
    pub fn stop_now(&self) {
        let _ = self.commands.send(Command::StopNow);
    }

    /// Stops with draining and waits for the end.
    ///
    /// # Errors
    /// As [`ServerHandle::wait`].
    pub fn stop(&self) -> Result<(), ServeError> {
        self.begin_stop();
        self.wait()
    }

    /// Blocks until the service has ended.
    ///
    /// # Errors
    /// [`ServeError`] when it ended by itself, not because it was asked to.
    pub fn wait(&self) -> Result<(), ServeError> {
        let mut result = self
            .end
            .result
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        loop {
            match &*result {
                Some(result) => return result.clone(),
                None => {
                    result = self
                        .end
                        .reached
                        .wait(result)
                        .unwrap_or_else(PoisonError::into_inner);
                }
            }
        }
    }

    /// Waits until the service has ended, without blocking the thread.
    ///
    /// # Errors
    /// As [`ServerHandle::wait`].
    pub async fn ended(&self) -> Result<(), ServeError> {
        let mut ended = self.ended.clone();
        // The sender is dropped after the result was set; both mean the end.
        let _ = ended.wait_for(|ended| *ended).await;
        self.wait()
    }
}

/// Why a service was not started. Each text is one line.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The configuration is out of bounds.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Two groups claim the same path.
    #[error(transparent)]
    PathConflict(#[from] PathConflict),
    /// The device's identity could not be read or made.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// What says who somebody is could not be read.
    #[error(transparent)]
    Auth(#[from] AuthError),
    /// The policy cannot be read or is none.
    #[error("{0}")]
    Policy(String),
    /// A socket could not be bound.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The file that says which addresses are in use could not be written.
    #[error("{}: cannot be written: {source}; make room, or set server.runtime_dir", path.display())]
    EndpointsFile {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A thread could not be started.
    #[error("a thread could not be started: {0}")]
    Thread(#[source] io::Error),
}

/// Why a new configuration was not taken. Each text is one line.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReloadError {
    /// It is out of bounds, or a socket that it asks for cannot be had.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The directory of the files that others find the service by cannot move while it runs.
    #[error("server.runtime_dir cannot change while the service runs; restart it")]
    RuntimeDir,
    /// The service is about to stop.
    #[error("the service is stopping")]
    Stopping,
}

/// Why a service ended by itself.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the service ended by itself: {0}")]
pub struct ServeError(String);
