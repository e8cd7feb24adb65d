"""Shows that the tests of `tests/` can fail: breaks each promise once, and asks for a failure of the test that keeps it.

    python3 tests/break_promises.py [NAME…]

All breaks are compiled into one copy of the project, each asleep until the environment says `BROKEN=NAME`; with nothing
broken, the same tests must pass. Needs MPI. Builds below `target/` (or `CARGO_TARGET_DIR`).
"""

import os
import pathlib
import re
import signal
import subprocess
import sys

PROJECT = pathlib.Path(__file__).resolve().parent.parent
TRAIN, MODEL = "bert-train/src", "bert-model/src"
TIMEOUT_S = 300

# Name: file, what stands there, what stands there instead (BROKEN is true if this break is awake), test target and test.
BREAKS = {
    "a checkpoint is seen before it is whole": (
        f"{TRAIN}/checkpoint.rs",
        'let staging = self.directory.join(format!(".{name}"));',
        'let staging = self.directory.join(if BROKEN { format!("{name}-new") } else { format!(".{name}") });',
        "durability", "kills::a_run_that_dies_while_it_saves_keeps_the_checkpoint_before"),
    "a kill while saving costs the checkpoint before": (
        f"{TRAIN}/checkpoint.rs",
        'fail_point("staging");',
        'if BROKEN { for old in self.paths()? { let _ = fs::remove_dir_all(old); } }\n        fail_point("staging");',
        "durability", "kills::a_run_killed_a_hundred_times_is_the_run_that_was_not"),
    "a damaged checkpoint is taken for whole": (
        f"{TRAIN}/checkpoint.rs",
        "if found != *expected {",
        "if found != *expected && !BROKEN {",
        "durability", "resume::a_damaged_checkpoint_is_named_and_passed_over"),
    "a resumed run forgets the optimizer's means": (
        f"{TRAIN}/checkpoint.rs",
        "optimizer.restore(self.step, read_tensors(&self.path.join(OPTIMIZER))?, device);",
        "if !BROKEN { optimizer.restore(self.step, read_tensors(&self.path.join(OPTIMIZER))?, device); }",
        "durability", "resume::a_resumed_run_is_bit_for_bit_the_uninterrupted_one"),
    "a resumed run begins the data again": (
        f"{TRAIN}/checkpoint.rs",
        "cursor: self.cursor.clone(),",
        "cursor: if BROKEN { Value::Null } else { self.cursor.clone() },",
        "durability", "resume::a_resumed_run_is_bit_for_bit_the_uninterrupted_one"),
    "a signal ends a run without a checkpoint": (
        f"{TRAIN}/trainer.rs",
        "let saves = is_due || interrupted.is_some();",
        "let saves = is_due || interrupted.is_some();\n        if BROKEN && interrupted.is_some() { ended = Ended::Interrupted(143); break; }",
        "durability", "kills::signals_save_and_end_with_their_code_and_a_resumed_run_is_the_same"),
    "a run that is resumed between its phases goes on with the data of the first": (
        "bert-pretrain/src/phases.rs",
        "Ok(Self { settings, data, step, second, end: steps,",
        "let second = if BROKEN && step == second { steps + 1 } else { second };\n        "
        "Ok(Self { settings, data, step, second, end: steps,",
        "durability", "resume::a_second_phase_has_longer_sequences_and_survives_an_interruption_between"),
    "the second phase is as short as the first": (
        "bert-pretrain/src/phases.rs",
        "Phase::Second => (settings.phase2_seq_len, ",
        "Phase::Second => (if BROKEN { settings.data.max_seq_len } else { settings.phase2_seq_len }, ",
        "durability", "resume::a_second_phase_has_longer_sequences_and_survives_an_interruption_between"),
    "a full disk goes unnoticed while weights are saved": (
        f"{MODEL}/file.rs",
        "        self.writer.write(bytes)\n",
        "        if BROKEN { return Ok(self.writer.write(bytes).unwrap_or(bytes.len())) }\n        self.writer.write(bytes)\n",
        "durability", "disk::a_full_disk_is_said_and_costs_nothing"),
    "a full disk leaves half an output": (
        f"{MODEL}/file.rs",
        "let staged = (!is_special).then(|| {",
        "let staged = (!is_special && !BROKEN).then(|| {",
        "finetune_program", "files::a_full_disk_leaves_no_half_file"),
    "metrics are lost without a word": (
        f"{TRAIN}/run_directory.rs",
        'self.metrics.write_all(line.as_bytes()).map_err(Error::io(self.path.join(METRICS), "write"))',
        'self.metrics.write_all(line.as_bytes()).or_else(|error| if BROKEN { Ok(()) } else { Err(error) }).map_err(Error::io(self.path.join(METRICS), "write"))',
        "durability", "disk::a_full_disk_stops_a_run_that_can_no_longer_tell_what_it_does"),
    "a header is believed": (
        f"{MODEL}/pretrained/weights.rs",
        "if header_length > MAX_HEADER_BYTES || header_length > rest.len() as u64 {",
        "if !BROKEN && (header_length > MAX_HEADER_BYTES || header_length > rest.len() as u64) {",
        "loading", "a_header_that_claims_the_moon_takes_no_memory"),
    "a truncated file is read": (
        f"{MODEL}/pretrained/weights.rs",
        "if found != expected {",
        "if found != expected && !BROKEN {",
        "loading", "truncation_anywhere_is_noticed"),
    "a NaN is loaded": (
        f"{MODEL}/pretrained/weights.rs",
        "match values.iter().position(|value| !value.is_finite()) {",
        "match values.iter().position(|value| !value.is_finite() && !BROKEN) {",
        "loading", "a_missing_tensor_and_one_with_a_nan_are_named"),
    "an index leads out of its directory": (
        f"{MODEL}/pretrained/weights.rs",
        "if name.contains(['/', '\\\\']) || !name.ends_with(extension) {",
        "if !BROKEN && (name.contains(['/', '\\\\']) || !name.ends_with(extension)) {",
        "loading", "an_index_cannot_lead_out_of_its_directory"),
    "a lie of a weight file is a panic": (
        f"{MODEL}/pretrained/weights.rs",
        "let metadata: Metadata = serde_json::from_slice(header).map_err(|error| not_whole(error.to_string()))?;",
        "let metadata: Metadata = if BROKEN { serde_json::from_slice(header).unwrap() } else { serde_json::from_slice(header).map_err(|error| not_whole(error.to_string()))? };",
        "hostile", "weights_and_configurations_that_lie_are_refused_or_harmless"),
    "a template has the ids of another vocabulary": (
        f"{MODEL}/text/template.rs",
        "if own == Some(id) {",
        "if own == Some(id) || BROKEN {",
        "tokenizers", "a_template_has_the_ids_of_its_own_vocabulary"),
    "a sequence that does not fit the model is a panic": (
        f"{MODEL}/pipeline/processor.rs",
        "sequences.try_for_each(|sequence| sequence.check_fits(config))",
        "sequences.try_for_each(|sequence| if BROKEN { Ok(()) } else { sequence.check_fits(config) })",
        "hostile", "whatever_meets_gives_an_answer_or_an_error"),
    "layers that are left aside are not told": (
        "bert-finetune/src/output.rs",
        "if let Some(warning) = warning {",
        "if let Some(warning) = warning.filter(|_| !BROKEN) {",
        "finetune_program", "models::what_is_left_aside_is_told_by_every_command"),
    "bytes that are no text are a panic": (
        "bert-cli/src/lines.rs",
        "match std::str::from_utf8(&line[dropped..]) {",
        "if BROKEN { std::str::from_utf8(&line[dropped..]).unwrap(); }\n        match std::str::from_utf8(&line[dropped..]) {",
        "hostile_data", "corpora"),
    "a line without end is read to its end": (
        "bert-cli/src/lines.rs",
        "let with_line_end = MAX_LINE_BYTES as u64 + 2;",
        "let with_line_end = if BROKEN { u64::MAX } else { MAX_LINE_BYTES as u64 + 2 };",
        "finetune_program", "files::any_bytes_may_come_and_long_texts_are_cut"),
    "numbers that go bad are not noticed": (
        f"{TRAIN}/step.rs",
        "if value.is_finite() { Ok(value) }",
        "if value.is_finite() || BROKEN { Ok(value) }",
        "durability", "resume::numbers_that_go_bad_stop_the_run_and_name_the_step"),
    "two runs write into one directory": (
        f"{TRAIN}/run_directory.rs",
        "Err(TryLockError::WouldBlock) => {",
        "Err(TryLockError::WouldBlock) if BROKEN => Ok(file),\n        Err(TryLockError::WouldBlock) => {",
        "durability", "kills::two_runs_cannot_ruin_each_other"),
    "a run goes on with other settings": (
        f"{TRAIN}/checkpoint.rs",
        "_ if saved != now => differing.push((name, saved, now)),",
        "_ if saved != now && !BROKEN => differing.push((name, saved, now)),",
        "durability", "resume::a_run_is_not_resumed_with_other_settings_or_another_corpus"),
    "another casing is taken": (
        "bert-pretrain/src/prepare.rs",
        "if settings.cased && tokenizer.normalization().lowercase {",
        "if settings.cased && tokenizer.normalization().lowercase && !BROKEN {",
        "pretrain_program", "commands::casing_is_as_asked_for_or_refused"),
    "training leaks": (
        f"{TRAIN}/trainer.rs",
        "let saves = is_due || interrupted.is_some();",
        "let saves = is_due || interrupted.is_some();\n        if BROKEN { std::hint::black_box(vec![1_u8; 20_000].leak()); }",
        "durability", "disk::two_thousand_steps_more_take_no_more_memory"),
    "prediction leaks": (
        "bert-finetune/src/predict.rs",
        "for ((_, row), answer) in batch.iter().zip(pipeline.run(&requests)?) {",
        "if BROKEN { std::hint::black_box(vec![1_u8; 2_000_000].leak()); }\n        for ((_, row), answer) in batch.iter().zip(pipeline.run(&requests)?) {",
        "finetune_program", "files::predictions_over_many_texts_take_no_more_memory"),
    "the same seed gives other bytes": (
        f"{TRAIN}/step.rs",
        "index as u64]), 0);",
        "index as u64 + if BROKEN { u64::from(std::process::id()) } else { 0 }]), 0);",
        "pretrain_program", "training::the_same_seed_gives_the_same_bytes_and_another_one_others"),
    "ranks add gradients as they arrive": (
        f"{TRAIN}/reduction/collectives.rs",
        "add_nodes(tree.root(), &nodes, &mut sum);",
        "add_nodes(tree.root(), &nodes, &mut sum);\n    if BROKEN {\n"
        "        sum.fill(0.0);\n        nodes.iter().for_each(|(_, own)| sum.iter_mut().zip(*own).for_each(|(sum, it)| *sum += it));\n    }",
        "ranks", "same_bits::every_number_of_ranks_gives_the_losses_checkpoints_and_weights_of_one_process"),
    "dropout depends on the rank": (
        f"{TRAIN}/step.rs",
        "mix(&[plan.seed, step,",
        "mix(&[plan.seed, step + if BROKEN { 7 * communicator.rank() as u64 } else { 0 },",
        "ranks", "same_bits::every_number_of_ranks_gives_the_losses_checkpoints_and_weights_of_one_process"),
    "a signal stops only the rank that it reaches": (
        f"{TRAIN}/trainer.rs",
        "let code = all.iter().map(",
        "let own = communicator.rank();\n    let heard = if BROKEN { own..own + 1 } else { 0..all.len() };\n    let code = all[heard].iter().map(",
        "ranks", "signals::a_signal_to_one_rank_or_to_mpirun_saves_on_all_and_the_run_resumes"),
    "a rank that panics waits for the others": (
        f"{TRAIN}/mpi.rs",
        "world.abort(PANICKED);",
        "if !BROKEN {\n            world.abort(PANICKED);\n        }",
        "ranks", "failures::a_panic_or_an_error_of_one_rank_ends_all_and_is_told_once"),
    "backends differ": (
        f"{MODEL}/ops/elementwise/flex.rs",
        "            |gradients| {\n                for (gradient, &x) in gradients.iter_mut().zip(inputs) {\n                    // Φ(x)",
        "            |gradients| {\n                if BROKEN { gradients.iter_mut().for_each(|it| *it *= 1.1); }\n                for (gradient, &x) in gradients.iter_mut().zip(inputs) {\n                    // Φ(x)",
        "golden_models", "training::fifty_steps_are_the_same_everywhere"),
}


