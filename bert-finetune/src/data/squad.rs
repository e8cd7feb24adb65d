//! Reads questions about passages: the JSON of SQuAD v1.1 (Rajpurkar et al. 2016) and v2.0 (2018), and the same as rows
//! of a `.parquet` file, as the Hugging Face Hub has it.
//!
//! An answer is given by its text and the number of code points (not bytes) before it in the
//! passage; the two must agree. In v2.0, some questions have no answer in their passage.

use std::{path::Path, sync::Arc};

use bert_cli::input::columns::json_reason;
use bert_cli::input::kind::{FileKind, Format, Input};
use bert_cli::input::parquet::Parquet;
use bert_cli::lines::read_file;
use bert_model::text::CodePoints;
use bert_model::{Error, Result};
use serde::Deserialize;

/// A question about a passage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// Id of the question in the file.
    pub id: String,
    /// Title of the article.
    pub title: String,
    /// The passage, shared by all of its questions.
    pub context: Arc<str>,
    /// The question.
    pub question: String,
    /// All annotated answers; empty if the question is impossible or unlabeled.
    pub answers: Vec<Answer>,
    /// Whether the question is marked as having no answer in the passage.
    pub is_impossible: bool,
}

/// An answer: a span of the passage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The text of the answer.
    pub text: String,
    /// Number of code points before the answer in the passage.
    pub start: usize,
}

#[derive(Deserialize)]
struct File {
    data: Vec<Article>,
}

#[derive(Deserialize)]
struct Article {
    #[serde(default)]
    title: String,
    paragraphs: Vec<Paragraph>,
}

#[derive(Deserialize)]
struct Paragraph {
    context: String,
    qas: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    id: String,
    question: String,
    #[serde(default)]
    answers: Vec<RawAnswer>,
    #[serde(default)]
    is_impossible: bool,
}

#[derive(Deserialize)]
struct RawAnswer {
    text: String,
    answer_start: i64,
}

/// Reads a file of either version, compressed or not.
///
/// # Errors
/// [`Error::Io`] if it cannot be read; [`Error::Line`] for malformed JSON or a missing key;
/// [`Error::File`] for an answer that is not at its offset, an impossible question with answers, or
/// a file without questions.
pub fn read_squad(path: &Path) -> Result<Vec<Question>> {
    if FileKind::of(path).format == Some(Format::Parquet) {
        return read_rows(path);
    }
    let bytes = read_file(path)?;
    let json = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
    let file: File = serde_json::from_slice(json).map_err(|error| not_squad(path, &error))?;
    let mut questions = Vec::new();
    for article in file.data {
        for paragraph in article.paragraphs {
            paragraph.read_into(&mut questions, &article.title, path)?;
        }
    }
    if questions.is_empty() {
        return Err(Error::file(path, "no questions", "at least one"));
    }
    Ok(questions)
}

/// A row for each question; its answers are two lists. Rows do not say which questions are impossible: those without
/// answers are, in files that have any.
fn read_rows(path: &Path) -> Result<Vec<Question>> {
    #[derive(Deserialize)]
    struct Answers {
        text: Vec<String>,
        answer_start: Vec<i64>,
    }
    #[derive(Deserialize)]
    struct Row {
        id: String,
        #[serde(default)]
        title: String,
        context: String,
        question: String,
        answers: Option<Answers>,
    }
    let columns = ["id", "title", "context", "question", "answers"];
    let mut questions = Vec::new();
    for line in Parquet::open(&Input::new(path))?.lines(&columns)? {
        let line = line?;
        let wrong =
            |found: String| Error::line(path, line.number, found, "SQuAD's columns: id, context, question, answers");
        let Row { id, title, context, question, answers } =
            serde_json::from_str(&line.text).map_err(|error| wrong(json_reason(&error)))?;
        let answers = match answers {
            Some(Answers { text, answer_start }) if text.len() != answer_start.len() => {
                return Err(wrong(format!("{} answer(s) with {} start(s)", text.len(), answer_start.len())));
            }
            Some(Answers { text, answer_start }) => text.into_iter().zip(answer_start).collect(),
            None => Vec::new(),
        };
        let answers = answers.into_iter().map(|(text, answer_start)| RawAnswer { text, answer_start }).collect();
        let entry = Entry { id, question, answers, is_impossible: false };
        Paragraph { context, qas: vec![entry] }.read_into(&mut questions, &title, path)?;
    }
    if questions.iter().any(|question: &Question| !question.answers.is_empty()) {
        questions.iter_mut().for_each(|question| question.is_impossible = question.answers.is_empty());
    }
    match questions.is_empty() {
        true => Err(Error::file(path, "no questions", "at least one")),
        false => Ok(questions),
    }
}

