//! Which start of the program and of the device a record belongs to, and when it was made.

use std::fmt;
use std::fs;
use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

use super::entry::Times;

/// The kernel's name for the time since the device was started.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct BootId(pub(super) [u8; 16]);

impl fmt::Display for BootId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// One start of the program. With the sequence number it names a record among all of them.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct RunId(pub(super) u64);

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl std::str::FromStr for RunId {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        u64::from_str_radix(text, 16).map(Self)
    }
}

/// Where this process's records come from.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Origin {
    pub(super) boot: BootId,
    pub(super) run: RunId,
}

impl Origin {
    /// That of this process; the same in every call.
    pub(super) fn of_this_process() -> Self {
        static ORIGIN: OnceLock<Origin> = OnceLock::new();
        *ORIGIN.get_or_init(|| {
            let run = uuid("uuid").unwrap_or_else(clock_bytes);
            let [a, b, c, d, e, f, g, h, ..] = run;
            Self {
                boot: BootId(uuid("boot_id").unwrap_or_default()),
                run: RunId(u64::from_le_bytes([a, b, c, d, e, f, g, h])),
            }
        })
    }
}

/// A UUID that the kernel makes (`random(4)`): one for each boot, or a new one at each reading.
fn uuid(name: &str) -> Option<[u8; 16]> {
    let text = fs::read_to_string(format!("/proc/sys/kernel/random/{name}")).ok()?;
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    let number = u128::from_str_radix(&digits, 16).ok()?;
    Some(number.to_be_bytes())
}

/// Where there is no /proc: the time, which is not the same at two starts unless the clock is broken as well.
fn clock_bytes() -> [u8; 16] {
    let times = now();
    let number = (u128::from(times.monotonic_ns) << 64) ^ (times.wall_ns as u128);
    let mixed = number.wrapping_mul(0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835);
    mixed.to_be_bytes()
}

/// Both clocks.
pub(super) fn now() -> Times {
    let wall_ns = match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_nanos()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_nanos()).map_or(i64::MIN, |ns| -ns),
    };
    let boot = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let monotonic_ns = u64::try_from(boot.tv_sec).unwrap_or_default() * 1_000_000_000
        + u64::try_from(boot.tv_nsec).unwrap_or_default();
    Times {
        wall_ns,
        monotonic_ns,
    }
}
