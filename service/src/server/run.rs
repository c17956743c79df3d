//! The thread that runs the service: starts it, and does what the handle asks until the end.

use std::os::unix::net::UnixListener;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError, RwLock, mpsc};
use std::thread;
use std::time::Duration;
use std::{fs, io};

use tokio::sync::{mpsc as async_mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, interval, sleep_until};

use super::endpoints::{self, Endpoint};
use super::generation::Generation;
use super::listeners::{self, Listener, Scheme};
use super::service_manager::ServiceManager;
use super::{Command, Core, End, ReloadError, ServeError, ServerHandle, StartError};
use crate::config::Config;
use crate::logging::LogInput;
use crate::{control, logging};

/// Binds the sockets on the caller's thread, so that errors are its errors, and starts the rest.
pub(super) fn start(
    core: Arc<Core>,
    config: Config,
    systemd: bool,
) -> Result<ServerHandle, StartError> {
    let listeners = bind(&config, systemd)?;
    let control = listeners::bind_control(&config.server.control_socket())?;
    let log_socket = config.server.log_socket();
    let log_input = LogInput::bind(&log_socket)
        .inspect_err(|error| {
            log::warn!(
                "{}: {error}; other programs' records do not get here",
                log_socket.display()
            );
        })
        .ok();
    let (commands, requests) = async_mpsc::unbounded_channel();
    let (ended, ended_seen) = watch::channel(false);
    let shared = Arc::new(RwLock::new(Vec::new()));
    let end = Arc::new(End::default());
    let mut running = Running {
        core,
        config,
        listeners,
        control,
        endpoints: Arc::clone(&shared),
        retiring: Vec::new(),
        manager: ServiceManager::new(systemd),
        _log_input: log_input,
    };
    let shared_core = Arc::clone(&running.core);
    let (started, starting) = mpsc::sync_channel(1);
    let ending = Ending {
        end: Arc::clone(&end),
        ended,
        result: Err(ServeError(String::from("its thread panicked"))),
    };
    if let Err(error) = running.publish() {
        running.withdraw();
        return Err(error);
    }
    thread::Builder::new()
        .name(String::from("edgeweb"))
        .spawn(move || {
            let mut ending = ending;
            ending.result = actix_rt::System::new().block_on(async move {
                match running.start_generation() {
                    Ok(generation) => {
                        // Whoever started the service waits for this word.
                        let _ = started.send(Ok(()));
                        running.run(generation, requests).await
                    }
                    Err(error) => {
                        running.withdraw();
                        let _ = started.send(Err(StartError::Thread(error)));
                        Ok(())
                    }
                }
            });
        })
        .map_err(StartError::Thread)?;
    starting.recv().unwrap_or_else(|_| {
        Err(StartError::Thread(io::Error::other(
            "the service's thread ended at once",
        )))
    })?;
    Ok(ServerHandle {
        core: shared_core,
        commands,
        endpoints: shared,
        end,
        ended: ended_seen,
    })
}

fn bind(config: &Config, systemd: bool) -> Result<Vec<Listener>, StartError> {
    let passed = if systemd {
        listeners::passed(config)?
    } else {
        Vec::new()
    };
    if passed.is_empty() {
        Ok(listeners::bind_all(config, &[])?)
    } else {
        Ok(passed)
    }
}

/// Tells everybody who waits that the service has ended, however it did.
struct Ending {
    end: Arc<End>,
    ended: watch::Sender<bool>,
    result: Result<(), ServeError>,
}

impl Drop for Ending {
    fn drop(&mut self) {
        let result = self.result.clone();
        *self
            .end
            .result
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(result);
        self.end.reached.notify_all();
        self.ended.send_replace(true);
    }
}

/// The service as its thread sees it.
struct Running {
    core: Arc<Core>,
    config: Config,
    listeners: Vec<Listener>,
    control: UnixListener,
    endpoints: Arc<RwLock<Vec<Endpoint>>>,
    /// Generations that a reload replaced and that still serve somebody.
    retiring: Vec<JoinHandle<usize>>,
    manager: ServiceManager,
    /// Takes other programs' records until the end.
    _log_input: Option<LogInput>,
}

