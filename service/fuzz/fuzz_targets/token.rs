//! The token in `Authorization` or in the cookie.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| edgeweb::fuzzing::token(data));
