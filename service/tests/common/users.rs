//! A device over HTTPS with somebody who can log in.

use std::io::Write;
use std::os::unix::net::UnixStream;

use serde_json::{Value, json};

use super::{Answer, PATIENCE, Service, eventually, https};

/// A password that is taken.
pub const PASSWORD: &str = "correct horse";

/// A running service, asked over HTTPS.
pub struct Device(pub Service);

impl Device {
    /// One without users.
    pub fn start(more: &str) -> Self {
        Self(Service::start_device(more))
    }

    /// One whose administrator is `ann`, and her token.
    pub fn claimed(more: &str) -> (Self, String) {
        let device = Self::start(more);
        let token = device.claim("ann");
        (device, token)
    }

    /// The claim code that the log shows last.
    pub fn code(&self) -> String {
        eventually("a claim code", || {
            let log = self.0.log();
            let (_, rest) = log.rsplit_once("claim code: ")?;
            Some(rest.get(..14)?.to_owned())
        })
    }

    pub fn claim(&self, name: &str) -> String {
        let body = json!({"code": self.code(), "username": name, "password": PASSWORD});
        let answer = self.ask("POST", "/api/public/claim", &[], &body);
        assert_eq!(answer.status, 201, "{answer:?}");
        token(&answer)
    }

    /// A request with a body in JSON; `null` is none.
    pub fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &Value) -> Answer {
        let (headers, body) = with_json(headers, body);
        https::request(self.0.https(), method, path, &headers, &body)
    }

    /// The same with a token.
    pub fn ask_as(&self, token: &str, method: &str, path: &str, body: &Value) -> Answer {
        self.ask(method, path, &[("authorization", &bearer(token))], body)
    }

    /// The same over the device's own socket, which nobody waits at.
    pub fn ask_locally(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &Value,
    ) -> Answer {
        let socket = self.0.directory.path().join("run/edgeweb.sock");
        let mut stream = UnixStream::connect(socket).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let (headers, body) = with_json(headers, body);
        let mut head = format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\n");
        head += &format!("content-length: {}\r\n", body.len());
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        stream.write_all(format!("{head}\r\n").as_bytes()).unwrap();
        stream.write_all(&body).unwrap();
        Answer::read(&mut stream, method == "HEAD").unwrap()
    }

    pub fn log_in(&self, name: &str, password: &str) -> Answer {
        let body = json!({"username": name, "password": password});
        self.ask("POST", "/api/public/session", &[], &body)
    }

    /// Makes a user and logs in.
    pub fn add(&self, admin: &str, name: &str, role: &str) -> String {
        let body = json!({"username": name, "password": PASSWORD, "role": role});
        let added = self.ask_as(admin, "POST", "/api/admin/users", &body);
        assert_eq!(added.status, 201, "{added:?}");
        token(&self.log_in(name, PASSWORD))
    }

    /// Whether a token is good for a USER's route.
    pub fn takes(&self, token: &str) -> bool {
        match self.ask_as(token, "GET", "/api/user/session", &Value::Null) {
            answer if answer.status == 200 => true,
            answer => {
                answer.is_problem(401);
                false
            }
        }
    }
}

pub fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

/// The token in the answer to a log-in.
pub fn token(answer: &Answer) -> String {
    answer.json()["token"].as_str().expect("a token").to_owned()
}

fn with_json<'h>(
    headers: &[(&'h str, &'h str)],
    body: &Value,
) -> (Vec<(&'h str, &'h str)>, Vec<u8>) {
    let mut headers = headers.to_vec();
    if body.is_null() {
        return (headers, Vec::new());
    }
    headers.push(("content-type", "application/json"));
    (headers, body.to_string().into_bytes())
}
