//! The JSON formats of question files. Keys that are not used may be absent, null, or of any type.

use std::fmt;

use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, SeqAccess, Visitor};
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
    pub context: String,
    pub qas: Vec<Entry>,
}

/// A question.
#[derive(Deserialize)]
#[serde(try_from = "EntryKeys")]
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
    context: Option<String>,
    qas: Option<Vec<Entry>>,
    question: Option<String>,
    id: Option<Value>,
    answers: Option<Value>,
    is_impossible: Option<Value>,
}

#[derive(Deserialize)]
struct EntryKeys {
    id: Option<Value>,
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
                let row = row.map(Entry::try_from).transpose()?;
                match qas.or_else(|| row.map(|row| vec![row])) {
                    Some(qas) => vec![Paragraph { context, qas }],
                    None => return Err("`context` without `qas` or `question`".into()),
                }
            }
            _ => return Err("neither `data` nor `paragraphs` nor `context`".into()),
        };
        Ok(Self { paragraphs })
    }
}

impl TryFrom<EntryKeys> for Entry {
    type Error = String;

    fn try_from(EntryKeys { id, question, answers, is_impossible }: EntryKeys) -> Result<Self, String> {
        let id = id.and_then(|id| match id {
            Value::String(id) => Some(id),
            Value::Number(id) => Some(id.to_string()),
            _ => None,
        });
        let answers = match answers {
            None if is_impossible == Some(Value::Bool(true)) => Some(Vec::new()),
            None => None,
            Some(answers) => Some(answers_of(answers)?),
        };
        Ok(Self { id, question, answers })
    }
}

/// Parses answers in either format: a list of `{text, answer_start}` (or of texts), or
/// `{text: […], answer_start: […]}`.
fn answers_of(answers: Value) -> Result<Vec<Answer>, String> {
    match answers {
        Value::Array(list) => list.into_iter().map(answer_of).collect(),
        Value::Object(mut columns) => {
            let mut column = |name: &str| match columns.remove(name) {
                Some(Value::Array(values)) => values,
                None | Some(Value::Null) => Vec::new(),
                Some(value) => vec![value],
            };
            let (texts, starts) = (column("text"), column("answer_start"));
            let starts = starts.iter().map(Value::as_i64).chain(std::iter::repeat(None));
            texts.into_iter().zip(starts).map(|(text, start)| Ok(Answer { text: text_of(text)?, start })).collect()
        }
        _ => Err("`answers` that is neither a list nor an object".into()),
    }
}

fn answer_of(answer: Value) -> Result<Answer, String> {
    match answer {
        Value::Object(mut keys) => {
            let start = keys.get("answer_start").and_then(Value::as_i64);
            Ok(Answer { text: text_of(keys.remove("text").unwrap_or_default())?, start })
        }
        text => Ok(Answer { text: text_of(text)?, start: None }),
    }
}

fn text_of(text: Value) -> Result<String, String> {
    match text {
        Value::String(text) => Ok(text),
        Value::Number(number) => Ok(number.to_string()),
        _ => Err("an answer without `text`".into()),
    }
}
