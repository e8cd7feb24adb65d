//! Interprets the command line of a resumed run. The run has its own settings, so only options that were explicitly
//! given count, not the defaults of the others.

use std::env;
use std::path::Path;

use bert_model::{Error, Result};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::given::Given;

/// The key of `run.json` for the directory to which the relative paths of a run's settings refer.
pub const DIRECTORY: &str = "directory";

/// The current directory, as the value of [`DIRECTORY`]; null if it is unknown or its name is not UTF-8.
pub fn current_directory() -> Value {
    env::current_dir().ok().and_then(|path| Some(path.to_str()?.into())).unwrap_or_default()
}

/// Rejects a relative path of a resumed run that exists in the directory where the run was started, and not in the
/// current one. `run` is the content of `run.json`.
///
/// # Errors
/// [`Error::File`] that names the path and that directory.
pub fn check_directory(run: &Value, paths: impl IntoIterator<Item = impl AsRef<Path>>) -> Result<()> {
    let Some(started) = run[DIRECTORY].as_str() else { return Ok(()) };
    match paths.into_iter().find(|path| !path.as_ref().exists() && Path::new(started).join(path).exists()) {
        Some(path) => {
            let expected = format!("to be resumed in the directory where the run was started, {started}");
            Err(Error::file(path, "no such file here", expected))
        }
        None => Ok(()),
    }
}

/// Rejects a run of another program than `own`. `run` is the content of `run.json`, and `directory` where it is.
///
/// # Errors
/// [`Error::File`] that names the command that resumes it.
pub fn check_program(run: &Value, own: &str, directory: &Path) -> Result<()> {
    match run["program"].as_str() {
        Some(program) if program != own => {
            let expected =
                format!("one of {own}: continue it with `{program} train --resume -o {}`", directory.display());
            Err(Error::file(directory, format!("a run of {program}"), expected))
        }
        _ => Ok(()),
    }
}

/// Reads a part of `run.json`, which is at `path`.
///
/// # Errors
/// [`Error::File`] if another version of the program has written it otherwise.
pub fn parse<T: DeserializeOwned>(path: &Path, value: &Value) -> Result<T> {
    serde_json::from_value(value.clone())
        .map_err(|error| Error::file(path, error.to_string(), "the settings of a run by this version of the program"))
}

/// The settings that correspond to the given options, with their values in `all`. A setting has the name of its option
/// unless `names` says otherwise; dots separate the names of nested settings. Options without a setting are omitted.
pub fn claimed(given: &Given, all: &Value, names: &[(&str, &[&str])]) -> Value {
    let renamed =
        names.iter().filter(|(option, _)| given.has(option)).flat_map(|(_, settings)| settings.iter().copied());
    let same = all.as_object().into_iter().flatten().map(|(setting, _)| setting.as_str());
    let same = same.filter(|setting| {
        let option = setting.replace('_', "-");
        given.has(&option) && !names.iter().any(|(renamed, _)| *renamed == option)
    });
    let mut claimed = Value::Object(Default::default());
    for setting in renamed.chain(same) {
        if let Some(value) = all.pointer(&format!("/{}", setting.replace('.', "/"))) {
            let place = setting.split('.').fold(&mut claimed, |place, name| &mut place[name]);
            *place = value.clone();
        }
    }
    claimed
}

/// The options of a run, `saved`, with the explicitly given ones replaced by their values in `now`.
pub fn overridden(saved: &Value, given: &Given, now: &Value) -> Value {
    let mut options = saved.clone();
    for (option, value) in now.as_object().into_iter().flatten() {
        if given.has(&option.replace('_', "-")) {
            options[option.as_str()] = value.clone();
        }
    }
    options
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use serde_json::json;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        given: Given,
        #[arg(long, default_value_t = 1.0)]
        lr: f64,
        #[arg(long, default_value = "adamw")]
        optimizer: String,
        #[arg(long, default_value_t = 42)]
        seed: u64,
        #[arg(long, default_value_t = 2)]
        keep: usize,
    }

    #[test]
    fn a_run_of_the_other_program_is_named() {
        let check = |own: &str| check_program(&json!({"program": "bert-pretrain"}), own, Path::new("runs/a"));
        check("bert-pretrain").unwrap();
        let message = check("bert-finetune").unwrap_err().to_string();
        assert!(
            message.contains("found a run of bert-pretrain") && message.contains("--resume -o runs/a`"),
            "{message}"
        );
    }

    #[test]
    fn only_what_was_given_is_claimed_even_if_it_is_the_default() {
        let Cli { given, lr, optimizer, seed, keep } = Cli::parse_from("x --lr 1 --optimizer lamb --keep 3".split(' '));
        let all = json!({"learning_rate": lr, "optimizer": {"algorithm": optimizer, "epsilon": 1e-6}, "seed": seed});
        let names: [(&str, &[&str]); 2] = [("lr", &["learning_rate"]), ("optimizer", &["optimizer.algorithm"])];
        let expected = json!({"learning_rate": 1.0, "optimizer": {"algorithm": "lamb"}});
        assert_eq!(claimed(&given, &all, &names), expected);
        let saved = json!({"keep": 1, "device": "auto"});
        assert_eq!(
            overridden(&saved, &given, &json!({"keep": keep, "device": "flex"})),
            json!({"keep": 3, "device": "auto"})
        );
    }
}
