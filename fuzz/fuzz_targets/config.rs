//! Fuzzes config.json. If it describes a small model, also loads weights of another configuration into it.
#![no_main]

mod folder;

use bert_model::{BertForPreTraining, device, load_partial, pretrained::load_config};
use folder::{check, copy_golden, folder};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let folder = folder(|folder| copy_golden("models/gelu-odd", folder));
    std::fs::write(folder.join("config.json"), bytes).expect("written");
    let config = load_config(folder);
    let is_small = config.as_ref().is_ok_and(|config| config.num_hidden_layers < 100);
    check(folder, config);
    if is_small {
        let device = device::select("flex").expect("flex").device;
        check(folder, load_partial::<BertForPreTraining>(folder, 0, &device));
    }
});
