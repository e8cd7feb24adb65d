//! The settings of a resumed run: those in its `run.json`, which the command line must not contradict.

use bert_cli::resume::{check_directory, check_program, claimed, overridden, parse};
use bert_model::{Error, Result};
use bert_train::IfExists;
use bert_train::checkpoint::check_settings;
use bert_train::run_directory::{read_run, recover, result_of};
use serde_json::{Value, json};

use crate::args::TrainArgs;
use crate::settings::{DEFAULT_OUTPUT, FinetuneRunOptions, FinetuneSettings};

/// Options whose settings have a different name. [`claimed`] matches all others by name.
const SETTINGS: [(&str, &[&str]); 11] = [
    ("lr", &["learning_rate"]),
    ("schedule", &["decay"]),
    ("freeze", &["adaptation"]),
    ("lora", &["adaptation"]),
    ("no-header", &["header"]),
    ("negative", &["embedding"]),
    ("scale", &["embedding"]),
    ("pooling", &["embedding"]),
    ("normalize", &["embedding"]),
    ("seed", &["seed", "split_seed"]),
    ("preset", &["task", "text", "text_pair", "label", "header", "skip_short_rows", "numbered_classes"]),
];

impl FinetuneSettings {
    /// The settings and options of the run that `--resume` continues. If there is no such run yet, a new one starts,
    /// which needs a training file.
    ///
    /// # Errors
    /// If there is neither a run nor a training file, if `run.json` cannot be read, or if the command line contradicts
    /// it.
    pub fn resume(args: &TrainArgs) -> Result<(Self, FinetuneRunOptions)> {
        let output = args.output.clone().unwrap_or_else(|| DEFAULT_OUTPUT.into());
        let path = output.join("run.json");
        recover(&output)?;
        if !path.exists() {
            return match args.train {
                None => Err(Error::file(&output, "no run to resume", "a directory with the run.json of a run")),
                Some(_) => Self::resolve(args),
            };
        }
        let run = read_run(&output)?;
        check_program(&run, "bert-finetune", &output)?;
        let settings: Self = parse(&path, &run["settings"])?;
        if result_of(&output)?.is_none() {
            check_directory(&run, settings.inputs())?;
        }
        let task = args.task.or(args.preset.is_none().then_some(settings.description.task));
        let (train, model) = (args.train.clone().or(settings.train.clone()), args.model.clone());
        let model = model.or_else(|| Some(settings.model.clone()));
        let embedding = &settings.description.embedding;
        let filled = TrainArgs {
            task,
            train,
            model,
            output: Some(output.clone()),
            negative: if args.negative.is_empty() { embedding.negatives.clone() } else { args.negative.clone() },
            scale: args.scale.or(Some(embedding.scale)),
            pooling: args.pooling.or(embedding.pooling),
            normalize: args.normalize || embedding.normalize,
            ..args.clone()
        };
        let (asked, options) = Self::resolve(&filled)?;
        // With different seeds, a different model may be the best.
        let with_seeds = |settings: Value, seeds: &Value| {
            let mut settings = settings;
            settings["seeds"] = seeds.clone();
            settings
        };
        let saved = with_seeds(run["settings"].clone(), &run["run"]["seeds"]);
        let asked = with_seeds(json!(asked), &options.seeds.into());
        check_settings(&saved, &claimed(&args.given, &asked, &SETTINGS))?;
        let merged: FinetuneRunOptions = parse(&path, &overridden(&run["run"], &args.given, &json!(options)))?;
        let (json, quiet) = (options.json, options.quiet);
        Ok((settings, FinetuneRunOptions { output, if_exists: IfExists::Resume, json, quiet, ..merged }))
    }
}

#[cfg(test)]
mod tests {
    use clap::{Args, Command, Parser};

    use super::*;
    use crate::args::Cli;

    fn args(line: &str) -> TrainArgs {
        Cli::parse_from(["bert-finetune"].into_iter().chain(line.split_whitespace())).train
    }

    /// Any other option would be ignored when a run is resumed.
    #[test]
    fn every_option_of_train_is_a_setting_or_an_option_of_the_run() {
        let (settings, run) = FinetuneSettings::resolve(&args("--train a.csv --model m -o run")).unwrap();
        let (settings, run) = (json!(settings), json!(run));
        let others = ["resume", "overwrite", "json", "quiet"];
        for argument in TrainArgs::augment_args(Command::new("x")).get_arguments() {
            let option = argument.get_long().unwrap();
            let key = option.replace('-', "_");
            let is_known = SETTINGS.iter().any(|(name, _)| *name == option) || others.contains(&option);
            assert!(is_known || settings.get(&key).is_some() || run.get(&key).is_some(), "--{option}");
        }
        for setting in SETTINGS.iter().flat_map(|(_, settings)| settings.iter()) {
            assert!(settings.get(setting).is_some(), "{setting}");
        }
    }

    #[test]
    fn a_resumed_run_has_its_own_settings_and_names_all_that_differ() {
        let directory = tempfile::tempdir().unwrap();
        let run = directory.path().display().to_string();
        let (settings, options) = FinetuneSettings::resolve(&args(&format!(
            "--train a.csv --model m --lora 4 --lr 0.001 --epochs 7 --text body --keep 3 --device flex -o {run}"
        )))
        .unwrap();
        let described = json!({"settings": settings, "run": options});
        std::fs::write(directory.path().join("run.json"), described.to_string()).unwrap();
        let resume = |more: &str| FinetuneSettings::resume(&args(&format!("--resume -o {run} {more}")));
        for more in ["", "--lr 1e-3 --lora 4", "--train a.csv --model m --text body", "--epochs 7 --seed 42 --seeds 1"]
        {
            let (resumed, options) = resume(more).unwrap();
            assert_eq!(json!(resumed), described["settings"], "{more}");
            assert_eq!((options.keep, &*options.device, options.if_exists), (Some(3), "flex", IfExists::Resume));
        }
        assert_eq!(resume("--save-every 5 --device ndarray").unwrap().1.save_every, 5);
        let message = resume("--lr 5e-4 --epochs 3 --text text --seeds 2 --model other").unwrap_err().to_string();
        for difference in [
            "learning_rate = 0.0005",
            "learning_rate = 0.001",
            "epochs = 3",
            "text = \"body\"",
            "seeds = 2",
            "model = \"other\"",
        ] {
            assert!(message.contains(difference), "{difference}: {message}");
        }
    }

    #[test]
    fn without_a_run_there_is_nothing_to_resume_unless_a_file_is_given() {
        let message = FinetuneSettings::resume(&args("--resume -o nowhere")).unwrap_err().to_string();
        assert!(message.contains("nowhere: found no run to resume"), "{message}");
        assert_eq!(FinetuneSettings::resume(&args("--resume --train a.csv --model m -o nowhere")).unwrap().0.epochs, 3);
    }
}
