//! Users that the maker put into the image: `[[user]]` with `name`, `role` and `hash`, in TOML.

use std::io;
use std::path::Path;

use serde::Deserialize;

use super::state::State;
use super::{Role, password};
use crate::config::{ConfigError, parse_toml, read_text};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    user: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    role: Role,
    hash: String,
}

/// The users in `path`; `None` when there is no such file.
///
/// # Errors
/// One line that names the file and what is wrong with it. A file without users is wrong, too: it was put
/// there so that the device could not be claimed by whoever comes first.
pub(super) fn read(path: &Path, now: u64) -> Result<Option<State>, String> {
    let text = match read_text(path) {
        Err(ConfigError::Unreadable { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            return Ok(None);
        }
        text => text.map_err(|error| error.to_string())?,
    };
    let file: File = parse_toml(&text, path).map_err(|error| error.to_string())?;
    let mut state = State::default();
    for Entry { name, role, hash } in file.user {
        let wrong = |reason: &str| format!("{}: user {name:?}: {reason}", path.display());
        password::parse(&hash).map_err(|reason| {
            wrong(&format!(
                "its hash {reason}; make one with edgeweb user hash"
            ))
        })?;
        state
            .add_user(&name, role, hash, now)
            .map_err(|error| wrong(&error.to_string()))?;
    }
    if state.users.is_empty() {
        return Err(format!("{}: names no user", path.display()));
    }
    Ok(Some(state))
}