impl Running {
    fn start_generation(&self) -> io::Result<Generation> {
        Generation::start(&self.core, &self.config, &self.listeners, &self.control)
    }

    /// Says where the service listens: in the file, in the log, and to the handle.
    fn publish(&self) -> Result<(), StartError> {
        let endpoints: Vec<Endpoint> = self
            .listeners
            .iter()
            .map(|listener| Endpoint::new(listener.speaks.scheme(), listener.address))
            .collect();
        let path = self.config.server.endpoints_file();
        endpoints::write(&path, &endpoints)
            .map_err(|source| StartError::EndpointsFile { path, source })?;
        let https = endpoints
            .iter()
            .find(|endpoint| endpoint.scheme == Scheme::Https);
        let port = https.map_or(0, |endpoint| endpoint.port);
        self.core.https_port.store(port, Ordering::Relaxed);
        for endpoint in &endpoints {
            log::info!("listening on {endpoint}");
        }
        *self
            .endpoints
            .write()
            .unwrap_or_else(PoisonError::into_inner) = endpoints;
        Ok(())
    }

    /// Takes away what says that the service is there.
    fn withdraw(&self) {
        for path in [
            self.config.server.endpoints_file(),
            self.config.server.control_socket(),
        ] {
            if let Err(error) = fs::remove_file(&path)
                && error.kind() != io::ErrorKind::NotFound
            {
                log::warn!("{}: cannot be removed: {error}", path.display());
            }
        }
    }