fn not_squad(path: &Path, error: &serde_json::Error) -> Error {
    let text = error.to_string();
    let reason = text.split(" at line ").next().unwrap_or_default();
    let found = format!("{reason} (column {})", error.column());
    Error::line(path, error.line() as u64, found, "SQuAD's JSON: `data`, its `paragraphs`, their `context` and `qas`")
}

impl Paragraph {
    fn read_into(self, questions: &mut Vec<Question>, title: &str, path: &Path) -> Result<()> {
        let code_points = CodePoints::new(&self.context);
        let context: Arc<str> = self.context.into();
        for Entry { id, question, answers, is_impossible } in self.qas {
            if is_impossible && !answers.is_empty() {
                return Err(Error::file(path, format!("question `{id}`: answers, though `is_impossible`"), "none"));
            }
            let check = |answer| checked(answer, &id, &context, &code_points, path);
            let answers = answers.into_iter().map(check).collect::<Result<Vec<_>>>()?;
            let (title, context) = (title.to_string(), context.clone());
            questions.push(Question { id, title, context, question, answers, is_impossible });
        }
        Ok(())
    }
}

/// Checks that the passage contains the answer at its offset.
fn checked(answer: RawAnswer, id: &str, context: &str, code_points: &CodePoints, path: &Path) -> Result<Answer> {
    let RawAnswer { text, answer_start } = answer;
    let length = text.chars().count();
    let start = usize::try_from(answer_start).unwrap_or(usize::MAX);
    let found = code_points.slice(context, start, start.saturating_add(length));
    if found != text || start == usize::MAX {
        let found = format!("question `{id}`: `{found}` at code point {answer_start} of the context");
        return Err(Error::file(path, found, format!("the answer `{text}` there")));
    }
    Ok(Answer { text, start })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn read(json: &str) -> Result<Vec<Question>> {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), json).unwrap();
        read_squad(file.path())
    }

    fn file(qas: &str) -> String {
        let paragraph = format!(r#"{{"context":"Zoë ate 𝄞 pies.","qas":[{qas}]}}"#);
        format!("\u{feff}{{\"version\":\"v2.0\",\"data\":[{{\"title\":\"T\",\"paragraphs\":[{paragraph}]}}]}}")
    }

    #[test]
    fn offsets_count_code_points() {
        let questions = read(&file(
            r#"{"id":"1","question":"What?","answers":[{"text":"pies","answer_start":10}]},
               {"id":"2","question":"Who?","answers":[],"is_impossible":true,"plausible_answers":[]}"#,
        ));
        let questions = questions.unwrap();
        assert_eq!(questions[0].answers, [Answer { text: "pies".to_string(), start: 10 }]);
        assert!(questions[1].is_impossible && questions[1].answers.is_empty() && questions[1].title == "T");
        let code_points = CodePoints::new(&questions[0].context);
        assert_eq!((code_points.to_byte(10), code_points.to_byte(16)), (Some(14), None));
    }

    #[test]
    fn a_compressed_file_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("squad.json.gz");
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        let json = file(r#"{"id":"1","question":"What?","answers":[{"text":"pies","answer_start":10}]}"#);
        std::io::Write::write_all(&mut encoder, json.as_bytes()).unwrap();
        fs::write(&path, encoder.finish().unwrap()).unwrap();
        assert_eq!(read_squad(&path).unwrap()[0].answers[0].text, "pies");
    }

    #[test]
    fn an_answer_must_be_at_its_offset() {
        for (start, found) in [("11", "`ies.`"), ("400", "``"), ("-1", "``")] {
            let qas = format!(r#"{{"id":"q7","question":"?","answers":[{{"text":"pies","answer_start":{start}}}]}}"#);
            let message = read(&file(&qas)).unwrap_err().to_string();
            let expected =
                format!("question `q7`: {found} at code point {start} of the context, expected the answer `pies`");
            assert!(message.contains(&expected), "{message}");
        }
    }

    #[test]
    fn what_is_not_squad() {
        let cases = [
            ("{\"data\":\n[{}]}", ":2: found missing field `paragraphs` (column 3), expected SQuAD's JSON"),
            ("{\"data\":[", ":1: found EOF while parsing a list (column 9), expected SQuAD's JSON"),
            ("{\"data\":[]}", ": found no questions, expected at least one"),
        ];
        for (json, expected) in cases {
            let message = read(json).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}\nis not\n{expected}");
        }
    }

    #[test]
    fn rows_of_parquet() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/parquet/squad.parquet");
        let questions = read_squad(&path).unwrap();
        assert_eq!(questions[0].answers, [Answer { text: "pies".to_string(), start: 10 }]);
        assert!(!questions[0].is_impossible && questions[1].is_impossible && questions[1].title == "T");
    }
}
