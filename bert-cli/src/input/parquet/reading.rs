//! Reads files with the parquet crate, converting its panics to errors.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Arc, Once};

use bert_model::file::refuse_pointer;
use bert_model::{Error, Result};
use bytes::Bytes;
use parquet::file::reader::{ChunkReader, FileReader, SerializedFileReader};
use parquet::record::reader::RowIter;
use parquet::record::{Field, Row};
use parquet::schema::types::Type;
use serde_json::Value;

use super::cells::{named, value};
use crate::input::source::Input;

/// Number of values of a column to decode at once.
const BATCH: usize = 256;

/// For each column of tags, the names that its numbers stand for.
type Names = BTreeMap<String, Vec<String>>;

pub struct Opened {
    reader: Box<dyn FileReader>,
    names: Names,
}

pub struct Rows {
    rows: RowIter<'static>,
    /// For each selected column, its position in a row, and the names that its numbers stand for, if any.
    columns: Vec<(usize, Option<Vec<String>>)>,
}

pub fn open(input: &Input, path: &Path) -> Result<Opened> {
    if input.is_stdin() {
        let mut bytes = Vec::new();
        std::io::stdin().read_to_end(&mut bytes).map_err(Error::io(path, "read"))?;
        return of(Bytes::from(bytes), path);
    }
    let file = File::open(&input.path).map_err(Error::io(path, "open"))?;
    let metadata = file.metadata().map_err(Error::io(path, "read"))?;
    if metadata.is_dir() {
        return Err(Error::file(path, "a directory", "a parquet file"));
    }
    let mut beginning = Vec::new();
    (&file).take(64).read_to_end(&mut beginning).map_err(Error::io(path, "read"))?;
    refuse_pointer(path, &beginning)?;
    of(file, path)
}

fn of<R: ChunkReader + 'static>(source: R, path: &Path) -> Result<Opened> {
    let reader = guarded(|| SerializedFileReader::new(source).map_err(|error| error.to_string()));
    let reader = reader.map_err(|found| Error::file(path, found, "a parquet file"))?;
    let metadata = reader.metadata().file_metadata();
    let description = metadata.key_value_metadata().into_iter().flatten().find(|pair| pair.key == "huggingface");
    let names = description.and_then(|pair| tag_names(pair.value.as_deref()?)).unwrap_or_default();
    Ok(Opened { reader: Box::new(reader), names })
}

/// Extracts the tag names from the column description written by the `datasets` library. Without them, numbered tags
/// are meaningless.
fn tag_names(description: &str) -> Option<Names> {
    let description: Value = serde_json::from_str(description).ok()?;
    let names = |(column, feature): (&String, &Value)| {
        // Older versions write the element type of a list under `feature`; newer ones may write a one-element list.
        let element = [&feature["feature"], &feature[0]].into_iter().find(|element| element.is_object())?;
        let names = (element["_type"] == "ClassLabel").then(|| element["names"].as_array())??;
        let names: Option<Vec<String>> = names.iter().map(|name| name.as_str().map(str::to_string)).collect();
        Some((column.clone(), names?))
    };
    Some(description["info"]["features"].as_object()?.iter().filter_map(names).collect())
}

impl Opened {
    pub fn columns(&self) -> Vec<String> {
        let schema = self.reader.metadata().file_metadata().schema();
        schema.get_fields().iter().map(|field| field.name().to_string()).collect()
    }
}

pub fn rows(file: Opened, columns: &[String], path: &Path) -> Result<Rows> {
    let Opened { reader, names } = file;
    let schema = reader.metadata().file_metadata().schema();
    let fields = schema.get_fields().iter().filter(|field| columns.iter().any(|column| column == field.name()));
    let fields: Vec<Arc<Type>> = fields.cloned().collect();
    let place = |column: &String| {
        let place = fields.iter().position(|field| field.name() == column).unwrap_or(usize::MAX);
        (place, names.get(column).cloned())
    };
    let columns = columns.iter().map(place).collect();
    let root = schema.name().to_string();
    let rows = guarded(|| {
        let wanted = Type::group_type_builder(&root).with_fields(fields.clone()).build();
        let rows = RowIter::from_file_into(reader).with_batch_size(BATCH);
        rows.project(Some(wanted.map_err(|error| error.to_string())?)).map_err(|error| error.to_string())
    });
    Ok(Rows { rows: rows.map_err(|found| Error::file(path, found, "a parquet file"))?, columns })
}

impl Rows {
    pub fn next_row(&mut self) -> Result<Option<Vec<Value>>, String> {
        let row = guarded(|| self.rows.next().transpose().map_err(|error| error.to_string()))?;
        row.map(|row| self.cells(row)).transpose()
    }

    fn cells(&self, row: Row) -> Result<Vec<Value>, String> {
        let cells: Vec<Field> = row.into_columns().into_iter().map(|(_, field)| field).collect();
        let cell = |(place, names): &(usize, Option<Vec<String>>)| {
            let field = cells.get(*place).ok_or("a row with too few columns")?;
            let value = value(field)?;
            Ok(names.as_ref().map_or_else(|| value.clone(), |names| named(&value, names)))
        };
        self.columns.iter().map(cell).collect()
    }
}

/// Runs the parquet crate, which panics on some inconsistent files, and converts a panic to an error.
fn guarded<T>(read: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    thread_local! {
        static IS_GUARDED: Cell<bool> = const { Cell::new(false) };
    }
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if !IS_GUARDED.get() {
                usual(panic);
            }
        }));
    });
    IS_GUARDED.set(true);
    let result = catch_unwind(AssertUnwindSafe(read));
    IS_GUARDED.set(false);
    result.unwrap_or_else(|_| Err("an inconsistent structure".into()))
}
