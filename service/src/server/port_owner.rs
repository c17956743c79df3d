//! Which process listens on a port, as far as `/proc` shows it.

use std::fs;
use std::io::{BufRead, BufReader};

/// A process that was found.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct PortOwner {
    /// Its process id.
    pub(super) pid: u32,
    /// Its name, as `/proc/PID/comm` has it.
    pub(super) name: String,
}

/// Finds the process that listens on TCP `port`. `None` where there is none, or where this process
/// may not see it.
pub(super) fn find(port: u16) -> Option<PortOwner> {
    let inodes: Vec<String> = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|table| fs::File::open(table).ok())
        .flat_map(|table| BufReader::new(table).lines().map_while(Result::ok))
        .filter_map(|line| listening_inode(&line, port))
        .map(|inode| format!("socket:[{inode}]"))
        .collect();
    if inodes.is_empty() {
        return None;
    }
    fs::read_dir("/proc")
        .ok()?
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .find(|pid| holds_one_of(*pid, &inodes))
        .map(|pid| PortOwner {
            pid,
            name: fs::read_to_string(format!("/proc/{pid}/comm"))
                .map_or_else(|_| String::from("?"), |name| name.trim().to_owned()),
        })
}

/// The inode in a line of `/proc/net/tcp`, when it is a listener on `port` (proc(5): state 0A).
fn listening_inode(line: &str, port: u16) -> Option<String> {
    let mut fields = line.split_whitespace();
    let local = fields.nth(1)?;
    let state = fields.nth(1)?;
    let inode = fields.nth(5)?;
    let local_port = u16::from_str_radix(local.rsplit(':').next()?, 16).ok()?;
    (state == "0A" && local_port == port).then(|| inode.to_owned())
}

fn holds_one_of(pid: u32, inodes: &[String]) -> bool {
    fs::read_dir(format!("/proc/{pid}/fd")).is_ok_and(|fds| {
        fds.flatten().any(|fd| {
            fs::read_link(fd.path()).is_ok_and(|target| {
                inodes
                    .iter()
                    .any(|inode| target.as_os_str() == inode.as_str())
            })
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_of_this_process_is_found() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let owner = find(listener.local_addr().unwrap().port()).unwrap();
        assert_eq!(owner.pid, std::process::id());
    }
}
