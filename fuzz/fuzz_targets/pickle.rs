//! Any bytes as pytorch_model.bin beside a config.json that is right.
#![no_main]

mod place;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| place::attack_model("variants/torch", "pytorch_model.bin", bytes));
