//! Reads tagged words: CoNLL columns (one word per line, sentences separated by empty lines), CoNLL-U, `.jsonl` and
//! `.parquet`.
//!
//! Columns are separated by tabs if the line has any, else by spaces. A CoNLL-U line
//! (<https://universaldependencies.org/format>) is recognized by ten tab-separated columns with a number in the first.
//! Its ranges (`1-2`, for `don't` above `do` and `n't`) and empty nodes (`8.1`) are skipped, as are `-DOCSTART-` and
//! OntoNotes' `#begin document`.

mod columns;
mod json;

use bert_cli::input::columns::json_object;
use bert_cli::input::keep::Keep;
use bert_cli::input::kind::Format;
use bert_cli::input::source::Input;
use bert_cli::lines::Lines;
use bert_cli::warning::warn_once;
use bert_model::{Error, Result};

pub use self::columns::{ConllColumns, ConllOptions, TagColumn};
pub use self::json::{WordsOrText, words_or_text};

/// Number of lines with a word that are inspected to decide whether a file has tags.
const LOOKED_AT: usize = 10;

/// A sentence. `tags` is as long as `words`, or empty if tags are not read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sentence {
    /// The words.
    pub words: Vec<String>,
    /// The tag of each word; empty for a null.
    pub tags: Vec<String>,
    /// Line number of each word, from 1.
    pub lines: Vec<u64>,
}

/// Iterates over the sentences of a file. A file without sentences yields an error.
pub struct Sentences {
    lines: Lines,
    options: ConllOptions,
    json: bool,
    /// Receives the number of each sentence, and the fields of JSON lines to keep.
    keep: Option<Keep>,
    /// Number of columns of the first word of the current sentence.
    width: Option<usize>,
    read: u64,
}

/// Opens a CoNLL file, or a `.jsonl` or `.parquet` file with `words` and `tags` (or Hugging Face's names, `tokens` and
/// `ner_tags`).
///
/// # Errors
/// [`Error::Io`] if the file cannot be opened. A sentence yields an error if a line has too few columns, or tags and
/// words differ in number.
pub fn read_tagged(input: impl Into<Input>, options: ConllOptions) -> Result<Sentences> {
    let input = input.into();
    if input.format == Some(Format::Json) {
        return Err(input.error("CoNLL columns, `.jsonl` or `.parquet` with lists of words and tags"));
    }
    let mut lines = input.lines()?;
    let format = input.format.or_else(|| lines.sniff().filter(|_| input.is_stdin()));
    let json = format.is_some_and(Format::has_objects);
    Ok(Sentences { lines, options, json, keep: input.keep, width: None, read: 0 })
}

/// Whether a file, whatever its name, consists of CoNLL columns: each of its first lines, except comments and empty
/// ones, has at least two columns, with a tag in the tag column according to `is_tag`. Returns false for pipes, without
/// reading them.
///
/// # Errors
/// If the file cannot be read.
pub fn has_tags(input: &Input, tag: TagColumn, is_tag: impl Fn(&str) -> bool) -> Result<bool> {
    if input.is_stdin() || !input.path.is_file() {
        return Ok(false);
    }
    let mut words = 0;
    for line in input.lines()? {
        let line = line?;
        let text = line.text.trim_ascii_end();
        if text.is_empty() || text.starts_with("# ") || is_document_mark(text) {
            continue;
        }
        let fields = split(text);
        if fields.len() < 2 || !tag.of(&fields).is_some_and(&is_tag) {
            return Ok(false);
        }
        words += 1;
        if words == LOOKED_AT {
            break;
        }
    }
    Ok(words > 0)
}

impl Sentences {
    fn next_json(&mut self) -> Result<Option<Sentence>> {
        for line in self.lines.by_ref() {
            let line = line?;
            if !line.text.trim().is_empty() {
                let path = self.lines.path();
                let sentence = json::sentence(&line, path, self.options.tag.is_some())?;
                if let Some(keep) = &self.keep {
                    keep.send_fields(self.read + 1, &json_object(&line, path)?, path, line.number)?;
                }
                return Ok(Some(sentence));
            }
        }
        Ok(None)
    }

