//! Certificates by ACME (RFC 8555), ordered and renewed without anybody.
//!
//! A thread of its own does it, so that no request waits for an authority. What it orders takes the place of the
//! certificate before only after it has proved itself; until then, and when an order fails, nothing changes.

mod account;
mod back_off;
mod http_client;
mod order;
mod proof;

use std::collections::BTreeSet;
use std::fmt::Write;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, sleep, timeout};

use super::Shared;
use super::acme_status::AcmeStatus;
use super::certificate::{Facts, rfc3339};
use super::clock;
use crate::auth::audit;
use crate::config::{AcmeConfig, Config};
use account::AccountFile;
use back_off::BackOff;
use http_client::AcmeHttpClient;

/// How long one order may take.
const ORDER_TIMEOUT: Duration = Duration::from_secs(300);
/// How often the clock is looked at, which may be set at any time.
const CLOCK_LOOK: Duration = Duration::from_secs(30);
/// The longest text of an error, in bytes.
const MAX_REASON_BYTES: usize = 500;

/// Orders and renewals for as long as it lives, if the configuration wants them.
pub(super) struct Acme {
    shared: Arc<Shared>,
    progress: Arc<Mutex<Progress>>,
    running: Mutex<Option<Running>>,
}

/// What has been done, for those who ask.
#[derive(Default)]
struct Progress {
    status: AcmeStatus,
    /// Orders that brought a certificate.
    ok: u64,
    /// Orders that did not.
    failed: u64,
}

/// A thread that orders and renews.
struct Running {
    settings: Settings,
    renew: Arc<Renew>,
    /// Ends the thread when it is dropped, also within an order.
    end: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

/// What a thread works by.
#[derive(Clone, PartialEq)]
struct Settings {
    config: AcmeConfig,
    /// Of the device's identity.
    directory: PathBuf,
}

/// What an administrator asks of the thread.
#[derive(Default)]
struct Renew {
    asked: AtomicBool,
    wake: Notify,
}

impl Acme {
    /// Does nothing before [`Acme::reconfigure`].
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            progress: Arc::default(),
            running: Mutex::default(),
        }
    }

    /// Starts, ends or changes what is done, as `config` says. An order under way for something else is given up.
    ///
    /// # Errors
    /// What the system says when it has no thread.
    pub(super) fn reconfigure(&self, config: &Config) -> io::Result<()> {
        let acme = &config.tls.acme;
        let settings = acme.enabled.then(|| Settings {
            config: acme.clone(),
            directory: config.server.state_dir.join("tls"),
        });
        let mut running = lock(&self.running);
        if running.as_ref().map(|running| &running.settings) == settings.as_ref() {
            return Ok(());
        }
        if let Some(before) = running.take() {
            before.end();
        }
        lock(&self.progress).status = AcmeStatus {
            enabled: settings.is_some(),
            ..AcmeStatus::default()
        };
        let Some(settings) = settings else {
            return Ok(());
        };
        let renew = Arc::new(Renew::default());
        let (end, ended) = oneshot::channel();
        let worker = Worker {
            settings: settings.clone(),
            renew: Arc::clone(&renew),
            shared: Arc::clone(&self.shared),
            progress: Arc::clone(&self.progress),
        };
        let thread = thread::Builder::new()
            .name(String::from("edgeweb-acme"))
            .spawn(move || worker.run(ended))?;
        *running = Some(Running {
            settings,
            renew,
            end,
            thread,
        });
        Ok(())
    }

    /// How it goes.
    pub(super) fn status(&self) -> AcmeStatus {
        lock(&self.progress).status.clone()
    }

    /// Asks for a new certificate now. Asked while an order is under way, that order is it. False when it is off.
    pub(super) fn renew(&self) -> bool {
        let running = lock(&self.running);
        let Some(running) = running.as_ref() else {
            return false;
        };
        running.renew.asked.store(true, Ordering::SeqCst);
        running.renew.wake.notify_one();
        true
    }

    /// Appends how orders ended, in Prometheus's text format.
    pub(super) fn write_metrics(&self, out: &mut String) {
        let (ok, failed) = {
            let progress = lock(&self.progress);
            (progress.ok, progress.failed)
        };
        // Writing to a String cannot fail.
        let _ = write!(
            out,
            "# HELP edgeweb_acme_attempts_total Orders of a certificate by ACME that have ended.\n\
             # TYPE edgeweb_acme_attempts_total counter\n\
             edgeweb_acme_attempts_total{{result=\"ok\"}} {ok}\n\
             edgeweb_acme_attempts_total{{result=\"failed\"}} {failed}\n"
        );
    }
}

