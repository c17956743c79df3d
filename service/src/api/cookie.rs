//! The cookie in which a browser keeps its token (RFC 6265).

/// Its name. The prefix makes browsers take it only over HTTPS, for this host and all of its paths, so that no
/// other host of the same domain can set it (RFC 6265bis, section 4.1.3.2).
pub(crate) const SESSION: &str = "__Host-edgeweb";

/// Two cookies of one name with different values: somebody else has set one of them.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Ambiguous;

/// The value of the cookie `name` in a `Cookie` header (RFC 6265, section 4.2.1), without quotes around it.
///
/// # Errors
/// [`Ambiguous`] when it is there several times with different values.
pub(crate) fn cookie_value<'h>(header: &'h str, name: &str) -> Result<Option<&'h str>, Ambiguous> {
    let mut found = None;
    for pair in header.split(';') {
        let Some((key, value)) = pair.split_once('=') else {
            continue;
        };
        if key.trim_matches([' ', '\t']) != name {
            continue;
        }
        let value = value.trim_matches([' ', '\t']);
        let inner = value.strip_prefix('"').and_then(|v| v.strip_suffix('"'));
        let value = inner.unwrap_or(value);
        if found.is_some_and(|other| other != value) {
            return Err(Ambiguous);
        }
        found = Some(value);
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_cookie_is_found_among_others() {
        for (header, expected) in [
            ("", Ok(None)),
            ("s", Ok(None)),
            ("=", Ok(None)),
            ("s=", Ok(Some(""))),
            ("s=1", Ok(Some("1"))),
            ("a=2; s=1; b=3", Ok(Some("1"))),
            ("a=2;s=1", Ok(Some("1"))),
            ("; ; s=1;", Ok(Some("1"))),
            ("s=\"1\"", Ok(Some("1"))),
            ("s=\"", Ok(Some("\""))),
            ("s=a=b", Ok(Some("a=b"))),
            (" s = 1 ", Ok(Some("1"))),
            ("S=1", Ok(None)),
            ("xs=1; s2=1; s x=1", Ok(None)),
            ("a=\"; s=1\"", Ok(Some("1\""))),
            ("s=1; s=1", Ok(Some("1"))),
            ("s=1; s=2", Err(Ambiguous)),
            ("s=; s=2", Err(Ambiguous)),
            ("ü=1; s=ü", Ok(Some("ü"))),
        ] {
            assert_eq!(cookie_value(header, "s"), expected, "{header:?}");
        }
    }
}
