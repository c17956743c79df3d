//! The certificates and the key that somebody installs.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| edgeweb::fuzzing::pem_bundle(data));