    fn next_columns(&mut self) -> Result<Option<Sentence>> {
        let mut sentence = Sentence::default();
        while let Some(line) = self.lines.next().transpose()? {
            let text = line.text.trim_ascii_end();
            if text.is_empty() || is_document_mark(text) {
                if !sentence.words.is_empty() {
                    return Ok(Some(sentence));
                }
                continue;
            }
            let fields = split(text);
            if sentence.words.is_empty() {
                if self.is_comment(text, &fields) {
                    continue;
                }
                if self.read == 0 && self.width.is_none() && is_header(&fields) {
                    let place = format!("{}:{}", self.lines.path().display(), line.number);
                    warn_once(format!("{place}: treated as a header: {}", fields.join(" ")));
                    self.width = Some(fields.len());
                    continue;
                }
                self.width = Some(fields.len());
            }
            self.push(&mut sentence, &fields, line.number)?;
        }
        Ok((!sentence.words.is_empty()).then_some(sentence))
    }

    /// Whether this line before a sentence is a comment rather than the word `#`. A line that starts with `# ` is a
    /// word if a tab follows the `#`, or if it has as many columns as earlier lines and no equals sign (unlike
    /// `# sent_id = 7`). If words are not in the first column, a `#` there also marks a comment (as in GermEval's
    /// sources).
    fn is_comment(&self, text: &str, fields: &[&str]) -> bool {
        let like_words = self.width == Some(fields.len()) && !fields.contains(&"=");
        let is_numbered = self.options.token != TagColumn::FromStart(1);
        match text.contains('\t') {
            true => text.starts_with("# ") || is_numbered && fields[0] == "#",
            false => (text == "#" || text.starts_with("# ")) && !like_words,
        }
    }

    fn push(&self, sentence: &mut Sentence, fields: &[&str], line: u64) -> Result<()> {
        if self.options.token != TagColumn::FromStart(1) && is_conllu_non_word(fields) {
            return Ok(());
        }
        let wrong = |expected| Error::line(self.lines.path(), line, format!("{} column(s)", fields.len()), expected);
        if let Some(width) = self.width.filter(|&width| fields.len() < width) {
            return Err(wrong(format!("{width}, as in the sentence's first line (an empty line ends a sentence)")));
        }
        let ConllOptions { token, tag } = self.options;
        let word = token.of(fields).ok_or_else(|| wrong(format!("a word in column {token}")))?;
        sentence.words.push(word.to_string());
        sentence.lines.push(line);
        if let Some(column) = tag {
            // A line with a single column has only the word.
            let tag = column.of(fields).filter(|_| fields.len() > 1);
            let expected = || match fields.len() {
                1 => "a word and its tag, separated by spaces or a tab".to_string(),
                _ => format!("a tag in column {column}"),
            };
            sentence.tags.push(tag.ok_or_else(|| wrong(expected()))?.to_string());
        }
        Ok(())
    }
}

impl Iterator for Sentences {
    type Item = Result<Sentence>;

    fn next(&mut self) -> Option<Self::Item> {
        let sentence = if self.json { self.next_json() } else { self.next_columns() };
        if matches!(sentence, Ok(None)) && self.read == 0 {
            self.read = 1;
            return Some(Err(Error::file(&**self.lines.path(), "no words", "at least one sentence")));
        }
        self.read += 1;
        sentence.transpose()
    }
}

fn split(line: &str) -> Vec<&str> {
    if line.contains('\t') { line.split('\t').collect() } else { line.split_ascii_whitespace().collect() }
}

fn is_document_mark(line: &str) -> bool {
    let mark = line.split(['\t', ' ']).next().unwrap_or_default();
    mark == "-DOCSTART-" || line.starts_with("#begin document") || line.starts_with("#end document")
}

