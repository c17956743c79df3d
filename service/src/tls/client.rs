//! Who a client is, by its certificate, and what that lets it do.

use rustls::pki_types::CertificateDer;

use super::ClientIdentity;
use super::certificate::Facts;
use super::validation::check_time;
use crate::auth::Role;
use crate::config::ClientRole;

/// The longest SPIFFE ID (SPIFFE-ID, section 2.3), in bytes.
const MAX_SPIFFE_ID: usize = 2048;
/// The longest trust domain (SPIFFE-ID, section 2.1), in bytes.
const MAX_TRUST_DOMAIN: usize = 255;

/// Who shows `leaf`, which a handshake has verified. `None` if it names nobody, or is not valid at `now`: a resumed
/// session may be younger than its certificate's end.
pub(super) fn identify(
    leaf: &CertificateDer<'_>,
    rules: &[ClientRole],
    now: i64,
) -> Option<ClientIdentity> {
    let facts = Facts::read(leaf).ok()?;
    check_time(&facts, 1, now).ok()?;
    let spiffe_id = match facts.uris.as_slice() {
        [uri] if split(uri).is_some() => Some(uri.clone()),
        // X.509-SVID, section 5.1: one with two IDs, or with one that is none, is refused. It is nobody's.
        uris if uris.iter().any(|uri| is_spiffe_scheme(uri)) => return None,
        _ => None,
    };
    let name = spiffe_id.clone().unwrap_or(facts.subject);
    if name.is_empty() {
        return None;
    }
    let role = role(&name, spiffe_id.is_some(), rules);
    Some(ClientIdentity {
        name,
        spiffe_id,
        role,
    })
}

fn is_spiffe_scheme(uri: &str) -> bool {
    uri.split_once(':')
        .is_some_and(|(scheme, _)| scheme.eq_ignore_ascii_case("spiffe"))
}

/// The role of the first rule that fits. A certificate with a SPIFFE ID goes by that alone: whoever hands out IDs need
/// not watch the subjects.
fn role(name: &str, is_spiffe_id: bool, rules: &[ClientRole]) -> Option<Role> {
    let fits = |rule: &&ClientRole| {
        if is_spiffe_id {
            !rule.spiffe_id.is_empty() && spiffe_id_fits(name, &rule.spiffe_id)
        } else {
            !rule.subject.is_empty() && rule.subject == name
        }
    };
    rules.iter().find(fits).map(|rule| rule.role)
}

/// Whether `id` is `pattern`, or begins with it where `/*` stands at its end. A trust domain fits itself only.
fn spiffe_id_fits(id: &str, pattern: &str) -> bool {
    match pattern.strip_suffix("/*") {
        Some(begin) => id
            .strip_prefix(begin)
            .is_some_and(|rest| rest.len() > 1 && rest.starts_with('/')),
        None => id == pattern,
    }
}

/// The trust domain and the path of a SPIFFE ID (SPIFFE-ID, section 2), or `None` if it is none: no user, no port, no
/// query, no fragment, no percent-encoding, no empty or relative segments.
fn split(id: &str) -> Option<(&str, &str)> {
    if id.len() > MAX_SPIFFE_ID {
        return None;
    }
    let rest = id.strip_prefix("spiffe://")?;
    let (domain, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let in_domain =
        |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'_');
    if !(1..=MAX_TRUST_DOMAIN).contains(&domain.len()) || !domain.bytes().all(in_domain) {
        return None;
    }
    let in_path = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
    let is_segment = |segment: &str| {
        !segment.is_empty() && segment != "." && segment != ".." && segment.bytes().all(in_path)
    };
    match path.strip_prefix('/') {
        Some(segments) if !segments.split('/').all(is_segment) => None,
        _ => Some((domain, path)),
    }
}

/// Whether `pattern` can fit any SPIFFE ID.
pub(crate) fn is_spiffe_pattern(pattern: &str) -> bool {
    split(pattern.strip_suffix("/*").unwrap_or(pattern)).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spiffe_id_is_what_its_specification_says() {
        let longest = format!("spiffe://a/{}", "b".repeat(MAX_SPIFFE_ID - 11));
        for id in [
            "spiffe://example.org",
            "spiffe://example.org/fleet/manager",
            "spiffe://a-b_c.9/A.b-c_d",
            &longest,
        ] {
            assert!(split(id).is_some(), "{id}");
        }
        for id in [
            "",
            "spiffe://",
            "spiffe:///path",
            "https://example.org/a",
            "SPIFFE://example.org/a",
            "spiffe://Example.org/a",
            "spiffe://example.org:8443/a",
            "spiffe://user@example.org/a",
            "spiffe://example.org/a?b",
            "spiffe://example.org/a#b",
            "spiffe://example.org/a%2fb",
            "spiffe://example.org/",
            "spiffe://example.org/a/",
            "spiffe://example.org//a",
            "spiffe://example.org/./a",
            "spiffe://example.org/../a",
            "spiffe://example.org/ä",
            "spiffe://example.org/a b",
            "spiffe://example.org/*",
            &format!("{longest}b"),
            &format!("spiffe://{}/a", "a".repeat(MAX_TRUST_DOMAIN + 1)),
        ] {
            assert!(split(id).is_none(), "{id}");
        }
        assert!(is_spiffe_pattern("spiffe://example.org/*"));
        assert!(is_spiffe_pattern("spiffe://example.org/a/*"));
        assert!(!is_spiffe_pattern("spiffe://*"));
        assert!(!is_spiffe_pattern("spiffe://*/a"));
        assert!(!is_spiffe_pattern("spiffe://example.org/a*"));
        assert!(!is_spiffe_pattern("spiffe://Example.org/a"));
    }

    #[test]
    fn the_first_rule_that_fits_gives_the_role() {
        let rule = |spiffe_id: &str, subject: &str, role| ClientRole {
            spiffe_id: String::from(spiffe_id),
            subject: String::from(subject),
            role,
        };
        let rules = [
            rule("spiffe://example.org/fleet/manager", "", Role::Admin),
            rule("spiffe://example.org/fleet/*", "", Role::User),
            rule("", "CN=ops,O=Maker", Role::Admin),
            rule("", "spiffe://other.org/a", Role::Admin),
        ];
        for (name, is_id, expected) in [
            (
                "spiffe://example.org/fleet/manager",
                true,
                Some(Role::Admin),
            ),
            (
                "spiffe://example.org/fleet/manager/a",
                true,
                Some(Role::User),
            ),
            ("spiffe://example.org/fleet/a/b", true, Some(Role::User)),
            ("spiffe://example.org/fleet", true, None),
            ("spiffe://example.org/fleets/a", true, None),
            ("spiffe://example.org.evil/fleet/manager", true, None),
            ("spiffe://other.org/a", true, None),
            ("CN=ops,O=Maker", false, Some(Role::Admin)),
            ("CN=ops,O=Maker", true, None),
            ("CN=ops,O=Maker,C=DE", false, None),
            ("cn=ops,o=maker", false, None),
        ] {
            assert_eq!(role(name, is_id, &rules), expected, "{name}");
        }
        let everybody = [rule("spiffe://example.org/*", "", Role::User)];
        for (id, expected) in [
            ("spiffe://example.org/a", Some(Role::User)),
            ("spiffe://example.org", None),
            ("spiffe://example.orga/a", None),
        ] {
            assert_eq!(role(id, true, &everybody), expected, "{id}");
        }
    }
}
