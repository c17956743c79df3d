//! The pages: embedded in the binary, on the device's own storage, or the embedding program's.
//!
//! A path is looked up in this order: the program's mounts, the overlay directory, the embedded pages.

#[cfg(feature = "overlay")]
mod directory;
mod embedded;

use std::path::PathBuf;

use actix_web::http::{Method, header};
use actix_web::{HttpRequest, HttpResponse, ResponseError};
use percent_encoding::percent_decode_str;
use rust_embed::{Embed, EmbeddedFile};

use crate::api::error::Problem;
use crate::api::route_group::refuse_method;
use crate::config::OverlayConfig;

/// The page of a directory.
const INDEX: &str = "index.html";
/// A path longer than this is not looked for (bytes).
const MAX_PATH: usize = 1024;

/// The service's own pages, with the compressed forms that `build.rs` made.
#[derive(Embed)]
#[folder = "$OUT_DIR/web"]
struct OwnPages;

/// Where pages are taken from.
#[derive(Clone)]
pub(crate) enum Source {
    /// The binary.
    Embedded(fn(&str) -> Option<EmbeddedFile>),
    /// The device's storage.
    #[cfg_attr(not(feature = "overlay"), allow(dead_code))]
    Directory(PathBuf),
}

/// Pages under a prefix.
#[derive(Clone)]
pub(crate) struct Mount {
    /// Segments joined by `/`, without one at either end; empty for the root.
    prefix: String,
    source: Source,
    /// What an error about the mount calls it.
    name: String,
}

impl Mount {
    pub(crate) fn new(prefix: &str, source: Source) -> Self {
        let prefix = prefix.trim_matches('/').to_owned();
        Self {
            name: format!("pages at /{prefix}"),
            prefix,
            source,
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The paths that the mount claims, as patterns of routes.
    pub(crate) fn claims(&self) -> Vec<String> {
        if self.prefix.is_empty() {
            // The program's own start page; routes are looked up before it.
            vec![String::from("/")]
        } else {
            vec![format!("/{}/{{tail:.*}}", self.prefix)]
        }
    }
}

/// Everything that is served besides routes.
pub(crate) struct Pages {
    mounts: Vec<Mount>,
}

/// What a source has at a path.
enum Found {
    Answer(HttpResponse),
    /// A directory that was asked for without the slash at its end.
    Directory,
    Nothing,
}

impl Pages {
    pub(crate) fn new(mounts: &[Mount], overlay: &OverlayConfig) -> Self {
        let mut mounts = mounts.to_vec();
        // Longest first, so that /manual/de comes before /manual.
        mounts.sort_by_key(|mount| std::cmp::Reverse(mount.prefix.len()));
        if overlay.enabled {
            mounts.push(Mount::new("", Source::Directory(overlay.directory.clone())));
        }
        mounts.push(Mount::new("", Source::Embedded(OwnPages::get)));
        Self { mounts }
    }

    /// Answers a request for a page.
    pub(crate) async fn serve(&self, request: &HttpRequest) -> HttpResponse {
        let Some(path) = decode(request.path()) else {
            return Problem::not_found().error_response();
        };
        for mount in &self.mounts {
            let Some(rest) = under(&path, &mount.prefix) else {
                continue;
            };
            match mount.source.find(request, rest).await {
                Found::Answer(_) if !is_read(request.method()) => {
                    return refuse_method("GET, HEAD");
                }
                // The mount itself, asked for without the slash that its pages' links need.
                Found::Answer(_) if !path.is_empty() && path == mount.prefix => {
                    return redirect_to_directory(request);
                }
                Found::Answer(answer) => return answer,
                Found::Directory => return redirect_to_directory(request),
                Found::Nothing => {}
            }
        }
        Problem::not_found().error_response()
    }
}

impl Source {
    async fn find(&self, request: &HttpRequest, path: &str) -> Found {
        match self {
            Self::Embedded(get) => embedded::find(*get, request, path),
            #[cfg(feature = "overlay")]
            Self::Directory(root) => directory::find(root, request, path).await,
            #[cfg(not(feature = "overlay"))]
            Self::Directory(_) => Found::Nothing,
        }
    }
}

fn is_read(method: &Method) -> bool {
    method == Method::GET || method == Method::HEAD
}

/// The part of `path` under `prefix`; `None` when it is not under it.
fn under<'a>(path: &'a str, prefix: &str) -> Option<&'a str> {
    let rest = path.strip_prefix(prefix)?;
    if prefix.is_empty() || rest.is_empty() {
        Some(rest)
    } else {
        rest.strip_prefix('/')
    }
}

