//! Any bytes as config.json, and if they describe a small model, that model with the weights of another.
#![no_main]

mod place;

use bert_model::{BertForPreTraining, device, load_partial, pretrained::load_config};
use libfuzzer_sys::fuzz_target;
use place::{check, copy_golden, folder};

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
