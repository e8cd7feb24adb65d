//! Any bytes as model.safetensors.index.json beside a config.json that is right.
#![no_main]

mod place;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| place::attack_model(
    "variants/sharded",
    "model.safetensors.index.json",
    bytes
));
