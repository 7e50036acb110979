#![no_main]

#[path = "../inputs/text.rs"]
#[allow(dead_code)] // Another target uses the rest.
mod inputs;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| inputs::template(bytes));
