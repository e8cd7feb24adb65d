//! Runs that resume, and runs that must not.

use std::fs;

use bert_pretrain::sample;

use crate::pretraining::{corpus, short};
use crate::program::{fail, run, succeed, text};
use crate::{assert_same_run, losses};

#[test]
fn a_resumed_run_is_bit_for_bit_the_uninterrupted_one() {
    let directory = corpus();
    let at = directory.path();
    let save = "--save-every 2 --keep 9 --accumulate 2";
    succeed(&short("whole", 6, save), at);
    succeed(&short("cut", 6, save), at);
    // As if the run had been killed after step 4, in the middle of writing its metrics.
    fs::remove_dir_all(at.join("cut/checkpoints/step-00000006")).unwrap();
    fs::remove_file(at.join("cut/model.safetensors")).unwrap();
    succeed(&short("cut", 6, &format!("{save} --resume")), at);
    assert_same_run(&at.join("whole"), &at.join("cut"));
}

#[test]
fn a_damaged_checkpoint_is_named_and_passed_over() {
    let directory = corpus();
    let at = directory.path();
    let save = "--save-every 2 --keep 3";
    let newest = at.join("run/checkpoints/step-00000006");
    let flip = |bytes: &mut Vec<u8>| {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
    };
    let truncate = |bytes: &mut Vec<u8>| bytes.truncate(bytes.len() - 1);
    succeed(&short("run", 6, save), at);
    let before = fs::read(at.join("run/model.safetensors")).unwrap();
    type Damage = fn(&mut Vec<u8>);
    let damages: [(&str, Damage); 4] = [
        ("model.safetensors", flip),
        ("optimizer.safetensors", truncate),
        ("state.json", truncate),
        ("state.json", Vec::clear),
    ];
    for (name, damage) in damages {
        let mut bytes = fs::read(newest.join(name)).unwrap();
        damage(&mut bytes);
        fs::write(newest.join(name), bytes).unwrap();
        let output = run(&short("run", 6, &format!("{save} --resume")), at);
        let message = text(&output.stderr);
        assert!(output.status.success(), "{message}");
        assert!(message.contains("skipped a damaged checkpoint") && message.contains(name), "{message}");
        assert!(fs::read(at.join("run/model.safetensors")).unwrap() == before, "{name}");
    }
}

#[test]
fn a_run_is_not_resumed_with_other_settings_or_another_corpus() {
    let directory = corpus();
    let at = directory.path();
    succeed(&short("run", 4, "--save-every 2"), at);
    let message = fail(&short("run", 4, "--resume --lr 0.5"), at, 1);
    assert!(
        message.contains("learning_rate = 0.5 does not fit the run to be resumed, learning_rate = 0.0001"),
        "{message}"
    );
    fs::write(at.join("corpus.txt"), sample::corpus(120, 8)).unwrap();
    let message = fail(&short("run", 4, "--resume"), at, 1);
    assert!(message.contains("data_sha256") && message.contains("does not fit the run to be resumed"), "{message}");
}

#[test]
fn numbers_that_go_bad_stop_the_run_and_name_the_step() {
    let directory = corpus();
    let at = directory.path();
    let message = fail(&short("bad", 6, "--lr 1e38 --clip 0 --save-every 1"), at, 1);
    assert!(message.contains("step ") && (message.contains("NaN") || message.contains("inf")), "{message}");
    assert!(!at.join("bad/model.safetensors").exists(), "a model of bad numbers was written");
}

#[test]
fn a_second_phase_has_longer_sequences_and_survives_an_interruption_between() {
    let directory = corpus();
    let at = directory.path();
    let phases = "--phase2-steps 3 --phase2-seq-len 64 --save-every 3";
    succeed(&short("whole", 6, phases), at);
    // As if it had been killed at the change of phases: the checkpoint of step 3 is the newest.
    succeed(&short("halves", 6, phases), at);
    let checkpoints = at.join("halves/checkpoints");
    if checkpoints.join("step-00000006").exists() {
        fs::remove_dir_all(checkpoints.join("step-00000006")).unwrap();
    }
    assert!(checkpoints.join("step-00000003").exists());
    succeed(&short("halves", 6, &format!("{phases} --resume")), at);
    assert_same_run(&at.join("whole"), &at.join("halves"));
    // With sequences as short as before, the first phase is the same and the second is not.
    succeed(&short("even", 6, "--phase2-steps 3 --phase2-seq-len 32"), at);
    let (long, even) = (losses(&at.join("whole")), losses(&at.join("even")));
    assert!(long[..3] == even[..3] && long[3..6].iter().zip(&even[3..6]).all(|(long, even)| long != even));
}
