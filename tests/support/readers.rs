//! Readers of data files whose columns are `text`, `pair`, `label`, or `context`, `question`, `a`, `b`, `label`: what
//! the tests and the fuzz targets attack.

use std::path::Path;

use bert_cli::input::columns::Column;
use bert_cli::input::header::ColumnSource;
use bert_cli::input::table::{LabelColumns, TableOptions, read_table};
use bert_finetune::data::choices::{ChoiceOptions, read_choices};
use bert_finetune::data::conll::{ConllOptions, read_tagged};
use bert_model::Result;

fn name(name: &str) -> Column {
    Column::Name(name.to_string())
}

pub fn table(path: &Path) -> Result<()> {
    let label = Some(LabelColumns::One(name("label")));
    let options = TableOptions { text_pair: Some(name("pair")), label, ..TableOptions::texts(name("text")) };
    read_table(path, &options)?.try_for_each(|row| row.map(drop))
}

pub fn choices(path: &Path) -> Result<()> {
    let options = ChoiceOptions {
        text: name("context"),
        text_pair: Some(name("question")),
        choices: vec![name("a"), name("b")],
        label: Some(name("label")),
        header: true,
        source: ColumnSource::Usual,
    };
    read_choices(path, &options)?.try_for_each(|row| row.map(drop))
}

pub fn tagged(path: &Path) -> Result<()> {
    read_tagged(path, ConllOptions::usual(path))?.try_for_each(|sentence| sentence.map(drop))
}
