//! The `Host` header and `:authority`.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| edgeweb::fuzzing::host(data));