impl Drop for Acme {
    fn drop(&mut self) {
        let running = self.running.get_mut();
        if let Some(running) = running.unwrap_or_else(PoisonError::into_inner).take() {
            running.end();
        }
    }
}

impl Running {
    /// Waits for the thread, so that it leaves nothing half done: as long as the storage takes for one file.
    fn end(self) {
        drop(self.end);
        // What it had to say of a panic is in the log.
        let _ = self.thread.join();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The thread's part.
struct Worker {
    settings: Settings,
    renew: Arc<Renew>,
    shared: Arc<Shared>,
    progress: Arc<Mutex<Progress>>,
}

/// Why there is no new certificate.
struct Failure {
    reason: String,
    /// How long the authority asked to be left alone.
    wait: Option<Duration>,
}

impl Worker {
    fn run(self, ended: oneshot::Receiver<()>) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .build();
        let runtime = match runtime {
            Ok(runtime) => runtime,
            Err(error) => {
                log::error!("acme: no certificates are ordered: {error}");
                return;
            }
        };
        runtime.block_on(async {
            tokio::select! {
                // Its sender is only ever dropped.
                _ = ended => {}
                () = self.renew_for_ever() => {}
            }
        });
        // A look-up of a name may still wait for its server, and nobody waits for that.
        runtime.shutdown_background();
    }

    async fn renew_for_ever(&self) {
        let mut account = AccountFile::load(&self.settings.directory);
        let mut back_off = BackOff::new();
        let mut paused_until = Instant::now();
        let mut told_of_clock = false;
        loop {
            let now = clock::now();
            if !clock::is_right(now) {
                if !told_of_clock {
                    told_of_clock = true;
                    log::warn!(
                        "acme: the clock says {}; nothing is ordered before it is right",
                        rfc3339(now)
                    );
                    lock(&self.progress).status.last_error =
                        Some(String::from("the clock is not right"));
                }
                sleep(CLOCK_LOOK).await;
                continue;
            }
            if told_of_clock {
                told_of_clock = false;
                lock(&self.progress).status.last_error = None;
            }
            let current = self.shared.acme_identity();
            let facts = current.as_ref().map(|identity| &identity.facts);
            let due = self.due(facts, &account, now);
            let wait = due.max(paused_until.saturating_duration_since(Instant::now()));
            self.say_next(now, wait, facts);
            let asked = self.renew.asked.swap(false, Ordering::SeqCst);
            if !asked && !wait.is_zero() {
                tokio::select! {
                    () = sleep(wait.min(CLOCK_LOOK)) => {}
                    () = self.renew.wake.notified() => {}
                }
                continue;
            }
            lock(&self.progress).status.last_attempt = Some(rfc3339(now));
            let result = self.order(&mut account).await;
            self.renew.asked.store(false, Ordering::SeqCst);
            match result {
                Ok(()) => {
                    self.say_issued();
                    let current = self.shared.acme_identity();
                    let facts = current.as_ref().map(|identity| &identity.facts);
                    // With a name more than was asked for, or near its end by this clock, each would be followed by
                    // the next one without an end.
                    if self.due(facts, &account, clock::now()).is_zero() {
                        let pause = back_off.pause(None);
                        paused_until = Instant::now() + pause;
                        log::warn!(
                            "acme: what was issued has not the names of tls.acme.names, or most of its time is over; \
                             is the clock right? The next order is in {} s",
                            pause.as_secs()
                        );
                    } else {
                        back_off.reset();
                        paused_until = Instant::now();
                    }
                }
                Err(failure) => {
                    let pause = back_off.pause(failure.wait);
                    paused_until = Instant::now() + pause;
                    self.say_failed(&failure.reason, pause);
                }
            }
        }
    }

    /// Orders a certificate and puts it in force.
    async fn order(&self, account: &mut AccountFile) -> Result<(), Failure> {
        let config = &self.settings.config;
        let client = AcmeHttpClient::new(&config.ca_file)
            .map_err(|reason| Failure { reason, wait: None })?;
        let order = order::issue(config, &client, account, &self.shared);
        let result = match timeout(ORDER_TIMEOUT, order).await {
            Ok(Ok(issued)) => self.put_in_force(account, &issued),
            Ok(Err(reason)) => Err(reason),
            Err(_) => Err(format!(
                "the order took more than {} s",
                ORDER_TIMEOUT.as_secs()
            )),
        };
        result.map_err(|reason| Failure {
            reason,
            wait: client.take_wait(),
        })
    }

    fn put_in_force(
        &self,
        account: &mut AccountFile,
        issued: &order::Issued,
    ) -> Result<(), String> {
        let facts = Facts::read(&issued.leaf)
            .map_err(|_| String::from("what the authority sent is no certificate"))?;
        // Before it is in force: one of which the account does not know would be ordered again at the next start.
        account.set_issued(facts.fingerprint_sha256)?;
        self.shared
            .install_acme(&issued.bundle)
            .map_err(|error| error.to_string())
    }

    /// How long until the next order is due: none if there is no certificate of this authority for these names.
    fn due(&self, current: Option<&Facts>, account: &AccountFile, now: i64) -> Duration {
        let config = &self.settings.config;
        let Some(facts) = current else {
            return Duration::ZERO;
        };
        let has: BTreeSet<&str> = facts.names.iter().map(String::as_str).collect();
        let wanted: BTreeSet<String> = config.names.iter().map(|n| n.to_lowercase()).collect();
        if !has.iter().eq(wanted.iter())
            || !account.has_issued(&facts.fingerprint_sha256, &config.directory_url)
        {
            return Duration::ZERO;
        }
        let due = renewal(facts.not_before, facts.not_after);
        Duration::from_secs(due.saturating_sub(now).try_into().unwrap_or(0))
    }

    fn say_next(&self, now: i64, wait: Duration, current: Option<&Facts>) {
        let wait = i64::try_from(wait.as_secs()).unwrap_or(i64::MAX);
        let mut progress = lock(&self.progress);
        progress.status.next_attempt = Some(rfc3339(now.saturating_add(wait)));
        progress.status.not_after = current.map(Facts::end);
    }

    fn say_issued(&self) {
        let mut progress = lock(&self.progress);
        progress.status.last_error = None;
        progress.ok += 1;
        drop(progress);
        self.audit(Ok(()));
    }

    fn say_failed(&self, reason: &str, pause: Duration) {
        let reason = bounded(reason);
        let mut progress = lock(&self.progress);
        progress.status.last_error = Some(reason.clone());
        progress.failed += 1;
        drop(progress);
        log::warn!(
            "acme: no certificate for {}: {reason}; the next attempt is in {} s",
            self.names(),
            pause.as_secs()
        );
        self.audit(Err(&reason));
    }

    fn audit(&self, result: Result<(), &str>) {
        let from = &self.settings.config.directory_url;
        audit::record("edgeweb", "certificate.renew", &self.names(), from, result);
    }

    fn names(&self) -> String {
        self.settings.config.names.join(", ")
    }
}

/// When two thirds of the time are over: what is left is enough for the longest pause between orders that fail.
const fn renewal(not_before: i64, not_after: i64) -> i64 {
    not_after.saturating_sub(not_after.saturating_sub(not_before) / 3)
}

/// What an authority said, on one line that ends.
fn bounded(reason: &str) -> String {
    let mut line = String::new();
    for c in reason.chars() {
        let start = line.len();
        if c.is_control() {
            line.extend(c.escape_default());
        } else {
            line.push(c);
        }
        if line.len() > MAX_REASON_BYTES {
            line.truncate(start);
            line.push('…');
            break;
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_due_when_two_thirds_of_the_time_are_over() {
        assert_eq!(renewal(1000, 1000 + 90), 1060);
        assert_eq!(renewal(1000, 1000), 1000);
        // Nonsense does not overflow.
        let _ = renewal(i64::MAX, 0);
        let _ = renewal(i64::MIN, i64::MAX);
    }

    #[test]
    fn what_an_authority_says_is_one_line_that_ends() {
        assert_eq!(bounded("a\nb\u{1b}[2J"), "a\\nb\\u{1b}[2J");
        let long = bounded(&"ä".repeat(1000));
        assert!(long.len() <= MAX_REASON_BYTES + 3 && long.ends_with('…'));
    }
}
