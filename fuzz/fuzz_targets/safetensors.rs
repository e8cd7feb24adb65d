//! Any bytes as model.safetensors beside a config.json that is right.
#![no_main]

mod place;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| place::attack_model("models/gelu-odd", "model.safetensors", bytes));
