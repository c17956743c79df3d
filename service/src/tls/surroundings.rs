//! How the device is called and where it is reached: what its own certificate is for.

use std::fs;
use std::net::{IpAddr, Ipv6Addr};

use crate::config::is_host_name;

/// The most addresses in the device's own certificate. A host with more names the first ones.
pub(super) const MAX_ADDRESSES: usize = 16;
/// `IFA_F_TEMPORARY` of linux/if_addr.h.
const TEMPORARY: u32 = 0x01;

/// How the device is called and where it is reached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Surroundings {
    /// The kernel's host name; empty if it is none that a certificate can have.
    pub(super) host_name: String,
    /// Sorted, at most [`MAX_ADDRESSES`].
    pub(super) addresses: Vec<IpAddr>,
}

impl Surroundings {
    pub(super) fn look() -> Self {
        let host_name = rustix::system::uname()
            .nodename()
            .to_string_lossy()
            .to_ascii_lowercase();
        let temporary = fs::read_to_string("/proc/net/if_inet6")
            .map(|table| temporary_addresses(&table))
            .unwrap_or_default();
        let mut addresses: Vec<IpAddr> = if_addrs::get_if_addrs()
            .inspect_err(|error| log::warn!("the device's addresses cannot be read: {error}"))
            .unwrap_or_default()
            .iter()
            .map(if_addrs::Interface::ip)
            .filter(|address| is_lasting(address, &temporary))
            .collect();
        addresses.sort_unstable();
        addresses.dedup();
        addresses.truncate(MAX_ADDRESSES);
        Self {
            host_name: if is_host_name(&host_name) {
                host_name
            } else {
                String::new()
            },
            addresses,
        }
    }

    /// What the device is called if it is called one thing only.
    pub(super) fn called(&self) -> &str {
        match self.host_name.as_str() {
            "" => "localhost",
            name => name,
        }
    }

    /// The names of the device's own certificate.
    pub(super) fn names(&self) -> Vec<String> {
        let mut names = Vec::new();
        if !self.host_name.is_empty() {
            names.push(self.host_name.clone());
            // Multicast DNS (RFC 6762) has one label.
            let label = self.host_name.split('.').next().unwrap_or_default();
            if label != "localhost" {
                names.push(format!("{label}.local"));
            }
        }
        names.push(String::from("localhost"));
        names.sort_unstable();
        names.dedup();
        names
    }
}

/// Whether an address is one that people type: neither one of a link, which means nothing without its interface, nor
/// one that the kernel makes up anew each day (RFC 8981) and would need a new certificate each time.
fn is_lasting(address: &IpAddr, temporary: &[Ipv6Addr]) -> bool {
    match address {
        IpAddr::V4(address) => !address.is_unspecified(),
        IpAddr::V6(address) => {
            !address.is_unicast_link_local()
                && !address.is_unspecified()
                && !temporary.contains(address)
        }
    }
}

/// From `/proc/net/if_inet6`: address, index, prefix length, scope, flags in hexadecimal, and name.
fn temporary_addresses(table: &str) -> Vec<Ipv6Addr> {
    table
        .lines()
        .filter_map(|line| {
            let mut fields = line.split_ascii_whitespace();
            let address = u128::from_str_radix(fields.next()?, 16).ok()?;
            let flags = u32::from_str_radix(fields.nth(3)?, 16).ok()?;
            (flags & TEMPORARY != 0).then(|| Ipv6Addr::from(address))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_do_not_last_are_left_out() {
        let table = "\
            20010db8000000000000000000000001 02 40 00 80     eth0\n\
            20010db80000000012345678abcdef01 02 40 00 01     eth0\n\
            fe80000000000000021122fffe334455 02 40 20 80     eth0\n\
            rubbish\n";
        let temporary = temporary_addresses(table);
        assert_eq!(
            temporary,
            ["2001:db8::1234:5678:abcd:ef01".parse::<Ipv6Addr>().unwrap()]
        );
        for (address, expected) in [
            ("192.0.2.1", true),
            ("127.0.0.1", true),
            ("0.0.0.0", false),
            ("::1", true),
            ("2001:db8::1", true),
            ("2001:db8::1234:5678:abcd:ef01", false),
            ("fe80::211:22ff:fe33:4455", false),
        ] {
            let address = address.parse().unwrap();
            assert_eq!(is_lasting(&address, &temporary), expected, "{address}");
        }
    }

    #[test]
    fn a_device_is_called_by_its_host_name_and_its_label() {
        let names = |host: &str| {
            Surroundings {
                host_name: String::from(host),
                addresses: Vec::new(),
            }
            .names()
        };
        assert_eq!(names("pump"), ["localhost", "pump", "pump.local"]);
        assert_eq!(
            names("pump.plant.example"),
            ["localhost", "pump.local", "pump.plant.example"]
        );
        assert_eq!(names("localhost"), ["localhost"]);
        assert_eq!(names(""), ["localhost"]);
    }

    #[test]
    fn this_machine_has_a_loopback_address() {
        let addresses = Surroundings::look().addresses;
        assert!(addresses.contains(&"127.0.0.1".parse().unwrap()));
        assert!(addresses.len() <= MAX_ADDRESSES);
    }
}
