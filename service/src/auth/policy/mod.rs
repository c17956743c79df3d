//! An OPA policy in Rego that narrows what the roles allow.
//!
//! The rule is `data.edgeweb.allow`: a request that its role lets pass goes on only if it is `true`. What is
//! undefined, fails or takes too long is no. The interpreter is regorus, without the parts of OPA's library that
//! weigh most: regular expressions, and time zones.
//!
//! A policy is the maker's own code. The bounds here catch mistakes; they are no cage for an enemy.

mod references;

use std::any::Any;
use std::fs::File;
use std::io::{self, Read};
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use regorus::utils::limits::ExecutionTimerConfig;
use regorus::{Engine, Value};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::Principal;

/// The package, as the engine names it.
const PACKAGE: &str = "data.edgeweb";
/// The rule that decides.
const RULE: &str = "data.edgeweb.allow";
/// The largest policy, in bytes.
const MAX_FILE: u64 = 64 * 1024;
/// How long a decision may take. One of a few rules takes microseconds; a worker waits for it, and may itself wait
/// for a processor meanwhile. The clock is looked at between steps: a single one, such as making a list of millions,
/// is not interrupted.
const LIMIT: Duration = Duration::from_millis(100);
/// Steps between two looks at the clock.
const CHECK_INTERVAL: NonZeroU32 = NonZeroU32::new(64).unwrap();
/// The longest reason that is told, in characters. The interpreter may quote what it was given.
const MAX_REASON: usize = 300;
/// The most lines that one decision may `print`.
const MAX_PRINTS: usize = 16;

/// The policy in force, if there is one.
#[derive(Default)]
pub(crate) struct Policy(RwLock<Option<Compiled>>);

/// A policy that was read and checked. A clone shares what was compiled: it costs 0.2 µs, and a decision leaves
/// nothing behind for the next one.
#[derive(Clone)]
struct Compiled(Engine);

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
            Some(compile(path)?)
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
        policy.as_ref().map_or(Ok(true), |policy| {
            let policy = policy.clone();
            // SECURITY: a fault of the interpreter is no way past it, and no end of the worker.
            catch_unwind(AssertUnwindSafe(|| ask(policy, question)))
                .unwrap_or_else(|panic| Err(words_of(&*panic)))
        })
    }
}

/// Reads and tries a policy.
///
/// # Errors
/// Where it is wrong, in one line.
pub(crate) fn check(path: &Path) -> Result<(), String> {
    compile(path).map(drop)
}

fn compile(path: &Path) -> Result<Compiled, String> {
    let name = path.display().to_string();
    let text = read(path).map_err(|error| format!("{name}: cannot be read: {error}"))?;
    let policy = parse(name, text)?;
    // What is wrong with an argument is only noticed when it is used.
    let question = Question {
        method: "GET",
        path: "/api/public/about",
        principal: &Principal::guest(),
        spiffe_id: None,
        address: Some(IpAddr::from([127, 0, 0, 1])),
        over_tls: true,
    };
    ask(policy.clone(), &question)?;
    Ok(policy)
}

/// Checks a policy as far as that can be done without a question.
fn parse(name: String, text: String) -> Result<Compiled, String> {
    let in_one_line = |error: anyhow::Error| in_one_line(&error.to_string());
    let mut engine = Engine::new();
    engine.set_execution_timer_config(ExecutionTimerConfig {
        limit: LIMIT,
        check_interval: CHECK_INTERVAL,
    });
    // Otherwise `print` writes to standard error.
    engine.set_gather_prints(true);
    let package = engine.add_policy(name.clone(), text).map_err(in_one_line)?;
    let no_rule = || {
        format!("{name}: has no rule {RULE}: begin with `package edgeweb`, and say when to allow")
    };
    if package != PACKAGE {
        return Err(no_rule());
    }
    for module in engine.get_modules() {
        references::check(module).map_err(|mistake| format!("{name}:{mistake}"))?;
    }
    engine
        .compile_with_entrypoint(&RULE.into())
        .map_err(|error| match error.to_string() {
            error if error.contains("not a valid rule path") => no_rule(),
            error => self::in_one_line(&error),
        })?;
    Ok(Compiled(engine))
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
    let line = match (place, reason) {
        (Some(place), Some(reason)) => format!("{place}: {reason}"),
        _ => error.trim().replace('\n', ", "),
    };
    line.chars().take(MAX_REASON).collect()
}

fn words_of(panic: &(dyn Any + Send)) -> String {
    let words = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!(
        "the interpreter panicked: {}",
        words.unwrap_or("no reason given")
    )
}

