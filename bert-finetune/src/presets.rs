//! File formats and metrics of known data sets (GLUE: Wang et al. 2018, and others).

use std::str::FromStr;

use crate::description::Description;
use crate::tasks::kind::TaskKind;
use crate::tasks::multiple_choice::MULTIPLE_CHOICE;
use crate::tasks::question_answering::QUESTION_ANSWERING;
use crate::tasks::sequence::{CLASSIFICATION, REGRESSION};
use crate::tasks::tagging::TAGGING;

/// Task, columns and metric of a known data set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Preset {
    /// The name in `--preset`.
    pub name: &'static str,
    /// The task of the data set.
    pub task: TaskKind,
    /// Columns of text, second text and label: names, or numbers from 1 if there is no header.
    columns: (&'static str, Option<&'static str>, &'static str),
    choices: &'static [&'static str],
    header: bool,
    metric: &'static str,
}

const CLASSES: Preset = Preset {
    name: "",
    task: TaskKind(&CLASSIFICATION),
    columns: ("sentence1", Some("sentence2"), "label"),
    choices: &[],
    header: true,
    metric: "accuracy",
};
const TAGS: Preset = Preset { task: TaskKind(&TAGGING), columns: ("text", None, "label"), metric: "f1", ..CLASSES };
const ANSWERS: Preset =
    Preset { task: TaskKind(&QUESTION_ANSWERING), columns: ("question", Some("context"), "label"), ..TAGS };
const CHOICES: Preset = Preset { task: TaskKind(&MULTIPLE_CHOICE), ..CLASSES };

const PRESETS: [Preset; 16] = [
    // CoLA's files have no header: source, label, author's mark, sentence.
    Preset { name: "cola", columns: ("4", None, "2"), header: false, metric: "mcc", ..CLASSES },
    Preset { name: "sst2", columns: ("sentence", None, "label"), ..CLASSES },
    Preset { name: "mrpc", columns: ("#1 String", Some("#2 String"), "Quality"), metric: "f1", ..CLASSES },
    Preset {
        name: "stsb",
        task: TaskKind(&REGRESSION),
        columns: ("sentence1", Some("sentence2"), "score"),
        metric: "pearson",
        ..CLASSES
    },
    Preset { name: "qqp", columns: ("question1", Some("question2"), "is_duplicate"), metric: "f1", ..CLASSES },
    Preset { name: "mnli", columns: ("sentence1", Some("sentence2"), "gold_label"), ..CLASSES },
    Preset { name: "qnli", columns: ("question", Some("sentence"), "label"), ..CLASSES },
    Preset { name: "rte", ..CLASSES },
    Preset { name: "wnli", ..CLASSES },
    Preset { name: "conll2003", ..TAGS },
    Preset { name: "ud-pos", ..TAGS },
    Preset { name: "squad", ..ANSWERS },
    Preset { name: "squad2", ..ANSWERS },
    Preset { name: "sick", columns: ("sentence_A", Some("sentence_B"), "entailment_judgment"), ..CLASSES },
    Preset {
        name: "copa",
        columns: ("premise", Some("question"), "label"),
        choices: &["choice1", "choice2"],
        ..CHOICES
    },
    Preset {
        name: "cosmosqa",
        columns: ("context", Some("question"), "label"),
        choices: &["answer0", "answer1", "answer2", "answer3"],
        ..CHOICES
    },
];

impl Preset {
    /// Converts the preset to a description of the task and its files.
    pub fn description(self, max_seq_len: usize) -> Description {
        let (text, text_pair, label) = self.columns;
        Description {
            text: text.into(),
            text_pair: text_pair.map(Into::into),
            label: Some(label.into()),
            choices: self.choices.iter().map(|name| name.to_string()).collect(),
            header: self.header,
            skip_short_rows: self.name == "qqp",
            numbered_classes: self.task == TaskKind(&CLASSIFICATION),
            metric: self.metric.into(),
            ..Description::usual(self.task, max_seq_len)
        }
    }
}

impl FromStr for Preset {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let names = || PRESETS.map(|preset| preset.name).join(", ");
        PRESETS
            .into_iter()
            .find(|preset| preset.name == name)
            .ok_or_else(|| format!("unknown preset `{name}`, expected one of {}", names()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_preset_is_found_by_its_name_and_makes_sense() {
        for preset in PRESETS {
            assert_eq!(preset.name.parse::<Preset>().unwrap(), preset);
            let description = preset.description(128);
            assert_eq!(preset.task == TaskKind(&MULTIPLE_CHOICE), !description.choices.is_empty());
            assert_eq!(description.header, description.text.parse::<usize>().is_err(), "{}", preset.name);
        }
        assert!("glue".parse::<Preset>().is_err());
    }
}
