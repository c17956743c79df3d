//! The little of HTTP/1.1 over TLS (RFC 9112) that an ACME client needs: one request a connection, its answer read
//! as a whole, bounded in size and time.
//!
//! A general client would bring HTTP/2, a pool of connections and a list of public authorities along, several
//! hundred kilobytes for a dozen requests every two months.

use std::fs::File;
use std::future::Future;
use std::io::{self, Read};
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http_1::{Method, Request, Response, StatusCode, Uri, header};
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient, Problem};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{CertificateError, ClientConfig, RootCertStore};
use serde::Deserialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

/// The largest answer that is read, header and body, in bytes.
const MAX_ANSWER_BYTES: usize = 256 * 1024;
/// Header fields in an answer.
const MAX_FIELDS: usize = 64;
/// The largest file of trusted certificates, in bytes. All public authorities together take 230 KB.
const MAX_CA_FILE_BYTES: u64 = 2 * 1024 * 1024;
/// How long one request may take, from the look-up of the name to the last byte of the answer.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// The longest wait that an authority can ask for. Of the public ones none asks for more than a week.
const LONGEST_WAIT: Duration = Duration::from_secs(7 * 24 * 3600);

/// The client for one order. Clones are the same one.
#[derive(Clone)]
pub(super) struct AcmeHttpClient(Arc<Inner>);

struct Inner {
    tls: TlsConnector,
    wait: Mutex<Option<Duration>>,
}

impl AcmeHttpClient {
    /// A client that trusts servers whose certificates are signed by those in `ca_file`, which is read each time, so
    /// that one that was replaced is taken up.
    pub(super) fn new(ca_file: &Path) -> Result<Self, String> {
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_root_certificates(roots(ca_file)?)
            .with_no_client_auth();
        Ok(Self(Arc::new(Inner {
            tls: TlsConnector::from(Arc::new(config)),
            wait: Mutex::default(),
        })))
    }

    /// How long the authority, refusing the last request that it refused, asked to be left alone.
    pub(super) fn take_wait(&self) -> Option<Duration> {
        self.0
            .wait
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }
}

impl HttpClient for AcmeHttpClient {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let inner = Arc::clone(&self.0);
        Box::pin(async move {
            let (head, body) = request.into_parts();
            // instant-acme opens what it wrapped, though only as the body of an answer.
            let mut body = BytesResponse::from(Response::new(body)).body;
            let body = body.into_bytes().await.map_err(Error::Other)?;
            let place = place(&head.uri);
            let failed = |reason: String| Error::Other(format!("{place}: {reason}").into());
            let answer = timeout(REQUEST_TIMEOUT, inner.exchange(&head, &body))
                .await
                .map_err(|_| failed(format!("no answer within {} s", REQUEST_TIMEOUT.as_secs())))?
                .map_err(failed)?;
            let (mut parts, body) = answer.into_parts();
            let wait = bound_wait(&mut parts.headers, SystemTime::now());
            let refused = parts.status.is_client_error() || parts.status.is_server_error();
            if refused {
                *inner.wait.lock().unwrap_or_else(PoisonError::into_inner) = wait;
            }
            // instant-acme takes what it gets for what it expects.
            if refused || parts.status.is_redirection() {
                match serde_json::from_slice::<Problem>(&body) {
                    Ok(_) if head.method == Method::POST => {}
                    Ok(problem) => return Err(problem.into()),
                    Err(_) => return Err(failed(format!("it answers {}", parts.status))),
                }
            } else if head.method == Method::GET && !is_directory(&body) {
                return Err(failed(String::from("is no directory of an ACME authority")));
            }
            Ok(BytesResponse {
                parts,
                body: Box::new(body),
            })
        })
    }
}