fn ask(Compiled(mut engine): Compiled, question: &Question<'_>) -> Result<bool, String> {
    engine.set_input(input(question));
    let answer = engine.eval_rule(String::from(RULE));
    let prints = engine.take_prints().unwrap_or_default();
    for line in prints.iter().take(MAX_PRINTS) {
        log::debug!("the policy prints: {line}");
    }
    let answer = answer.map_err(|error| in_one_line(&error.to_string()))?;
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

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(rules: &str) -> Result<Compiled, String> {
        parse(String::from("/p"), format!("package edgeweb\n{rules}"))
    }

    fn decide_from(policy: &Compiled, address: Option<IpAddr>) -> Result<bool, String> {
        let question = Question {
            method: "GET",
            path: "/",
            principal: &Principal::guest(),
            spiffe_id: None,
            address,
            over_tls: true,
        };
        ask(policy.clone(), &question)
    }

    fn decide(rules: &str) -> Result<bool, String> {
        decide_from(&policy(rules).expect(rules), None)
    }

    #[test]
    fn only_true_is_yes() {
        for (rules, expected) in [
            ("allow := true", true),
            ("allow if input.method == \"GET\"", true),
            (
                "default allow := false\nallow if input.role == \"guest\"",
                true,
            ),
            ("allow if not input.spiffe_id", true),
            ("default allow(_) := true\nallow := false", false),
            // As in the README.
            (
                "default allow := true\nallow := false if { input.role == \"admin\"; not startswith(input.address, \"192.168.1.\") }",
                true,
            ),
            ("allow := false", false),
            ("allow := 1", false),
            ("allow := \"true\"", false),
            ("allow := [true]", false),
            ("allow contains true", false),
            ("allow if input.method == \"PUT\"", false),
            ("allow if input.nothing", false),
        ] {
            assert_eq!(decide(rules), Ok(expected), "{rules}");
        }
    }

    #[test]
    fn an_error_says_where() {
        for (rules, expected) in [
            (
                "allow := true\nallow := false",
                "/p:3:1: rule conflicts with the following rule:",
            ),
            ("allow if 1 / 0 == 1", "/p:2:12: divide by zero"),
            (
                "allow if not startswith(1, \"a\")",
                "/p:2:25: `startswith` expects string argument. Got `1` instead",
            ),
        ] {
            assert_eq!(decide(rules), Err(String::from(expected)), "{rules}");
        }
    }

    #[test]
    fn a_decision_has_an_end() {
        let rules = "allow if {\n some a in numbers.range(1, 5000)\n some b in numbers.range(1, 5000)\n a + b == 0\n}";
        let answer = decide(rules).expect_err(rules);
        assert!(
            answer.starts_with("execution exceeded time limit"),
            "{answer}"
        );
    }

    #[test]
    fn an_ipv4_address_in_ipv6_clothes_is_ipv4() {
        let policy = policy("allow if net.cidr_contains(\"192.0.2.0/24\", input.address)").unwrap();
        for (address, expected) in [
            ("192.0.2.7", true),
            ("::ffff:192.0.2.7", true),
            ("192.0.3.7", false),
            ("2001:db8::1", false),
        ] {
            let client = address.parse().ok();
            assert_eq!(decide_from(&policy, client), Ok(expected), "{address}");
        }
    }

    #[test]
    fn a_mistake_is_found_before_it_is_needed() {
        for (rules, expected) in [
            ("allow if {", "/p:2:11: expecting expression"),
            ("deny := true", "/p:1:1: there is no rule allow"),
            ("allow[\"x\"] := true", "/p: has no rule data.edgeweb.allow"),
            ("allow(x) := true", "/p:1:1: there is no rule allow"),
            (
                "allow if false\nallow if foo(1)",
                "/p:3:10: could not find function foo",
            ),
            (
                "allow if input.method == \"PUT\"\nallow if [x | x := time.now_ns()]",
                "/p:3:24: could not find function time.now_ns",
            ),
            (
                "allow if data.users[input.name]",
                "/p:2:10: there is no data",
            ),
            (
                "import data.users\nallow := true",
                "/p:2:8: there is no data",
            ),
            (
                "allow if f(1)\nf(x) if f(x + 1)",
                "/p:3:1: f refers to itself;",
            ),
            (
                "allow if f(1)\nf(x) if g(x)\ng(x) if { some y in [1]; not f(y) }",
                "/p:3:1: f refers to itself by way of g;",
            ),
            (
                "allow if a\na if b\nb if allow",
                "/p:3:1: a refers to itself by way of b, allow;",
            ),
            (
                "allow if f(1)\nf(x) if g(x) with g as f\ng(x) := x",
                "/p:3:1: f refers to itself;",
            ),
        ] {
            let error = policy(rules).map(drop).expect_err(rules);
            assert!(error.starts_with(expected), "{rules}: {error:?}");
        }
    }

    #[test]
    fn rules_build_on_one_another_up_to_a_bound() {
        let chain = |rules: usize| {
            let steps: String = (1..rules)
                .map(|i| format!("r{i} if r{}\n", i + 1))
                .collect();
            format!("allow if r1\n{steps}r{rules} := true")
        };
        assert_eq!(decide(&chain(references::MAX_CHAIN - 1)), Ok(true));
        let error = policy(&chain(references::MAX_CHAIN)).map(drop).unwrap_err();
        assert!(error.contains("more than 16 rules"), "{error}");
    }
}
