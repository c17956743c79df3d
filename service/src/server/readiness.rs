//! The registered health checks, and their verdict.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::lifecycle::Lifecycle;

/// How long one check may take before it counts as failed.
const CHECK_LIMIT: Duration = Duration::from_secs(2);
/// How long a verdict is reused, so that asking often costs the checks nothing.
const REUSE: Duration = Duration::from_millis(250);

type Verdict = Result<(), String>;
/// What an embedding program registers.
pub(super) type CheckFn = Arc<dyn Fn() -> Verdict + Send + Sync>;

/// A named check.
#[derive(Clone)]
pub(super) struct Check {
    pub(super) name: String,
    pub(super) run: CheckFn,
}

/// The answer to `GET /health/ready`.
#[derive(Clone, Serialize)]
pub(crate) struct ReadinessReport {
    status: &'static str,
    checks: Vec<CheckReport>,
}

#[derive(Clone, Serialize)]
struct CheckReport {
    name: String,
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

impl CheckReport {
    fn new(name: impl Into<String>, verdict: Verdict) -> Self {
        Self {
            name: name.into(),
            status: if verdict.is_ok() { "pass" } else { "fail" },
            reason: verdict.err(),
        }
    }
}

impl ReadinessReport {
    fn new(checks: Vec<CheckReport>) -> Self {
        let ready = checks.iter().all(|check| check.reason.is_none());
        Self {
            status: if ready { "ok" } else { "unavailable" },
            checks,
        }
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.status == "ok"
    }
}

/// Every check with its run that has not come back yet, and the last verdict.
pub(crate) struct Readiness {
    checks: Vec<Check>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// A run that went over its limit stays here, so that a stuck check costs one thread, not one a request.
    running: Vec<Option<JoinHandle<Verdict>>>,
    last: Option<(Instant, Vec<CheckReport>)>,
}

impl Readiness {
    pub(super) fn new(checks: Vec<Check>) -> Self {
        let running = checks.iter().map(|_| None).collect();
        Self {
            checks,
            state: Mutex::new(State {
                running,
                last: None,
            }),
        }
    }

    /// Runs every check, all at the same time, and lists what they say.
    pub(crate) async fn report(&self, lifecycle: &Lifecycle) -> ReadinessReport {
        let lifecycle = CheckReport::new(
            "lifecycle",
            if lifecycle.is_draining() {
                Err(String::from("the service is draining before it stops"))
            } else {
                Ok(())
            },
        );
        let mut reports = vec![lifecycle];
        reports.extend(self.run_checks().await);
        ReadinessReport::new(reports)
    }

    async fn run_checks(&self) -> Vec<CheckReport> {
        let mut state = self.state.lock().await;
        if let Some((at, reports)) = &state.last
            && at.elapsed() < REUSE
        {
            return reports.clone();
        }
        let deadline = Instant::now() + CHECK_LIMIT;
        for (check, running) in self.checks.iter().zip(&mut state.running) {
            let run = Arc::clone(&check.run);
            running.get_or_insert_with(|| tokio::task::spawn_blocking(move || run()));
        }
        let mut reports = Vec::with_capacity(self.checks.len());
        for (check, running) in self.checks.iter().zip(&mut state.running) {
            let left = deadline.saturating_duration_since(Instant::now());
            let verdict = match running {
                Some(handle) => match timeout(left, &mut *handle).await {
                    Ok(verdict) => {
                        *running = None;
                        verdict.unwrap_or_else(|_| Err(String::from("the check panicked")))
                    }
                    Err(_) => Err(format!("no answer after {} s", CHECK_LIMIT.as_secs())),
                },
                None => Err(String::from("the check was not started")),
            };
            reports.push(CheckReport::new(&check.name, verdict));
        }
        state.last = Some((Instant::now(), reports.clone()));
        reports
    }
}