impl Inner {
    async fn exchange(
        &self,
        head: &http_1::request::Parts,
        body: &[u8],
    ) -> Result<Response<Bytes>, String> {
        // RFC 8555, section 6.1; the directory is the authority's, and says where everything else is.
        if head.uri.scheme_str() != Some("https") {
            return Err(String::from("is not an https URL"));
        }
        let host = host(&head.uri)?;
        let name = ServerName::try_from(host.to_owned()).map_err(|error| error.to_string())?;
        let port = head.uri.port_u16().unwrap_or(443);
        let socket = TcpStream::connect((host, port))
            .await
            .map_err(|error| format!("no connection: {error}"))?;
        let mut stream = self
            .tls
            .connect(name, socket)
            .await
            .map_err(|error| tls_reason(&error))?;
        let broken = |error: io::Error| format!("the connection broke: {error}");
        stream
            .write_all(&request_text(head, body))
            .await
            .map_err(broken)?;
        stream.flush().await.map_err(broken)?;
        let mut received = Vec::new();
        loop {
            let read = stream.read_buf(&mut received).await.map_err(broken)?;
            if let Some(answer) = parse(&received, &head.method, read == 0)? {
                return Ok(answer);
            }
            if read == 0 {
                return Err(String::from("the connection was closed within the answer"));
            }
            if received.len() > MAX_ANSWER_BYTES {
                return Err(format!(
                    "the answer is larger than {MAX_ANSWER_BYTES} bytes"
                ));
            }
        }
    }
}

/// Where a request went, without the query.
fn place(uri: &Uri) -> String {
    let scheme = uri.scheme_str().unwrap_or_default();
    let host = uri.authority().map_or("", |authority| authority.as_str());
    format!("{scheme}://{host}{}", uri.path())
}

fn host(uri: &Uri) -> Result<&str, String> {
    let host = uri.host().ok_or_else(|| String::from("has no host name"))?;
    Ok(host.trim_start_matches('[').trim_end_matches(']'))
}

fn request_text(head: &http_1::request::Parts, body: &[u8]) -> Vec<u8> {
    let target = head.uri.path_and_query().map_or("/", |path| path.as_str());
    let host = head.uri.host().unwrap_or_default();
    let port = head
        .uri
        .port()
        .map_or_else(String::new, |port| format!(":{port}"));
    let mut text = format!(
        "{} {target} HTTP/1.1\r\nhost: {host}{port}\r\nconnection: close\r\n",
        head.method
    )
    .into_bytes();
    for (name, value) in &head.headers {
        text.extend_from_slice(name.as_str().as_bytes());
        text.extend_from_slice(b": ");
        text.extend_from_slice(value.as_bytes());
        text.extend_from_slice(b"\r\n");
    }
    if head.method == Method::POST {
        text.extend_from_slice(format!("content-length: {}\r\n", body.len()).as_bytes());
    }
    text.extend_from_slice(b"\r\n");
    text.extend_from_slice(body);
    text
}

/// The answer in `received`, once it is whole. `closed`: nothing more comes.
fn parse(
    received: &[u8],
    method: &Method,
    closed: bool,
) -> Result<Option<Response<Bytes>>, String> {
    let mut rest = received;
    loop {
        let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
        let mut head = httparse::Response::new(&mut fields);
        let wrong = |error: httparse::Error| format!("the answer is not HTTP: {error}");
        let length = match head.parse(rest).map_err(wrong)? {
            httparse::Status::Complete(length) => length,
            httparse::Status::Partial => return Ok(None),
        };
        rest = &rest[length..];
        let status = StatusCode::from_u16(head.code.unwrap_or_default())
            .map_err(|error| format!("the answer is not HTTP: {error}"))?;
        if status.is_informational() {
            continue; // RFC 9110, section 15.2: another one follows
        }
        let mut builder = Response::builder().status(status);
        for field in head.headers.iter() {
            builder = builder.header(field.name, field.value);
        }
        let mut answer = builder
            .body(Bytes::new())
            .map_err(|error| format!("the answer is not HTTP: {error}"))?;
        let empty = method == Method::HEAD
            || status == StatusCode::NO_CONTENT
            || status == StatusCode::NOT_MODIFIED;
        let body = if empty {
            Some(Bytes::new())
        } else {
            whole_body(&answer, rest, closed)?
        };
        return Ok(body.map(|body| {
            *answer.body_mut() = body;
            answer
        }));
    }
}

