//! Tagging schemes: how the tags of words encode where entities start and end.
//!
//! | scheme | one word | several words | next to an entity of the same type |
//! |---|---|---|---|
//! | IOB1 (CoNLL-2003 as distributed) | `I` | `I I I` | the second starts with `B` |
//! | IOB2 (BIO) | `B` | `B I I` | each starts with `B` |
//! | IOBES (BIOES) | `S` | `B I E` | unchanged |
//! | BILOU | `U` | `B I L` | unchanged |
//! | plain (parts of speech) | the tag itself | none | each word is an entity of its own |
//!
//! `O` is outside of any entity in all schemes. Invalid sequences are read as CoNLL's `conlleval`
//! and seqeval's default mode do: an `I` with nothing to continue starts an entity.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

/// The encoding of entities by tags.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum TagScheme {
    /// Inside/outside; `B` only between adjacent entities of the same type.
    Iob1,
    /// Inside/outside/begin; also called BIO.
    Iob2,
    /// Inside/outside/begin/end/single; also called BIOES.
    Iobes,
    /// Begin/inside/last/outside/unit.
    Bilou,
    /// Each word's tag is a type of its own, as for parts of speech.
    Plain,
}

/// An entity: words `start..end` of a sentence, and its type.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[non_exhaustive]
pub struct EntitySpan {
    /// Type of the entity, such as `PER`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Index of the first word.
    pub start: usize,
    /// Index after the last word.
    pub end: usize,
}

