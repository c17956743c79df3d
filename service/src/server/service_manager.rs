//! What systemd is told (`sd_notify(3)`), and when its watchdog is fed.
//!
//! Everything here does nothing where `NOTIFY_SOCKET` is not set.

use std::time::Duration;

#[cfg(feature = "systemd")]
use sd_notify::NotifyState;

/// Tells systemd nothing, unless it was asked to.
#[derive(Clone, Copy)]
pub(super) struct ServiceManager {
    enabled: bool,
}

#[cfg(feature = "systemd")]
impl ServiceManager {
    pub(super) fn new(enabled: bool) -> Self {
        Self { enabled }
    }

    pub(super) fn ready(self) {
        self.notify(&[NotifyState::Ready]);
    }

    pub(super) fn stopping(self) {
        self.notify(&[NotifyState::Stopping]);
    }

    pub(super) fn reloading(self) {
        self.notify(&[
            NotifyState::Reloading,
            NotifyState::MonotonicUsec(monotonic_usec()),
        ]);
    }

    pub(super) fn alive(self) {
        self.notify(&[NotifyState::Watchdog]);
    }

    /// How often the watchdog wants to be fed: half of its patience.
    pub(super) fn watchdog_interval(self) -> Option<Duration> {
        sd_notify::watchdog_enabled()
            .filter(|_| self.enabled)
            .map(|limit| limit / 2)
    }

    fn notify(self, state: &[NotifyState<'_>]) {
        if self.enabled
            && let Err(error) = sd_notify::notify(state)
        {
            log::warn!("systemd could not be told {state:?}: {error}");
        }
    }
}

/// The monotonic clock in microseconds. sd-notify 0.5 multiplies in `time_t`, which on 32-bit ARM
/// overflows when the device has been up for 36 minutes.
#[cfg(feature = "systemd")]
fn monotonic_usec() -> i128 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    i128::from(now.tv_sec) * 1_000_000 + i128::from(now.tv_nsec) / 1000
}

#[cfg(not(feature = "systemd"))]
impl ServiceManager {
    pub(super) fn new(enabled: bool) -> Self {
        Self { enabled }
    }
    pub(super) fn ready(self) {}
    pub(super) fn stopping(self) {}
    pub(super) fn reloading(self) {}
    pub(super) fn alive(self) {}
    pub(super) fn watchdog_interval(self) -> Option<Duration> {
        let _ = self.enabled;
        None
    }
}
