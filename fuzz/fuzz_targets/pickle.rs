//! Fuzzes pytorch_model.bin, with a valid config.json.
#![no_main]

mod folder;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| folder::attack_model("variants/torch", "pytorch_model.bin", bytes));
