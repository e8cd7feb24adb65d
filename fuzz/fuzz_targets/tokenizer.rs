//! Fuzzes one of a tokenizer's three files, which the first byte selects. A tokenizer that loads must also encode.
#![no_main]

mod folder;

use bert_model::Tokenizer;
use bert_model::text::tokenizer::Normalization;
use folder::{check, folder};
use libfuzzer_sys::fuzz_target;

const FILES: [&str; 3] = ["tokenizer.json", "vocab.txt", "tokenizer_config.json"];

fuzz_target!(|bytes: &[u8]| {
    let Some((which, bytes)) = bytes.split_first() else { return };
    let file = FILES[usize::from(*which) % FILES.len()];
    let special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"];
    let pieces: Vec<String> = special.into_iter().chain(["a", "b", "##b", "ab", "c"]).map(str::to_string).collect();
    let folder = folder(|_| ());
    let tokenizer = Tokenizer::from_vocabulary(&pieces, Normalization::new(true)).expect("a tokenizer");
    tokenizer.save(folder, 16).expect("saved");
    if file != FILES[0] {
        std::fs::remove_file(folder.join(FILES[0])).expect("removed");
    }
    std::fs::write(folder.join(file), bytes).expect("written");
    let loaded = Tokenizer::load(folder);
    if let Ok(tokenizer) = &loaded {
        let _ = tokenizer.encode("ab c [MASK] Ä 漢字", Some("b"));
    }
    check(folder, loaded);
});
