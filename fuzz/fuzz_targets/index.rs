//! Fuzzes model.safetensors.index.json, with a valid config.json.
#![no_main]

mod folder;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| folder::attack_model(
    "variants/sharded",
    "model.safetensors.index.json",
    bytes
));