/// Whether the fields of a file's first line are names of columns, such as `word` and `tag`.
fn is_header(fields: &[&str]) -> bool {
    const WORDS: [&str; 6] = ["word", "words", "token", "tokens", "form", "text"];
    const TAGS: [&str; 11] =
        ["tag", "tags", "label", "labels", "ner", "ner_tag", "ner_tags", "pos", "pos_tag", "pos_tags", "upos"];
    let has = |names: &[&str]| fields.iter().any(|field| names.contains(&field.to_lowercase().as_str()));
    fields.len() > 1 && has(&WORDS) && has(&TAGS)
}

/// Whether a CoNLL-U line is a range (`1-2`) or an empty node (`8.1`).
fn is_conllu_non_word(fields: &[&str]) -> bool {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let parts = fields.first().and_then(|id| id.split_once(['-', '.']));
    fields.len() == 10 && parts.is_some_and(|(first, second)| is_number(first) && is_number(second))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    const COLUMNS: ConllOptions = ConllOptions { token: TagColumn::FromStart(1), tag: Some(TagColumn::FromEnd(1)) };

    fn read(file: &str, content: &str, options: ConllOptions) -> Result<Vec<Sentence>> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(file);
        fs::write(&path, content).unwrap();
        read_tagged(&path, options)?.collect()
    }

    /// Formats each sentence as `word/tag word/tag`.
    fn tagged(file: &str, content: &str, options: ConllOptions) -> Vec<String> {
        let join =
            |s: Sentence| s.words.iter().zip(&s.tags).map(|(w, t)| format!("{w}/{t}")).collect::<Vec<_>>().join(" ");
        read(file, content, options).unwrap().into_iter().map(join).collect()
    }

    #[test]
    fn conll_2003() {
        let first = "-DOCSTART- -X- O O\r\n\r\nEU NNP I-NP I-ORG\r\n# # O O\r\n\r\n\r\n";
        let text = &format!("{first}-DOCSTART- -X- O O\n\n# # I-NP O\n10 CD I-NP O");
        assert_eq!(tagged("x.txt", text, COLUMNS), ["EU/I-ORG #/O", "#/O 10/O"]);
        assert_eq!(read("x", text, COLUMNS).unwrap()[1].lines[0], 9);
        let numbered = ConllOptions { tag: Some(TagColumn::parse("2").unwrap()), ..COLUMNS };
        assert_eq!(tagged("x.txt", text, numbered)[0], "EU/NNP #/#");
    }

    /// Reported bug: the header became a word and a class.
    #[test]
    fn a_header_is_no_word() {
        assert_eq!(tagged("x.tsv", "word\ttag\nthe\tO\n\nword\tO\n", COLUMNS), ["the/O", "word/O"]);
        assert_eq!(tagged("x.txt", "Token POS NER\nthe DT O\n", COLUMNS), ["the/O"]);
        assert_eq!(tagged("x.txt", "text O\ntag B-X\n", COLUMNS), ["text/O tag/B-X"]);
    }

    #[test]
    fn tabs_and_tokens_with_a_hash_sign() {
        let text = "# a comment, not a word\n#nlp\tO\n#\tO\n\n# id = 2\n#\tO\nNew York\tB-LOC\t\n";
        assert_eq!(tagged("x.tsv", text, COLUMNS), ["#nlp/O #/O", "#/O New York/B-LOC"]);
    }

    #[test]
    fn comments_with_tabs() {
        let text = "# id 5b-1\tdomain=en\nit _ _ O\nrains _ _ O\n\n# id 5b-2\tdomain=en\n# _ _ B-X\n";
        assert_eq!(tagged("x.conll", text, COLUMNS), ["it/O rains/O", "#/B-X"]);
        let text = "#\thttp://de.wikipedia.org\t[2009-10-17]\n1\tOb\tB-X\tO\n";
        let columns = ConllColumns { token: Some(TagColumn::FromStart(2)), tag: Some(TagColumn::FromStart(3)) };
        assert_eq!(tagged("x.tsv", text, columns.of(Path::new("x.tsv"))), ["Ob/B-X"]);
    }

    #[test]
    fn conll_u() {
        let line = |id: &str, word: &str, tag: &str| format!("{id}\t{word}\t_\t{tag}\t_\t_\t0\t_\t_\t_\n");
        let text = format!(
            "# sent_id = 1\n# text = don't\n{}{}{}{}\n",
            line("1-2", "don't", "_"),
            line("1", "do", "AUX"),
            line("2", "n't", "PART"),
            line("2.1", "go", "VERB"),
        );
        let usual = ConllColumns::default().of(Path::new("x.conllu"));
        assert_eq!(tagged("x.conllu", &text, usual), ["do/AUX n't/PART"]);
        let lemma = ConllColumns { tag: Some(TagColumn::FromStart(3)), ..ConllColumns::default() };
        assert_eq!(tagged("x.conllu", &text, lemma.of(Path::new("x.conllu"))), ["do/_ n't/_"]);
    }

    #[test]
    fn json_lines() {
        let text =
            "{\"words\":[\"a\",\"b\"],\"tags\":[\"O\",\"B\"]}\n\n{\"tokens\":[\"c\"],\"ner_tags\":[3],\"id\":0}\n";
        assert_eq!(tagged("x.jsonl", text, COLUMNS), ["a/O b/B", "c/3"]);
        let words = ConllOptions { tag: None, ..COLUMNS };
        assert_eq!(read("x.jsonl", "{\"words\":[\"a\"]}", words).unwrap()[0].words, ["a"]);
    }

    #[test]
    fn rows_of_parquet() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/parquet/tags.parquet");
        let sentences: Vec<Sentence> = read_tagged(&path, COLUMNS).unwrap().collect::<Result<_>>().unwrap();
        assert_eq!((&*sentences[0].tags[0], &*sentences[2].words[0], sentences[2].lines[0]), ("B-PER", "Bonn", 3));
    }

    #[test]
    fn a_file_of_any_name_may_have_tags() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.txt");
        let is_tag = |tag: &str| matches!(tag, "O" | "B-X");
        for (content, expected) in [
            ("-DOCSTART- -X- O O\n\nEU NNP O\n# # B-X\n\n", true),
            ("# a comment\na\tO\n", true),
            ("This is a text that ends in O\nand so on\n", false),
            ("O\n", false),
            ("id\ttext\n1\tO\n", false),
            ("\n", false),
        ] {
            fs::write(&path, content).unwrap();
            let found = has_tags(&Input::new(&path), TagColumn::FromEnd(1), is_tag).unwrap();
            assert_eq!(found, expected, "{content:?}");
        }
    }

    #[test]
    fn errors_name_the_place() {
        let fourth = ConllOptions { tag: Some(TagColumn::FromStart(4)), ..COLUMNS };
        let cases = [
            ("x.txt", "a O\nb\n", COLUMNS, "x.txt:2: found 1 column(s), expected 2, as in the sentence's first line"),
            ("x.txt", "\na B-X O\n", fourth, "x.txt:2: found 3 column(s), expected a tag in column 4"),
            ("x.txt", "a\nb\n", COLUMNS, "x.txt:1: found 1 column(s), expected a word and its tag, separated by"),
            ("x.json", "[]", COLUMNS, "x.json: found the extension `json`, expected CoNLL columns, `.jsonl` or"),
            ("x.txt", "\n\x0c \t\n", COLUMNS, "x.txt: found no words, expected at least one sentence"),
            (
                "x.jsonl",
                "{\"words\":[\"a\"],\"tags\":[]}",
                COLUMNS,
                "x.jsonl:1: found 0 tag(s) for 1 word(s), expected a tag",
            ),
            ("x.jsonl", "{\"words\":[\"a\"]}", COLUMNS, "x.jsonl:1: found no `tags`, expected a list"),
        ];
        for (file, content, options, expected) in cases {
            let message = read(file, content, options).unwrap_err().to_string();
            assert!(message[message.find(file).unwrap()..].starts_with(expected), "{message}\nis not\n{expected}");
        }
        assert!(TagColumn::parse("0").is_err() && TagColumn::parse("four").is_err());
    }
}
