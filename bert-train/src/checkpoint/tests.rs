//! Tests that checkpoints are restored completely, starting with the newest.

use bert_model::{BertModel, Pretrained};
use serde_json::json;
use tempfile::TempDir;

use super::*;
use crate::optimizer::OptimizerConfig;

fn config() -> BertConfig {
    let config = BertConfig {
        hidden_size: 8,
        num_hidden_layers: 1,
        num_attention_heads: 2,
        intermediate_size: 16,
        max_position_embeddings: 8,
        ..BertConfig::default()
    };
    config.with_vocab_size(10)
}

/// A state after `step` steps, with weights initialized from `seed`.
fn state(seed: u64, step: u64) -> TrainingState<BertModel> {
    let model = BertModel::init_seeded(&config(), seed, &Device::flex());
    let state = TrainingState::new(model, Optimizer::new(OptimizerConfig::default()));
    TrainingState { step, cursor: json!({"taken": step}), ..state }
}

/// Writes a checkpoint of the only rank.
fn save(checkpoints: &Checkpoints, state: &TrainingState<BertModel>, settings: &Value) {
    checkpoints.save(state, &state.optimizer.state(), settings).unwrap();
}

fn names(run: &TempDir) -> Vec<String> {
    let entries = fs::read_dir(run.path().join("checkpoints")).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[test]
fn what_was_saved_is_restored() {
    let run = TempDir::new().unwrap();
    let checkpoints = Checkpoints::open(run.path(), 2).unwrap();
    assert!(checkpoints.newest().unwrap().is_none());
    let saved = state(1, 5);
    let settings = json!({"lr": 0.1});
    save(&checkpoints, &saved, &settings);
    let found = checkpoints.newest().unwrap().unwrap();
    assert_eq!((found.step, &found.settings, found.warnings.len()), (5, &settings, 0));
    let device = Device::flex();
    let fresh = state(2, 0);
    let restored = found.restore(fresh.model, &config(), fresh.optimizer, &device).unwrap();
    assert_eq!((restored.step, &restored.cursor), (5, &saved.cursor));
    assert_eq!(state_dict(&restored.model), state_dict(&saved.model));
}

#[test]
fn the_newest_are_kept_and_later_ones_go() {
    let run = TempDir::new().unwrap();
    let checkpoints = Checkpoints::open(run.path(), 2).unwrap();
    for step in [1, 2, 3] {
        save(&checkpoints, &state(1, step), &Value::Null);
    }
    assert_eq!(names(&run), ["step-00000002", "step-00000003"]);
    // A run that resumed from an earlier step writes step 2 again; all later checkpoints belong to its abandoned past.
    save(&checkpoints, &state(1, 2), &Value::Null);
    assert_eq!(names(&run), ["step-00000002"]);
}

#[test]
fn a_damaged_checkpoint_is_passed_over_with_a_warning() {
    let run = TempDir::new().unwrap();
    let checkpoints = Checkpoints::open(run.path(), 3).unwrap();
    for step in [1, 2] {
        save(&checkpoints, &state(1, step), &Value::Null);
    }
    let damage = |step: u64, file: &str| {
        let path = run.path().join(format!("checkpoints/step-{step:08}")).join(file);
        let mut bytes = fs::read(&path).unwrap();
        bytes.truncate(bytes.len() - 2);
        fs::write(&path, bytes).unwrap();
    };
    damage(2, OPTIMIZER);
    let found = checkpoints.newest().unwrap().unwrap();
    assert_eq!((found.step, found.warnings.len()), (1, 1));
    assert!(found.warnings[0].contains(OPTIMIZER), "{:?}", found.warnings);
    damage(1, STATE);
    let message = checkpoints.newest().unwrap_err().to_string();
    assert!(message.contains("at least one intact checkpoint"), "{message}");
}

#[test]
fn leftovers_are_swept_and_what_was_being_replaced_is_put_back() {
    let run = TempDir::new().unwrap();
    let checkpoints = Checkpoints::open(run.path(), 2).unwrap();
    save(&checkpoints, &state(1, 1), &Value::Null);
    let at = run.path().join("checkpoints");
    fs::rename(at.join("step-00000001"), at.join(".step-00000001.replaced")).unwrap();
    fs::create_dir(at.join(".step-00000002")).unwrap();
    let checkpoints = Checkpoints::open(run.path(), 2).unwrap();
    assert_eq!(names(&run), ["step-00000001"]);
    assert_eq!(checkpoints.newest().unwrap().unwrap().step, 1);
}

#[test]
fn all_settings_that_differ_are_named_at_once() {
    let saved = json!({"lr": 0.1, "steps": 5, "optimizer": {"beta1": 0.9, "weight_decay": 0.01}});
    check_settings(&saved, &saved).unwrap();
    check_settings(&saved, &json!({"optimizer": {"beta1": 0.9}})).unwrap();
    check_settings(&saved, &json!({"lr": 0.1, "unknown_to_an_older_version": false})).unwrap();
    let now = json!({"lr": 0.1, "steps": 6, "optimizer": {"weight_decay": 0}, "new": 1});
    let message = check_settings(&saved, &now).unwrap_err().to_string();
    let expected = "steps = 6, optimizer.weight_decay = 0, new = 1 does not fit the run to resume, \
                    steps = 5, optimizer.weight_decay = 0.01, new = null";
    assert!(message.contains(expected), "{message}");
}

#[test]
fn the_time_that_a_run_took_before_it_was_resumed_counts() {
    let run = TempDir::new().unwrap();
    let checkpoints = Checkpoints::open(run.path(), 2).unwrap();
    save(&checkpoints, &TrainingState { seconds: 122.5, ..state(1, 5) }, &Value::Null);
    assert_eq!(checkpoints.newest().unwrap().unwrap().seconds, 122.5);
}

#[test]
fn discarding_leaves_no_checkpoint() {
    let run = TempDir::new().unwrap();
    let checkpoints = Checkpoints::open(run.path(), 2).unwrap();
    save(&checkpoints, &state(1, 5), &Value::Null);
    checkpoints.discard().unwrap();
    assert_eq!(names(&run), [""; 0]);
    assert!(checkpoints.newest().unwrap().is_none());
}
