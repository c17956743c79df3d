//! `GET /api/user/logs`: the newest records, or those of an earlier boot. `GET /api/user/logs/stream`: those
//! to come, as server-sent events (WHATWG HTML, section 9.2).

use std::convert::Infallible;
use std::fmt::Write;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use actix_web::http::{Method, StatusCode};
use actix_web::web::{Data, Json, Query};
use actix_web::{HttpRequest, HttpResponse};
use bytes::Bytes;
use futures_core::Stream;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use super::caller::{Caller, User};
use super::error::Problem;
use super::route_group::RouteGroup;
use crate::auth::{Principal, Role};
use crate::logging::Severity;
use crate::logging::query::{self, Live, LogLine, MAX_LIMIT, NoPlace, QueryError};
use crate::server::Core;

/// What is sent at a time, in bytes; a line more may go beyond it.
const CHUNK: usize = 16 * 1024;
/// How often the stream looks whether the service is stopping.
const POLL: Duration = Duration::from_millis(250);
/// How often something is sent to a quiet reader, so that one who is gone is noticed.
const KEEP_ALIVE: Duration = Duration::from_secs(5);

pub(super) fn routes() -> RouteGroup {
    RouteGroup::new("edgeweb logs")
        .get(Role::User, "/logs", logs)
        .get(Role::User, "/logs/stream", stream)
}

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct LogsQuery {
    severity: Severity,
    target: String,
    since: Option<String>,
    limit: usize,
    boot: Option<i32>,
}

impl Default for LogsQuery {
    fn default() -> Self {
        let query = query::Query::default();
        Self {
            severity: query.severity,
            target: query.target,
            since: None,
            limit: query.limit,
            boot: None,
        }
    }
}

/// The stream has neither an end nor a past.
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct StreamQuery {
    severity: Severity,
    target: String,
    since: Option<String>,
}

impl Default for StreamQuery {
    fn default() -> Self {
        let LogsQuery {
            severity,
            target,
            since,
            ..
        } = LogsQuery::default();
        Self {
            severity,
            target,
            since,
        }
    }
}

impl From<StreamQuery> for LogsQuery {
    fn from(asked: StreamQuery) -> Self {
        Self {
            severity: asked.severity,
            target: asked.target,
            since: asked.since,
            ..Self::default()
        }
    }
}

impl LogsQuery {
    fn read(self) -> Result<query::Query, Problem> {
        let wrong = |reason: String| Problem::new(StatusCode::BAD_REQUEST, reason);
        if !(1..=MAX_LIMIT).contains(&self.limit) {
            return Err(wrong(format!(
                "limit: {} is not in 1 to {MAX_LIMIT}",
                self.limit
            )));
        }
        let since_ns = self
            .since
            .map(|since| query::parse_time(&since))
            .transpose()
            .map_err(|reason| wrong(format!("since: {reason}")))?;
        Ok(query::Query {
            severity: self.severity,
            target: self.target,
            since_ns,
            limit: self.limit,
        })
    }
}

#[derive(Serialize)]
struct Logs {
    entries: Vec<LogLine>,
}

async fn logs(Query(asked): Query<LogsQuery>) -> Result<HttpResponse, Problem> {
    let number = asked.boot;
    if number.is_some_and(|number| number > 0) {
        return Err(Problem::new(
            StatusCode::BAD_REQUEST,
            "boot: 0 is this boot, -1 the one before it",
        ));
    }
    let query = asked.read()?;
    let entries = match number {
        None => query::recent(&query),
        // Files are read.
        Some(number) => actix_web::web::block(move || query::boot(number, &query))
            .await
            .map_err(|_| busy("the device is too busy to read the journal"))?,
    }?;
    Ok(HttpResponse::Ok()
        .insert_header(("cache-control", "no-store"))
        .json(Json(Logs { entries })))
}

impl From<QueryError> for Problem {
    fn from(error: QueryError) -> Self {
        let status = match &error {
            QueryError::NoSuchBoot { .. } | QueryError::NoJournal | QueryError::NoLog => {
                StatusCode::NOT_FOUND
            }
            QueryError::Sealed(_) | QueryError::WrongIdentity(_) => StatusCode::CONFLICT,
            QueryError::Unreadable { .. } => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self::new(status, error.to_string())
    }
}

fn busy(reason: &'static str) -> Problem {
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, reason)
}

async fn stream(
    caller: Caller<User>,
    request: HttpRequest,
    core: Data<Core>,
    Query(asked): Query<StreamQuery>,
) -> Result<HttpResponse, Problem> {
    let query = LogsQuery::from(asked).read()?;
    let mut response = HttpResponse::Ok();
    response
        .insert_header(("content-type", "text/event-stream"))
        .insert_header(("cache-control", "no-store"));
    if request.method() == Method::HEAD {
        // Nobody would read the events, and the answer would never end.
        return Ok(response.finish());
    }
    let last_id = request
        .headers()
        .get("last-event-id")
        .and_then(|id| id.to_str().ok())
        .filter(|id| !id.is_empty());
    let live = Live::begin(query, last_id).map_err(|reason| match reason {
        NoPlace::NoLog => QueryError::NoLog.into(),
        NoPlace::Taken => busy("as many read the log as may: log.recent.max_readers"),
    })?;
    let (chunks, receiver) = mpsc::channel(1);
    actix_web::rt::spawn(feed(live, core, (*caller).clone(), chunks));
    Ok(response.streaming(Events(receiver)))
}

/// Sends what is new until the reader is gone, is too slow or has logged out, or the service stops.
async fn feed(mut live: Live, core: Data<Core>, reader: Principal, chunks: mpsc::Sender<Bytes>) {
    let mut chunk = String::from("retry: 2000\n\n");
    if live.has_missed() {
        chunk.push_str(
            "event: missed\ndata: records after the last one seen are no longer there\n\n",
        );
    }
    let mut last = Instant::now();
    while !core.lifecycle.is_draining() && !chunks.is_closed() && core.auth.still_holds(&reader) {
        let read = live.read(|line| {
            event(&mut chunk, line);
            chunk.len() < CHUNK
        });
        if read.is_err() {
            chunk.push_str("event: too-slow\ndata: records were missed\n\n");
        }
        if chunk.is_empty() && last.elapsed() >= KEEP_ALIVE {
            chunk.push_str(":\n\n");
        }
        if !chunk.is_empty() {
            last = Instant::now();
            // A reader that takes nothing is cut off by limits.write_seconds, and this ends with it.
            if chunks
                .send(Bytes::from(std::mem::take(&mut chunk)))
                .await
                .is_err()
            {
                return;
            }
        }
        if read.is_err() {
            return;
        }
        // Too long is no matter: the loop looks again.
        let _ = timeout(POLL, live.wait()).await;
    }
}

fn event(out: &mut String, line: &LogLine) {
    if let Ok(json) = serde_json::to_string(line) {
        // Writing to a String cannot fail.
        let _ = write!(out, "id: {}\ndata: {json}\n\n", line.id);
    }
}

struct Events(mpsc::Receiver<Bytes>);

impl Stream for Events {
    type Item = Result<Bytes, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(cx).map(|chunk| chunk.map(Ok))
    }
}