/// The path without the slash at its start, with `%xx` decoded once.
///
/// SECURITY: `None` for everything that could mean another file than the one it seems to name: `.`,
/// `..`, empty and hidden segments, backslashes, encoded slashes, control characters, bytes that are
/// no UTF-8.
fn decode(path: &str) -> Option<String> {
    let path = path.strip_prefix('/')?;
    if path.len() > MAX_PATH {
        return None;
    }
    let mut decoded = String::with_capacity(path.len());
    let segments: Vec<&str> = path.split('/').collect();
    for (index, segment) in segments.iter().enumerate() {
        let segment = percent_decode_str(segment).decode_utf8().ok()?;
        let last = index + 1 == segments.len();
        let harmful = |c: char| c == '/' || c == '\\' || c.is_control();
        if segment.starts_with('.') || segment.contains(harmful) || (segment.is_empty() && !last) {
            return None;
        }
        if index > 0 {
            decoded.push('/');
        }
        decoded.push_str(&segment);
    }
    Some(decoded)
}

/// The path of a directory, or its page, as a file to look for.
fn with_index(path: &str) -> String {
    if path.is_empty() || path.ends_with('/') {
        format!("{path}{INDEX}")
    } else {
        path.to_owned()
    }
}

/// SECURITY: the target begins with exactly one slash, because [`decode`] refuses empty segments; it
/// cannot lead to another host.
fn redirect_to_directory(request: &HttpRequest) -> HttpResponse {
    HttpResponse::PermanentRedirect()
        .insert_header((header::LOCATION, format!("{}/", request.path())))
        .finish()
}

/// How long a browser may keep a page: for ever when its name says which content it has, such as
/// `app.3f9c2a7d.js`, and otherwise only after asking whether it is still the same.
fn cache_control(path: &str) -> &'static str {
    let name = path.rsplit('/').next().unwrap_or(path);
    let is_fingerprint = |part: &str| {
        (8..=64).contains(&part.len())
            && part.bytes().all(|b| b.is_ascii_hexdigit())
            && part.bytes().any(|b| b.is_ascii_digit())
    };
    let mut parts = name.split(['.', '-']);
    let has_stem = parts.next().is_some_and(|stem| !stem.is_empty());
    let fingerprinted = has_stem && name.contains('.') && parts.any(is_fingerprint);
    if fingerprinted {
        "public, max-age=31536000, immutable"
    } else {
        "no-cache"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_decoded_once_and_nothing_else_gets_through() {
        for (path, expected) in [
            ("/", Some("")),
            ("/index.html", Some("index.html")),
            ("/a/b%20c/", Some("a/b c/")),
            ("/%C3%A9", Some("é")),
            ("/%252e%252e/x", Some("%2e%2e/x")),
            ("/..", None),
            ("/a/../b", None),
            ("/%2e%2e/passwd", None),
            ("/a/%2E./b", None),
            ("/..%2fpasswd", None),
            ("/a%5c..%5cb", None),
            ("/.git/config", None),
            ("//evil.example", None),
            ("/a//b", None),
            ("/a%00.html", None),
            ("/a%0d%0ab", None),
            ("/%ff", None),
            ("no-slash", None),
        ] {
            assert_eq!(decode(path).as_deref(), expected, "{path}");
        }
        assert_eq!(decode(&format!("/{}", "a".repeat(MAX_PATH + 1))), None);
    }

    #[test]
    fn only_a_fingerprinted_name_is_kept_for_ever() {
        for name in [
            "app.3f9c2a7d.js",
            "a/app-3f9c2a7d11.css",
            "logo.0123456789abcdef.svg",
        ] {
            assert!(cache_control(name).contains("immutable"), "{name}");
        }
        for name in [
            "app.js",
            "index.html",
            "app.facade.js",
            "deadbeef.js",
            "app.deadbeef.js",
            "12345678.js",
            "20240101",
        ] {
            assert_eq!(cache_control(name), "no-cache", "{name}");
        }
    }

    #[test]
    fn a_prefix_ends_at_a_segment() {
        assert_eq!(under("manual/a", "manual"), Some("a"));
        assert_eq!(under("manual/", "manual"), Some(""));
        assert_eq!(under("manuals/a", "manual"), None);
        assert_eq!(under("a", ""), Some("a"));
    }
}
