//! An OPA policy in Rego that narrows what the roles allow.
//!
//! The rule is `data.edgeweb.allow`: a request that its role lets pass goes on only if it is `true`. What is
//! undefined, fails or takes too long is no. The interpreter is regorus, without the parts of OPA's library that
//! weigh most: regular expressions, and time zones.

use std::fs::File;
use std::io::{self, Read};
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use regorus::utils::limits::{ExecutionTimerConfig, set_fallback_execution_timer_config};
use regorus::{CompiledPolicy, Engine, Value};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::Principal;

/// The rule that decides.
const RULE: &str = "data.edgeweb.allow";
/// The largest policy, in bytes.
const MAX_FILE: u64 = 64 * 1024;
/// How long a decision may take. One of a few rules takes microseconds; a worker waits for it.
const LIMIT: Duration = Duration::from_millis(20);
/// Steps between two looks at the clock.
const CHECK_INTERVAL: NonZeroU32 = NonZeroU32::new(64).unwrap();

/// The policy in force, if there is one.
#[derive(Default)]
pub(crate) struct Policy(RwLock<Option<Arc<CompiledPolicy>>>);

/// What a policy is asked about, its `input`.
pub(crate) struct Question<'a> {
    pub(crate) method: &'a str,
    /// Decoded, as routes see it.
    pub(crate) path: &'a str,
    pub(crate) principal: &'a Principal,
    /// Of the certificate that the client showed.
    pub(crate) spiffe_id: Option<&'a str>,
    pub(crate) address: Option<IpAddr>,
    /// Whether it came over TLS.
    pub(crate) over_tls: bool,
}

impl Policy {
    /// Reads the policy in `path`; an empty one means none.
    ///
    /// # Errors
    /// Where it is wrong, in one line; what was in force stays so.
    pub(crate) fn load(&self, path: &Path) -> Result<(), String> {
        let policy = if path.as_os_str().is_empty() {
            None
        } else {
            Some(Arc::new(compile(path)?))
        };
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = policy;
        Ok(())
    }

    /// Whether the policy lets a request pass that its role lets pass.
    ///
    /// # Errors
    /// Why it could not tell, which is no.
    pub(crate) fn allows(&self, question: &Question<'_>) -> Result<bool, String> {
        let policy = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let Some(policy) = policy.as_ref().map(Arc::clone) else {
            return Ok(true);
        };
        // A panic of the interpreter's must not become the connection's.
        catch_unwind(AssertUnwindSafe(|| ask(&policy, question)))
            .unwrap_or_else(|_| Err(String::from("the interpreter panicked")))
    }
}

/// Reads and tries a policy.
///
/// # Errors
/// Where it is wrong, in one line.
pub(crate) fn check(path: &Path) -> Result<(), String> {
    compile(path).map(drop)
}

fn compile(path: &Path) -> Result<CompiledPolicy, String> {
    let name = path.display().to_string();
    let text = read(path).map_err(|error| format!("{name}: cannot be read: {error}"))?;
    set_fallback_execution_timer_config(Some(ExecutionTimerConfig {
        limit: LIMIT,
        check_interval: CHECK_INTERVAL,
    }));
    let mut engine = Engine::new();
    engine
        .add_policy(name.clone(), text)
        .map_err(|error| in_one_line(&error.to_string()))?;
    let policy = engine
        .compile_with_entrypoint(&RULE.into())
        .map_err(|error| match error.to_string() {
            error if error.contains("not a valid rule path") => {
                format!("{name}: has no rule {RULE}: begin with `package edgeweb`, and say when to allow")
            }
            error => in_one_line(&error),
        })?;
    // A function that is not there is only noticed when it is called.
    let question = Question {
        method: "GET",
        path: "/api/public/about",
        principal: &Principal::guest(),
        spiffe_id: None,
        address: Some(IpAddr::from([127, 0, 0, 1])),
        over_tls: true,
    };
    ask(&policy, &question)?;
    Ok(policy)
}

fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?
        .take(MAX_FILE + 1)
        .read_to_string(&mut text)?;
    if text.len() as u64 > MAX_FILE {
        let reason = format!("is larger than {MAX_FILE} bytes");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, reason));
    }
    Ok(text)
}

/// `--> file:line:column … error: reason`, over several lines, as `file:line:column: reason`.
fn in_one_line(error: &str) -> String {
    let place = error.lines().find_map(|line| line.strip_prefix("--> "));
    let reason = error.lines().find_map(|line| line.strip_prefix("error: "));
    match (place, reason) {
        (Some(place), Some(reason)) => format!("{place}: {reason}"),
        _ => error.trim().replace('\n', ", "),
    }
}

fn ask(policy: &CompiledPolicy, question: &Question<'_>) -> Result<bool, String> {
    let answer = policy
        .eval_with_input(input(question))
        .map_err(|error| in_one_line(&error.to_string()))?;
    Ok(answer == Value::from(true))
}

fn input(question: &Question<'_>) -> Value {
    let principal = question.principal;
    let now = OffsetDateTime::from(SystemTime::now());
    let mut input = Value::new_object();
    let Ok(members) = input.as_object_mut() else {
        return input;
    };
    let mut put = |name: &str, value: Value| {
        members.insert(name.into(), value);
    };
    put("method", question.method.into());
    put("path", question.path.into());
    put("name", principal.name.as_str().into());
    put("role", principal.role.name().into());
    put("via", principal.via.name().into());
    if let Some(id) = question.spiffe_id {
        put("spiffe_id", id.into());
    }
    if let Some(address) = question.address {
        put("address", address.to_canonical().to_string().into());
    }
    put("tls", question.over_tls.into());
    if let Ok(time) = now.format(&Rfc3339) {
        put("time", time.into());
    }
    // Without the library's time zones a policy has these, in UTC.
    put("unix_time", now.unix_timestamp().into());
    put("hour", i64::from(now.hour()).into());
    put("weekday", now.weekday().to_string().into());
    input
}