/// A parsed tag. BILOU's L and U are IOBES's E and S.
#[derive(Clone, Copy, PartialEq)]
enum Tag<'a> {
    Outside,
    Begin(&'a str),
    Inside(&'a str),
    End(&'a str),
    Single(&'a str),
}

impl<'a> Tag<'a> {
    /// Parses a tag; `None` if it has no known prefix. The type may be missing.
    fn parse(tag: &'a str) -> Option<Self> {
        let (prefix, kind) = tag.split_once('-').unwrap_or((tag, ""));
        match prefix {
            "O" if kind.is_empty() => Some(Self::Outside),
            "B" => Some(Self::Begin(kind)),
            "I" => Some(Self::Inside(kind)),
            "E" | "L" => Some(Self::End(kind)),
            "S" | "U" => Some(Self::Single(kind)),
            _ => None,
        }
    }

    /// Interprets a tag according to `scheme`.
    fn read(tag: &'a str, scheme: TagScheme) -> Self {
        match scheme {
            TagScheme::Plain if tag == "O" => Self::Outside,
            TagScheme::Plain => Self::Single(tag),
            _ => Self::parse(tag).unwrap_or(Self::Outside),
        }
    }

    fn kind(self) -> Option<&'a str> {
        match self {
            Self::Outside => None,
            Self::Begin(kind) | Self::Inside(kind) | Self::End(kind) | Self::Single(kind) => Some(kind),
        }
    }

    /// Whether this tag continues the entity that `previous` belongs to.
    fn continues(self, previous: Self) -> bool {
        matches!(self, Self::Inside(_) | Self::End(_))
            && matches!(previous, Self::Begin(_) | Self::Inside(_))
            && self.kind() == previous.kind()
    }
}

impl TagScheme {
    /// Detects the scheme from the tags of all sentences; IOB2 if they fit IOB1 as well. A stray
    /// tag without a prefix (`X`) beside tags such as `B-PER` is outside of any entity, as in
    /// seqeval.
    pub fn detect<'a>(sentences: impl IntoIterator<Item = &'a [String]>) -> Self {
        let mut prefixes = BTreeSet::new();
        let (mut starts_inside, mut is_plain, mut is_typed) = (false, false, false);
        for sentence in sentences {
            let mut previous = Tag::Outside;
            for tag in sentence {
                let Some(parsed) = Tag::parse(tag) else {
                    (is_plain, previous) = (true, Tag::Outside);
                    continue;
                };
                is_typed |= tag.starts_with("B-") || tag.starts_with("I-");
                prefixes.extend(tag.chars().next());
                starts_inside |= matches!(parsed, Tag::Inside(_)) && !parsed.continues(previous);
                previous = parsed;
            }
        }
        match prefixes {
            _ if is_plain && !is_typed => Self::Plain,
            prefixes if prefixes.contains(&'L') || prefixes.contains(&'U') => Self::Bilou,
            prefixes if prefixes.contains(&'E') || prefixes.contains(&'S') => Self::Iobes,
            _ if starts_inside => Self::Iob1,
            _ => Self::Iob2,
        }
    }
}

/// Completes the set of tags of a training file, which may lack some that other files have: for
/// each type the tags of all prefixes, and `O`.
pub fn complete(tags: &BTreeSet<String>, scheme: TagScheme) -> BTreeSet<String> {
    let prefixes: &[&str] = match scheme {
        TagScheme::Plain => return tags.clone(),
        TagScheme::Iob1 | TagScheme::Iob2 => &["B", "I"],
        TagScheme::Iobes => &["B", "I", "E", "S"],
        TagScheme::Bilou => &["B", "I", "L", "U"],
    };
    let kinds = tags.iter().filter_map(|tag| Tag::parse(tag)?.kind());
    let of = |kind: &str| {
        let dash = if kind.is_empty() { "" } else { "-" };
        prefixes.iter().map(move |prefix| format!("{prefix}{dash}{kind}")).collect::<Vec<_>>()
    };
    kinds.flat_map(of).chain(["O".to_string()]).chain(tags.iter().cloned()).collect()
}

/// The entities in a sentence's tags, from left to right.
pub fn entities<S: AsRef<str>>(tags: &[S], scheme: TagScheme) -> Vec<EntitySpan> {
    let mut entities: Vec<EntitySpan> = Vec::new();
    let mut previous = Tag::Outside;
    for (index, tag) in tags.iter().enumerate() {
        let tag = Tag::read(tag.as_ref(), scheme);
        match (tag.kind(), entities.last_mut()) {
            (Some(_), Some(entity)) if tag.continues(previous) => entity.end = index + 1,
            (Some(kind), _) => entities.push(EntitySpan { kind: kind.to_string(), start: index, end: index + 1 }),
            (None, _) => {}
        }
        previous = tag;
    }
    entities
}

/// Converts tags to IOB2, where each entity starts with `B`. Plain tags are unchanged.
pub fn to_iob2(tags: &[String], scheme: TagScheme) -> Vec<String> {
    if scheme == TagScheme::Plain {
        return tags.to_vec();
    }
    let mut converted = vec!["O".to_string(); tags.len()];
    for EntitySpan { kind, start, end } in entities(tags, scheme) {
        let dash = if kind.is_empty() { "" } else { "-" };
        converted[start..end].fill(format!("I{dash}{kind}"));
        converted[start] = format!("B{dash}{kind}");
    }
    converted
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tags(tags: &str) -> Vec<String> {
        tags.split(' ').map(str::to_string).collect()
    }

    #[test]
    fn a_begin_has_an_inside() {
        let complete = |tags: &[&str], scheme| {
            complete(&tags.iter().map(|tag| tag.to_string()).collect(), scheme).into_iter().collect::<Vec<_>>()
        };
        assert_eq!(complete(&["B-LOC", "I-PER"], TagScheme::Iob2), ["B-LOC", "B-PER", "I-LOC", "I-PER", "O"]);
        assert_eq!(complete(&["O", "U-X"], TagScheme::Bilou), ["B-X", "I-X", "L-X", "O", "U-X"]);
        assert_eq!(complete(&["B"], TagScheme::Iob2), ["B", "I", "O"]);
        assert_eq!(complete(&["NOUN"], TagScheme::Plain), ["NOUN"]);
    }

    #[test]
    fn schemes_are_told_apart() {
        let cases = [
            ("I-ORG O I-MISC B-MISC", TagScheme::Iob1),
            ("B-ORG O B-MISC B-MISC I-MISC", TagScheme::Iob2),
            ("B-PER I-LOC", TagScheme::Iob1),
            ("S-ORG O B-MISC E-MISC", TagScheme::Iobes),
            ("B-PER I-PER L-PER O U-LOC", TagScheme::Bilou),
            ("B I O", TagScheme::Iob2),
            ("O O", TagScheme::Iob2),
            ("DT NN O", TagScheme::Plain),
            ("-LRB- NN", TagScheme::Plain),
            ("B-PER I-PER X O", TagScheme::Iob2),
        ];
        for (text, scheme) in cases {
            assert_eq!(TagScheme::detect([&*tags(text)]), scheme, "{text}");
        }
    }

    #[test]
    fn every_scheme_becomes_iob2() {
        let expected = tags("B-A I-A B-A O B-B B-C");
        for text in ["I-A I-A B-A O I-B I-C", "B-A E-A S-A O S-B S-C", "B-A L-A U-A O U-B U-C", "B-A I-A B-A O B-B B-C"]
        {
            let scheme = TagScheme::detect([&*tags(text)]);
            assert_eq!(to_iob2(&tags(text), scheme), expected, "{text}");
        }
        assert_eq!(to_iob2(&tags("I I B O"), TagScheme::Iob1), tags("B I B O"));
        assert_eq!(to_iob2(&tags("NN I O"), TagScheme::Plain), tags("NN I O"));
    }

    #[test]
    fn a_type_may_hold_hyphens() {
        let entity = EntitySpan { kind: "work-of-art".to_string(), start: 0, end: 2 };
        assert_eq!(entities(&["B-work-of-art", "I-work-of-art"], TagScheme::Iob2), [entity]);
    }
}