/// RFC 9112, section 6.3.
fn whole_body(
    answer: &Response<Bytes>,
    rest: &[u8],
    closed: bool,
) -> Result<Option<Bytes>, String> {
    let field = |name| answer.headers().get(name).map(|value| value.as_bytes());
    if let Some(coding) = field(header::TRANSFER_ENCODING) {
        return if coding.eq_ignore_ascii_case(b"chunked") {
            join_chunks(rest)
        } else {
            Err(String::from("the answer's transfer coding is not known"))
        };
    }
    if let Some(length) = field(header::CONTENT_LENGTH) {
        let length: usize = std::str::from_utf8(length)
            .ok()
            .and_then(|text| text.trim().parse().ok())
            .ok_or("the answer's Content-Length is no number")?;
        return Ok(rest.get(..length).map(Bytes::copy_from_slice));
    }
    Ok(closed.then(|| Bytes::copy_from_slice(rest)))
}

/// RFC 9112, section 7.1. Trailers are not of interest.
fn join_chunks(mut rest: &[u8]) -> Result<Option<Bytes>, String> {
    let mut body = Vec::new();
    loop {
        let (start, size) = match httparse::parse_chunk_size(rest) {
            Ok(httparse::Status::Complete(found)) => found,
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(_) => return Err(String::from("the answer's chunks are not well formed")),
        };
        if size == 0 {
            return Ok(Some(body.into()));
        }
        let chunk = usize::try_from(size)
            .ok()
            .filter(|size| *size <= MAX_ANSWER_BYTES)
            .and_then(|size| Some(start..start.checked_add(size)?))
            .ok_or_else(|| format!("the answer is larger than {MAX_ANSWER_BYTES} bytes"))?;
        let (end, Some(data)) = (chunk.end, rest.get(chunk)) else {
            return Ok(None);
        };
        body.extend_from_slice(data);
        match rest.get(end..end + 2) {
            Some(b"\r\n") => rest = &rest[end + 2..],
            Some(_) => return Err(String::from("the answer's chunks are not well formed")),
            None => return Ok(None),
        }
    }
}

/// Whether `body` is a directory (RFC 8555, section 7.1.1) that says where to begin. instant-acme panics when what
/// stands there is no URL.
fn is_directory(body: &[u8]) -> bool {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Directory {
        new_nonce: String,
    }
    serde_json::from_slice(body)
        .is_ok_and(|directory: Directory| directory.new_nonce.parse::<Uri>().is_ok())
}

/// `Retry-After` (RFC 9110, section 10.2.3). Who reads it after this finds no more than [`LONGEST_WAIT`]: instant-acme
/// adds what stands there to the time, and panics when it is too much.
fn bound_wait(headers: &mut header::HeaderMap, now: SystemTime) -> Option<Duration> {
    let field = headers.remove(header::RETRY_AFTER)?;
    let text = field.to_str().ok()?.trim();
    let wait = match text.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => httpdate::parse_http_date(text)
            .ok()?
            .duration_since(now)
            .unwrap_or_default(),
    };
    let wait = wait.min(LONGEST_WAIT);
    headers.insert(header::RETRY_AFTER, wait.as_secs().into());
    Some(wait)
}

fn tls_reason(error: &io::Error) -> String {
    use rustls::Error::InvalidCertificate;
    match error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>())
    {
        // The latter when the issuer has the same name as one of them, but another key.
        Some(InvalidCertificate(
            CertificateError::UnknownIssuer | CertificateError::BadSignature,
        )) => String::from("its certificate is not signed by one in tls.acme.ca_file"),
        Some(InvalidCertificate(
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. },
        )) => String::from("its certificate has expired or is not valid yet; is the clock right?"),
        Some(error) => format!("TLS: {error}"),
        None => format!("TLS: {error}"),
    }
}

