//! Fuzzes model.safetensors, with a valid config.json.
#![no_main]

mod folder;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| folder::attack_model("models/gelu-odd", "model.safetensors", bytes));