    async fn run(
        &mut self,
        mut generation: Generation,
        mut requests: async_mpsc::UnboundedReceiver<Command>,
    ) -> Result<(), ServeError> {
        log::info!("{} {} is ready", self.core.name, self.core.version);
        self.manager.ready();
        #[cfg(feature = "acme")]
        self.core.tls.order_by_acme(&self.config);
        let watchdog = self.manager.watchdog_interval();
        let mut feeding = watchdog.map(|every| (every, interval(every)));
        loop {
            let fed = async {
                match &mut feeding {
                    Some((every, timer)) => {
                        timer.tick().await;
                        *every
                    }
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                every = fed => self.feed_watchdog(every),
                reason = generation.ended() => {
                    self.withdraw();
                    log::error!("the workers ended: {reason}");
                    log::logger().flush();
                    return Err(ServeError(reason));
                }
                // Without a handle there is nobody who could ask; the service goes on.
                Some(request) = requests.recv() => match request {
                    Command::Reload(config, reply) => {
                        let result = self.reload(*config, &mut generation).await;
                        // Whoever asked may have gone away since; the log says it too.
                        let _ = reply.send(result);
                    }
                    Command::Stop => break,
                    Command::StopNow => {
                        self.config.server.drain_seconds = 0;
                        break;
                    }
                }
            }
        }
        self.drain(generation, requests).await;
        Ok(())
    }

    /// Feeds the watchdog if a worker answers: that this thread is alive says little.
    fn feed_watchdog(&self, every: Duration) {
        let socket = self.config.server.control_socket();
        let manager = self.manager;
        tokio::task::spawn_blocking(move || match control::get(&socket, "/health", every / 2) {
            Ok((200, _)) => manager.alive(),
            Ok((status, _)) => log::error!("no word to the watchdog: /health answers {status}"),
            Err(error) => log::error!("no word to the watchdog: /health does not answer: {error}"),
        });
    }

    async fn reload(
        &mut self,
        config: Config,
        generation: &mut Generation,
    ) -> Result<(), ReloadError> {
        self.manager.reloading();
        let result = self.replace(config, generation).await;
        match &result {
            Ok(()) => log::info!("the new configuration is in force"),
            Err(error) => log::error!("the old configuration stays in force: {error}"),
        }
        self.manager.ready();
        result
    }

    async fn replace(
        &mut self,
        config: Config,
        generation: &mut Generation,
    ) -> Result<(), ReloadError> {
        config.check().map_err(StartError::from)?;
        if config.server.runtime_dir != self.config.server.runtime_dir {
            return Err(ReloadError::RuntimeDir);
        }
        let is_passed = self.listeners.iter().any(Listener::is_passed);
        let new_listeners = if is_passed {
            let asks = listeners::wanted(&config) != listeners::wanted(&self.config);
            if asks {
                log::warn!("where to listen is not used: systemd passes the sockets");
            }
            listeners::take_on_passed(&config, &self.listeners)
        } else {
            listeners::bind_all(&config, &self.listeners)
        };
        let new_listeners = new_listeners.map_err(StartError::from)?;
        self.core
            .reconfigure(&config)
            .inspect_err(|_| {
                // What one part has taken up it gives back; it was in force a moment ago.
                let _ = self.core.reconfigure(&self.config);
            })
            .map_err(ReloadError::from)?;
        let old_config = std::mem::replace(&mut self.config, config);
        let old_listeners = std::mem::replace(&mut self.listeners, new_listeners);
        let started = self
            .publish()
            .and_then(|()| self.start_generation().map_err(StartError::Thread));
        match started {
            Ok(new) => {
                logging::reconfigure(&self.config.log);
                #[cfg(feature = "acme")]
                self.core.tls.order_by_acme(&self.config);
                let old = std::mem::replace(generation, new);
                old.stop_accepting().await;
                let deadline = Instant::now() + self.config.server.drain();
                let core = Arc::clone(&self.core);
                self.retiring.retain(|retiring| !retiring.is_finished());
                self.retiring
                    .push(actix_rt::spawn(old.retire(deadline, core)));
                Ok(())
            }
            Err(error) => {
                self.config = old_config;
                if let Err(error) = self.core.reconfigure(&self.config) {
                    log::error!("what was in force cannot be put back whole: {error}");
                }
                self.listeners = old_listeners;
                self.publish()?;
                Err(error.into())
            }
        }
    }

    /// Refuses what is new, finishes what is old, and ends, all within the drain limit.
    async fn drain(
        &mut self,
        generation: Generation,
        mut requests: async_mpsc::UnboundedReceiver<Command>,
    ) {
        let limit = self.config.server.drain();
        let deadline = Instant::now() + limit;
        self.core.lifecycle.begin_drain();
        self.manager.stopping();
        let in_flight = self.core.lifecycle.requests();
        if in_flight > 0 {
            log::info!(
                "draining: {in_flight} requests are being served, limit {} s",
                limit.as_secs()
            );
        }
        let mut retiring = std::mem::take(&mut self.retiring);
        let done = async {
            self.core.lifecycle.no_requests().await;
            generation.stop_accepting().await;
            generation.close_idle();
            // Answers that were given may still be on their way.
            generation.no_connections().await;
            while let Some(old) = retiring.last_mut() {
                // How many connections it cut off is nobody's question any more.
                let _ = old.await;
                retiring.pop();
            }
        };
        tokio::select! {
            () = done => {}
            () = stop_now(&mut requests) => {}
            () = sleep_until(deadline) => {}
        }
        let left = self.core.lifecycle.requests();
        self.core.lifecycle.hurry();
        let cut_off = generation.stop().await;
        for old in retiring {
            let _ = old.await;
        }
        self.withdraw();
        if left > 0 {
            log::warn!(
                "stopped; {left} requests were cut off after the drain limit of {} s",
                limit.as_secs()
            );
        } else if cut_off > 0 {
            log::warn!("stopped; {cut_off} connections were cut off");
        } else {
            log::info!("stopped");
        }
        log::logger().flush();
    }
}

async fn stop_now(requests: &mut async_mpsc::UnboundedReceiver<Command>) {
    loop {
        match requests.recv().await {
            Some(Command::StopNow) => return,
            // Dropping the reply says that the service is stopping.
            Some(Command::Reload(..) | Command::Stop) => {}
            None => std::future::pending().await,
        }
    }
}
