//! The claims of a token whose signature is right: what a stolen key could say.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| edgeweb::fuzzing::claims(data));
