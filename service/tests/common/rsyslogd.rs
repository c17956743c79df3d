//! A real syslog daemon on a socket of the test's own.

use super::eventually;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A running rsyslogd that writes `facility.severity tag message` lines.
pub struct Rsyslogd {
    child: Child,
    pub output: PathBuf,
}

impl Rsyslogd {
    pub fn start(directory: &Path) -> Self {
        let socket = directory.join("log.sock");
        let output = directory.join("messages");
        let config = directory.join("rsyslog.conf");
        fs::write(
            &config,
            format!(
                r#"global(workDirectory="{dir}")
module(load="imuxsock" SysSock.Use="off")
input(type="imuxsock" Socket="{socket}" Unlink="on" RateLimit.Interval="0")
template(name="plain" type="string" string="%syslogfacility-text%.%syslogseverity-text% %syslogtag%%msg%\n")
action(type="omfile" file="{output}" template="plain")
"#,
                dir = directory.display(),
                socket = socket.display(),
                output = output.display()
            ),
        )
        .unwrap();
        let child = Command::new("rsyslogd")
            .args(["-n", "-f"])
            .arg(&config)
            .arg("-i")
            .arg(directory.join("rsyslogd.pid"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("rsyslogd of the package rsyslog");
        eventually("rsyslogd listens", || socket.exists().then_some(()));
        Self { child, output }
    }

    pub fn stop(&mut self) {
        let _ = Command::new("kill")
            .arg(self.child.id().to_string())
            .status();
        let _ = self.child.wait();
    }

    pub fn wait_for(&self, text: &str) -> String {
        eventually(&format!("{text:?} in {}", self.output.display()), || {
            let lines = fs::read_to_string(&self.output).ok()?;
            lines
                .lines()
                .find(|line| line.contains(text))
                .map(str::to_owned)
        })
    }
}

impl Drop for Rsyslogd {
    fn drop(&mut self) {
        self.stop();
    }
}
