//! Pages in the binary: the right form for the client, and only what it does not have yet.

use std::borrow::Cow;

use actix_web::HttpMessage;
use actix_web::http::StatusCode;
use actix_web::http::header::{
    self, ByteRangeSpec, ContentRange, ContentRangeSpec, EntityTag, Header, IfNoneMatch, IfRange,
    Range,
};
use actix_web::{HttpRequest, HttpResponse};
use bytes::Bytes;
use rust_embed::EmbeddedFile;

use super::{Found, cache_control, with_index};

type Get = fn(&str) -> Option<EmbeddedFile>;

pub(super) fn find(get: Get, request: &HttpRequest, path: &str) -> Found {
    let name = with_index(path);
    let Some(identity) = get(&name) else {
        let is_directory = !path.is_empty()
            && !path.ends_with('/')
            && get(&with_index(&format!("{path}/"))).is_some();
        return if is_directory {
            Found::Directory
        } else {
            Found::Nothing
        };
    };
    Found::Answer(answer(get, request, &name, identity))
}

fn answer(get: Get, request: &HttpRequest, name: &str, identity: EmbeddedFile) -> HttpResponse {
    let accepted = Accepted::by(request);
    let brotli = get(&format!("{name}.br"));
    let gzip = get(&format!("{name}.gz"));
    let varies = brotli.is_some() || gzip.is_some();
    let (encoding, file) = match (accepted.brotli, brotli, accepted.gzip, gzip) {
        (true, Some(file), _, _) => (Some("br"), file),
        (_, _, true, Some(file)) => (Some("gzip"), file),
        _ => (None, identity),
    };
    let tag = entity_tag(&file);

    let mut response = HttpResponse::Ok();
    response
        .insert_header((header::ETAG, tag.to_string()))
        .insert_header((header::CACHE_CONTROL, cache_control(name)))
        .insert_header((header::ACCEPT_RANGES, "bytes"));
    if varies {
        response.insert_header((header::VARY, "accept-encoding"));
    }
    if is_known(request, &tag) {
        return response.status(StatusCode::NOT_MODIFIED).finish();
    }
    response.insert_header((header::CONTENT_TYPE, content_type(name)));
    if let Some(encoding) = encoding {
        response.insert_header((header::CONTENT_ENCODING, encoding));
    }
    let content = match file.data {
        Cow::Borrowed(bytes) => Bytes::from_static(bytes),
        Cow::Owned(bytes) => Bytes::from(bytes),
    };
    match wanted_range(request, &tag, content.len() as u64) {
        Wanted::Everything => response.body(content),
        Wanted::Part(first, last) => response
            .status(StatusCode::PARTIAL_CONTENT)
            .insert_header(content_range(Some((first, last)), content.len()))
            // Both bounds are below the length, which is a usize.
            .body(content.slice(first as usize..=last as usize)),
        Wanted::Impossible => response
            .status(StatusCode::RANGE_NOT_SATISFIABLE)
            .insert_header(content_range(None, content.len()))
            .finish(),
    }
}

/// A strong tag: the content's SHA-256, which differs from form to form (RFC 9110, section 8.8.3.3).
fn entity_tag(file: &EmbeddedFile) -> EntityTag {
    let hash = file.metadata.sha256_hash();
    EntityTag::new_strong(
        hash[..16]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect(),
    )
}

/// Whether the client has this form already (`If-None-Match`, weak comparison).
fn is_known(request: &HttpRequest, tag: &EntityTag) -> bool {
    match request.get_header::<IfNoneMatch>() {
        Some(IfNoneMatch::Any) => true,
        Some(IfNoneMatch::Items(tags)) => tags.iter().any(|known| known.weak_eq(tag)),
        None => false,
    }
}

enum Wanted {
    Everything,
    Part(u64, u64),
    Impossible,
}

/// What `Range` asks for (RFC 9110, section 14.2). More than one range, another unit or a header that
/// is none gets everything, which the RFC allows.
fn wanted_range(request: &HttpRequest, tag: &EntityTag, length: u64) -> Wanted {
    if !request.headers().contains_key(header::RANGE) {
        return Wanted::Everything;
    }
    if request.headers().contains_key(header::IF_RANGE) {
        let same = match IfRange::parse(request) {
            Ok(IfRange::EntityTag(known)) => known.strong_eq(tag),
            _ => false,
        };
        if !same {
            return Wanted::Everything;
        }
    }
    match Range::parse(request) {
        Ok(Range::Bytes(specs)) => match specs.as_slice() {
            [spec] => satisfiable(spec, length),
            _ => Wanted::Everything,
        },
        _ => Wanted::Everything,
    }
}

fn satisfiable(spec: &ByteRangeSpec, length: u64) -> Wanted {
    match spec.to_satisfiable_range(length) {
        Some((first, last)) => Wanted::Part(first, last),
        None => Wanted::Impossible,
    }
}

fn content_range(range: Option<(u64, u64)>, length: usize) -> ContentRange {
    ContentRange(ContentRangeSpec::Bytes {
        range,
        instance_length: Some(length as u64),
    })
}

fn content_type(name: &str) -> String {
    let mime = mime_guess::from_path(name).first_or_octet_stream();
    match (mime.type_(), mime.subtype()) {
        (mime::TEXT, _) | (mime::APPLICATION, mime::JAVASCRIPT | mime::JSON) => {
            format!("{}; charset=utf-8", mime.essence_str())
        }
        _ => mime.to_string(),
    }
}

/// The codings that the client takes (RFC 9110, section 12.5.3).
#[derive(Debug, Default, PartialEq, Eq)]
struct Accepted {
    brotli: bool,
    gzip: bool,
}

impl Accepted {
    fn by(request: &HttpRequest) -> Self {
        request
            .headers()
            .get(header::ACCEPT_ENCODING)
            .and_then(|value| value.to_str().ok())
            .map_or_else(Self::default, Self::parse)
    }

    fn parse(value: &str) -> Self {
        let mut brotli = None;
        let mut gzip = None;
        let mut any = false;
        for item in value.split(',') {
            let (coding, parameters) = item.split_once(';').unwrap_or((item, ""));
            let weight = parameters
                .trim()
                .strip_prefix("q=")
                .map_or(1.0, |q| q.trim().parse().unwrap_or(0.0));
            let taken = weight > 0.0_f32;
            match coding.trim().to_ascii_lowercase().as_str() {
                "br" => brotli = Some(taken),
                "gzip" | "x-gzip" => gzip = Some(taken),
                "*" => any = taken,
                _ => {}
            }
        }
        Self {
            brotli: brotli.unwrap_or(any),
            gzip: gzip.unwrap_or(any),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Accepted;

    #[test]
    fn codings_are_read_with_their_weights() {
        for (value, brotli, gzip) in [
            ("gzip, deflate, br", true, true),
            ("gzip", false, true),
            ("br;q=0, gzip;q=0.5", false, true),
            ("*", true, true),
            ("*;q=0", false, false),
            ("*, br;q=0", false, true),
            ("identity", false, false),
            ("BR", true, false),
            ("br;q=x", false, false),
            ("", false, false),
        ] {
            assert_eq!(
                Accepted::parse(value),
                Accepted { brotli, gzip },
                "{value:?}"
            );
        }
    }
}
