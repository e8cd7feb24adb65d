//! The JSON formats of question files. Keys that are not used may be absent, null, or of any type.

use std::fmt;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Error as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// A top-level value.
pub(super) struct Content(Vec<Article>);

impl IntoIterator for Content {
    type Item = Article;
    type IntoIter = std::vec::IntoIter<Article>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

/// One entry of `data`: an article, a paragraph, or a flat row, all as paragraphs.
#[derive(Deserialize)]
#[serde(try_from = "Keys")]
pub(super) struct Article {
    pub paragraphs: Vec<Paragraph>,
}

/// A passage with its questions.
#[derive(Deserialize)]
pub(super) struct Paragraph {
    #[serde(deserialize_with = "text")]
    pub context: String,
    #[serde(deserialize_with = "list")]
    pub qas: Vec<Entry>,
}

/// A question.
#[derive(Deserialize)]
#[serde(from = "EntryKeys")]
pub(super) struct Entry {
    pub id: Option<String>,
    pub question: String,
    /// `None` if the question is not labeled.
    pub answers: Option<Vec<Answer>>,
}

/// An answer as written in the file.
pub(super) struct Answer {
    pub text: String,
    pub start: Option<i64>,
}

#[derive(Deserialize)]
struct Keys {
    data: Option<Vec<Article>>,
    paragraphs: Option<Vec<Paragraph>>,
    #[serde(default, deserialize_with = "given_text")]
    context: Option<String>,
    qas: Option<Vec<Entry>>,
    #[serde(default, deserialize_with = "given_text")]
    question: Option<String>,
    id: Option<Value>,
    answers: Option<Value>,
    is_impossible: Option<Value>,
}

#[derive(Deserialize)]
struct EntryKeys {
    id: Option<Value>,
    #[serde(deserialize_with = "text")]
    question: String,
    answers: Option<Value>,
    is_impossible: Option<Value>,
}

impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ContentVisitor)
    }
}

/// Reads a list of articles, or an object that is an article or contains a list of them under `data`.
struct ContentVisitor;

impl<'de> Visitor<'de> for ContentVisitor {
    type Value = Content;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("an object or a list of objects")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Content, A::Error> {
        let mut articles = Vec::new();
        while let Some(article) = list.next_element()? {
            articles.push(article);
        }
        Ok(Content(articles))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Content, A::Error> {
        Ok(Content(vec![Article::deserialize(MapAccessDeserializer::new(map))?]))
    }
}

impl TryFrom<Keys> for Article {
    type Error = String;

    fn try_from(keys: Keys) -> Result<Self, String> {
        let Keys { data, paragraphs, context, qas, question, id, answers, is_impossible } = keys;
        let paragraphs = match (data, paragraphs, context) {
            (Some(articles), _, _) => articles.into_iter().flat_map(|article| article.paragraphs).collect(),
            (_, Some(paragraphs), _) => paragraphs,
            (_, _, Some(context)) => {
                let row = question.map(|question| EntryKeys { id, question, answers, is_impossible });
                match qas.or_else(|| row.map(|row| vec![row.into()])) {
                    Some(qas) => vec![Paragraph { context, qas }],
                    None => return Err("`context` without `qas` or `question`".into()),
                }
            }
            _ => return Err("neither `data` nor `paragraphs` nor `context`".into()),
        };
        Ok(Self { paragraphs })
    }
}

impl From<EntryKeys> for Entry {
    fn from(EntryKeys { id, question, answers, is_impossible }: EntryKeys) -> Self {
        let answers = match answers {
            None if is_impossible == Some(Value::Bool(true)) => Some(Vec::new()),
            None => None,
            Some(answers) => answers_of(answers),
        };
        Self { id: id.as_ref().and_then(text_of), question, answers }
    }
}

/// Parses answers: a list of `{text, answer_start}` or of texts, `{text: […], answer_start: […]}`, or a text. `None` if
/// there are answers, but none has a text: then nothing is known.
fn answers_of(answers: Value) -> Option<Vec<Answer>> {
    let (answers, count): (Vec<Answer>, usize) = match answers {
        Value::Array(list) => (list.iter().filter_map(answer_of).collect(), list.len()),
        Value::Object(mut columns) => {
            let mut column = |name: &str| match columns.remove(name) {
                Some(Value::Array(values)) => values,
                None | Some(Value::Null) => Vec::new(),
                Some(value) => vec![value],
            };
            let (texts, starts) = (column("text"), column("answer_start"));
            let starts = starts.iter().map(Value::as_i64).chain(std::iter::repeat(None));
            let answer = |(text, start)| Some(Answer { text: text_of(text)?, start });
            (texts.iter().zip(starts).filter_map(answer).collect(), texts.len())
        }
        text => (answer_of(&text).into_iter().collect(), 1),
    };
    (count == 0 || !answers.is_empty()).then_some(answers)
}

fn answer_of(answer: &Value) -> Option<Answer> {
    match answer {
        Value::Object(keys) => {
            let start = keys.get("answer_start").and_then(Value::as_i64);
            Some(Answer { text: text_of(keys.get("text")?)?, start })
        }
        text => Some(Answer { text: text_of(text)?, start: None }),
    }
}

/// A text or a number as text; `None` for any other value.
fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// Reads a text; a number as text, and null as the empty one, as in lines of JSON.
fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let value = Value::deserialize(deserializer)?;
    let expected = || D::Error::custom("a question or context that is neither a text nor a number");
    if value.is_null() { Ok(String::new()) } else { text_of(&value).ok_or_else(expected) }
}

/// As [`text`], for a key that may be absent.
fn given_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    text(deserializer).map(Some)
}

/// Reads a list; null as the empty one.
fn list<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Entry>, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}