/// One that is not understood is left out: the firmware's list may have more than this library knows.
fn roots(path: &Path) -> Result<RootCertStore, String> {
    let unreadable = |error: io::Error| format!("{}: cannot be read: {error}", path.display());
    let mut text = Vec::new();
    File::open(path)
        .map_err(unreadable)?
        .take(MAX_CA_FILE_BYTES + 1)
        .read_to_end(&mut text)
        .map_err(unreadable)?;
    if text.len() as u64 > MAX_CA_FILE_BYTES {
        return Err(format!(
            "{}: is larger than {MAX_CA_FILE_BYTES} bytes; is it the right file?",
            path.display()
        ));
    }
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(CertificateDer::pem_slice_iter(&text).filter_map(Result::ok));
    if roots.is_empty() {
        return Err(format!(
            "{}: has no certificate in PEM; see tls.acme.ca_file",
            path.display()
        ));
    }
    Ok(roots)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOT_WHOLE: &str = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n";

    fn body_of(text: &str, closed: bool) -> Option<Bytes> {
        parse(text.as_bytes(), &Method::GET, closed)
            .unwrap()
            .map(Response::into_body)
    }

    #[test]
    fn an_answer_is_there_with_its_last_byte_and_not_before() {
        for (rest, body) in [
            ("content-length: 3\r\n\r\nabc", "abc"),
            ("Content-Length: 0\r\n\r\n", ""),
            (
                "transfer-encoding: Chunked\r\n\r\n1\r\na\r\n2;x=y\r\nbc\r\n0\r\n",
                "abc",
            ),
        ] {
            let text = format!("{NOT_WHOLE}{rest}");
            for end in 0..text.len() {
                assert_eq!(body_of(&text[..end], true), None, "{:?}", &text[..end]);
            }
            assert_eq!(body_of(&text, false).unwrap(), body, "{text:?}");
        }
    }

    #[test]
    fn without_a_length_the_body_ends_with_the_connection() {
        let text = format!("{NOT_WHOLE}\r\nabc");
        assert_eq!(body_of(&text, false), None);
        assert_eq!(body_of(&text, true).unwrap(), "abc");
        let head = parse(text.as_bytes(), &Method::HEAD, false).unwrap();
        assert_eq!(head.unwrap().into_body(), "");
    }

    #[test]
    fn what_is_no_answer_is_an_error() {
        for text in [
            "SSH-2.0-x\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nx\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nabc",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nffffffffffffffff\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nfffffffffffffff\r\n",
        ] {
            let answer = parse(text.as_bytes(), &Method::GET, true);
            assert!(answer.is_err(), "{text:?}");
        }
        let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "a: b\r\n".repeat(65));
        assert!(parse(many.as_bytes(), &Method::GET, true).is_err());
    }

    #[test]
    fn a_wait_is_in_seconds_or_until_a_date_and_bounded() {
        let now = httpdate::parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT").unwrap();
        for (text, wait) in [
            ("120", Some(120)),
            ("Sun, 06 Nov 1994 08:50:37 GMT", Some(60)),
            ("Sun, 06 Nov 1994 08:00:00 GMT", Some(0)),
            ("18446744073709551615", Some(604_800)),
            ("18446744073709551616", None),
            ("soon", None),
            ("-1", None),
        ] {
            let mut headers = header::HeaderMap::new();
            headers.insert(header::RETRY_AFTER, text.parse().unwrap());
            let expected = wait.map(Duration::from_secs);
            assert_eq!(bound_wait(&mut headers, now), expected, "{text}");
            let left = headers.get(header::RETRY_AFTER).map(|value| value.to_str());
            let expected = wait.map(|wait| wait.to_string());
            assert_eq!(left.transpose().unwrap(), expected.as_deref(), "{text}");
        }
    }
}