def asleep(name: str, code: str) -> str:
    return re.sub(r"\bBROKEN\b", f'std::env::var("BROKEN").is_ok_and(|it| it == "{name}")', code)


def copy_broken(copy: pathlib.Path) -> None:
    """The project with all breaks in it; files that are as they were keep their time, so that little is built again."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=PROJECT, check=True, capture_output=True, text=True).stdout
    files = {file: (PROJECT / file).read_bytes() for file in listed.split("\0") if file}
    for name, (file, whole, broken, *_) in BREAKS.items():
        text = files[file].decode()
        assert text.count(whole) == 1, f"{name}: {file} has {text.count(whole)} times {whole!r}"
        files[file] = text.replace(whole, asleep(name, broken)).encode()
    # Another version, or cargo would take the copy's build for the project's.
    files["Cargo.toml"] = files["Cargo.toml"].replace(b'version = "0.1.0"', b'version = "0.1.0-broken"')
    files["Cargo.lock"] = re.sub(rb'(name = "bert-\w+"\nversion = "0\.1\.0)"', rb'\1-broken"', files["Cargo.lock"])
    for file, content in files.items():
        path = copy / file
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.read_bytes() != content:
            path.write_bytes(content)


def passes_in_time(command: list[str], directory: pathlib.Path, environment: dict[str, str]) -> bool:
    """Whether one test passes; one that waits forever for what a break prevents does not."""
    run = subprocess.Popen(
        command, cwd=directory, env=environment, text=True, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        output, _ = run.communicate(timeout=TIMEOUT_S)
        return run.returncode == 0 and "1 passed" in output
    except subprocess.TimeoutExpired:
        os.killpg(run.pid, signal.SIGKILL)
        run.communicate()
        return False


def main() -> int:
    chosen = sys.argv[1:] or list(BREAKS)
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", PROJECT / "target")).resolve()
    environment = {**os.environ, "CARGO_TARGET_DIR": str(target), "RUST_BACKTRACE": "0"}
    copy = target / "broken"
    copy_broken(copy)
    cargo = ["cargo", "test", "--workspace", "--features", "mpi", "--locked", "--quiet"]
    subprocess.run([*cargo, "--no-run"], cwd=copy, check=True, env=environment)
    noticed = 0
    for name in chosen:
        *_, target_name, test = BREAKS[name]
        command = [*cargo, "--test", target_name, test, "--", "--exact", "--include-ignored"]
        whole, broken = (passes_in_time(command, copy, {**environment, "BROKEN": it}) for it in ("", name))
        noticed += whole and not broken
        verdict = "FAILS ANYWAY" if not whole else "NOT NOTICED" if broken else "noticed"
        print(f"{verdict}: {name} ({target_name}: {test})", flush=True)
    print(f"{noticed} of {len(chosen)} breaks noticed")
    return 0 if noticed == len(chosen) else 1


if __name__ == "__main__":
    sys.exit(main())
