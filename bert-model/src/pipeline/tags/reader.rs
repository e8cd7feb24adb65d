//! Recognizes the scheme of a set of labels.

use std::collections::BTreeSet;

use super::notation::{NOTATIONS, Notation, Role, is_like_a_scheme, is_outside};
use super::{LETTERS, TagScheme};

/// Maximum number of labels named in a warning.
const NAMED: usize = 5;

/// Reads entities from tags, according to the scheme and the notation of a set of labels.
///
/// Recognition works as follows. The notation is the one in which most labels have a letter and a type, and the letters
/// that occur determine the scheme. The scheme is accepted if all labels but `O` follow it, or if some type occurs with
/// two of its letters (`B-PER` and `I-PER`); the remaining labels are then outside of any entity. Otherwise the tags
/// are plain. [`TagReader::warnings`] names the labels that were ignored.
///
/// ```
/// use bert_model::pipeline::tags::{TagReader, TagScheme};
///
/// let reader = TagReader::of_labels(["O", "PER_B", "PER_I"]);
/// assert_eq!(reader.scheme(), TagScheme::Iob2);
/// let entities = reader.entities(&["PER_B", "PER_I", "O"]);
/// assert_eq!((entities[0].kind, entities[0].start, entities[0].end), ("PER", 0, 2));
/// assert!(reader.warnings().is_empty());
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TagReader {
    scheme: TagScheme,
    pub(super) notation: Notation,
    /// Labels that do not follow the scheme or, if tags are plain, that look like labels of a scheme.
    unread: Vec<String>,
    has_outside: bool,
    /// Whether `0` is a label and some other label is not a number.
    has_zero: bool,
}

impl TagReader {
    /// Recognizes the scheme of a model's labels. Labels alone cannot distinguish IOB1 from IOB2, or IOE1 from IOE2:
    /// IOB2 is assumed if there is a `B`, and IOE2 if there is an `E`.
    pub fn of_labels<S: AsRef<str>>(labels: impl IntoIterator<Item = S>) -> Self {
        let all: BTreeSet<String> = labels.into_iter().map(|label| label.as_ref().to_string()).collect();
        let labels: Vec<&str> = all.iter().map(String::as_str).filter(|label| !is_outside(label)).collect();
        let read_in = |notation: Notation| labels.iter().filter(|label| notation.parse(label).is_some()).count();
        let best = NOTATIONS.iter().fold(
            NOTATIONS[0],
            |best, &notation| {
                if read_in(notation) > read_in(best) { notation } else { best }
            },
        );
        let (read, unread): (Vec<&str>, Vec<&str>) =
            labels.iter().copied().partition(|label| best.parse(label).is_some());
        let tags: BTreeSet<(char, &str)> = read.iter().filter_map(|label| best.parse(label)).collect();
        let is_scheme = unread.is_empty() || best != Notation::Alone && has_pair(&tags);
        let scheme = scheme_of(tags.iter().map(|tag| tag.0)).filter(|_| is_scheme);
        let names = |labels: Vec<&str>| labels.into_iter().map(str::to_string).collect();
        Self {
            scheme: scheme.unwrap_or(TagScheme::Plain),
            notation: best,
            unread: match scheme {
                Some(_) => names(unread),
                None => names(labels.iter().copied().filter(|label| is_like_a_scheme(label)).collect()),
            },
            has_outside: all.iter().any(|label| is_outside(label)),
            has_zero: labels.contains(&"0") && labels.iter().any(|label| label.parse::<f64>().is_err()),
        }
    }

    /// Recognizes the scheme of a file's tags. The scheme is IOB1 if every `B` directly follows a word of the same
    /// type, and IOE1 if every `E` directly precedes one.
    pub fn of_sentences<S: AsRef<str>>(sentences: &[impl AsRef<[S]>]) -> Self {
        let tags = sentences.iter().flat_map(|sentence| sentence.as_ref());
        let reader = Self::of_labels(tags.map(|tag| tag.as_ref()).collect::<BTreeSet<&str>>());
        let all_between = |role: Role| {
            sentences.iter().all(|sentence| {
                let tags: Vec<(Role, &str)> = sentence.as_ref().iter().map(|tag| reader.read(tag.as_ref())).collect();
                let is_beside = |index: usize| match role {
                    Role::Begin => index > 0 && is_of(tags[index - 1], tags[index].1),
                    _ => tags.get(index + 1).is_some_and(|&next| is_of(next, tags[index].1)),
                };
                (0..tags.len()).all(|index| tags[index].0 != role || is_beside(index))
            })
        };
        let scheme = match reader.scheme {
            TagScheme::Iob2 if all_between(Role::Begin) => TagScheme::Iob1,
            TagScheme::Ioe2 if all_between(Role::End) => TagScheme::Ioe1,
            other => other,
        };
        reader.with_scheme(scheme)
    }

    /// Returns a reader of the same labels for a scheme that is known, for instance from training.
    pub fn with_scheme(self, scheme: TagScheme) -> Self {
        Self { scheme, ..self }
    }

    /// The tagging scheme.
    pub fn scheme(&self) -> TagScheme {
        self.scheme
    }

    /// Whether tags mark entities: those of a scheme do, and plain ones do if there is an `O`. Other plain tags, such
    /// as parts of speech, describe single words.
    pub fn marks_entities(&self) -> bool {
        self.scheme != TagScheme::Plain || self.has_outside
    }

    /// The type that a tag names, such as `PER`; `None` for a tag outside of any entity.
    pub fn kind<'a>(&self, tag: &'a str) -> Option<&'a str> {
        let (role, kind) = self.read(tag);
        (role != Role::Outside).then_some(kind)
    }

    /// Warnings for the user about labels that were not understood, one sentence each.
    pub fn warnings(&self) -> Vec<String> {
        let quoted: Vec<String> = self.unread.iter().take(NAMED).map(|label| format!("`{label}`")).collect();
        let more = if self.unread.len() > NAMED { ", …" } else { "" };
        let named = format!("tags {}{more}", quoted.join(", "));
        let unread = (!self.unread.is_empty()).then(|| match self.scheme {
            TagScheme::Plain => format!(
                "{named}: not in the schemes IOB, IOE, IOBES, BILOU, BMES or BMEWO; each is treated as a separate type"
            ),
            _ => format!("{named}: not in the scheme of the other tags; treated as outside of any entity"),
        });
        let zero = self.has_zero.then(|| {
            "the tag `0` is the digit zero; the tag for words outside of any entity is the letter `O`".to_string()
        });
        unread.into_iter().chain(zero).collect()
    }

    /// The role and the type of a tag.
    pub(super) fn read<'a>(&self, tag: &'a str) -> (Role, &'a str) {
        let read = match self.scheme {
            _ if is_outside(tag) => None,
            TagScheme::Plain => Some((Role::Inside, tag)),
            _ => self.notation.parse(tag).and_then(|(letter, kind)| Some((Role::of(letter)?, kind))),
        };
        read.unwrap_or((Role::Outside, ""))
    }
}

/// The first scheme that has all of these letters.
fn scheme_of(letters: impl Iterator<Item = char>) -> Option<TagScheme> {
    let letters: BTreeSet<char> = letters.collect();
    let (scheme, _) = LETTERS.iter().find(|(_, own)| letters.iter().all(|&letter| own.contains(letter)))?;
    match scheme {
        _ if letters.is_empty() => None,
        TagScheme::Iob2 if !letters.contains(&'B') => Some(TagScheme::Iob1),
        scheme => Some(*scheme),
    }
}

/// Whether some type occurs with two letters.
fn has_pair(tags: &BTreeSet<(char, &str)>) -> bool {
    let kinds: BTreeSet<&str> = tags.iter().map(|tag| tag.1).collect();
    kinds.len() < tags.len()
}

fn is_of((role, kind): (Role, &str), other: &str) -> bool {
    role != Role::Outside && kind == other
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<&str> {
        text.split(' ').collect()
    }

    #[test]
    fn the_letters_of_a_models_labels_name_the_scheme() {
        for (labels, scheme) in [
            ("O B-PER I-PER B-LOC I-LOC", TagScheme::Iob2),
            ("O I-PER I-LOC", TagScheme::Iob1),
            ("O I-PER E-PER", TagScheme::Ioe2),
            ("O B-PER I-PER E-PER S-PER", TagScheme::Iobes),
            ("O S-PER", TagScheme::Iobes),
            ("O B-PER I-PER L-PER U-PER", TagScheme::Bilou),
            ("O B-PER M-PER E-PER S-PER", TagScheme::Bmes),
            ("O B-PER M-PER E-PER W-PER", TagScheme::Bmewo),
            ("BB_O_PER MM_O EE_O_PER WW_O_PER B_PER M_PER E_PER W_PER", TagScheme::Bmewo),
            ("O B_PER I_PER", TagScheme::Iob2),
            ("O PER-B PER-M PER-E PER-S", TagScheme::Bmes),
            ("O PER_I PER_O_L PER_U", TagScheme::Bilou),
            ("B I O", TagScheme::Iob2),
            ("B M E S", TagScheme::Bmes),
            ("O PER LOC", TagScheme::Plain),
            ("DT NN -LRB- PRP$", TagScheme::Plain),
            ("A B E I N S V", TagScheme::Plain),
        ] {
            let reader = TagReader::of_labels(words(labels));
            assert_eq!((reader.scheme(), reader.warnings()), (scheme, vec![]), "{labels}");
        }
    }

    #[test]
    fn labels_that_follow_no_scheme_are_named() {
        for (labels, scheme, expected) in [
            (
                "O B-PER I-PER X [CLS] [SEP]",
                TagScheme::Iob2,
                "tags `X`, `[CLS]`, `[SEP]`: not in the scheme of the other tags",
            ),
            ("O B-PER X", TagScheme::Plain, "tags `B-PER`: not in the schemes"),
            ("O B-PER M-PER I-PER L-PER", TagScheme::Plain, "each is treated as a separate type"),
            ("o b-per i-per", TagScheme::Plain, "tags `b-per`, `i-per`: not in the schemes"),
            ("O B/PER I/PER", TagScheme::Plain, "tags `B/PER`, `I/PER`: not in the schemes"),
            ("0 B-PER I-PER", TagScheme::Iob2, "tags `0`: not in the scheme"),
            ("0 PER LOC", TagScheme::Plain, "the tag `0` is the digit"),
        ] {
            let reader = TagReader::of_labels(words(labels));
            assert_eq!(reader.scheme(), scheme, "{labels}");
            assert!(reader.warnings().join("; ").contains(expected), "{labels}: {:?}", reader.warnings());
        }
        assert!(TagReader::of_labels(["0", "1", "2"]).warnings().is_empty(), "numbers are all alike");
    }

    #[test]
    fn a_file_tells_iob1_from_iob2_and_ioe1_from_ioe2() {
        for (tags, scheme) in [
            ("I-ORG O I-MISC B-MISC", TagScheme::Iob1),
            ("B-ORG O B-MISC B-MISC I-MISC", TagScheme::Iob2),
            ("O B-PER I-PER I-LOC O B-PER O I-PER O", TagScheme::Iob2),
            ("I-A E-A I-A I-A O I-B", TagScheme::Ioe1),
            ("I-A E-A E-A O I-B E-B", TagScheme::Ioe2),
            ("S-ORG O B-MISC E-MISC", TagScheme::Iobes),
        ] {
            assert_eq!(TagReader::of_sentences(&[words(tags)]).scheme(), scheme, "{tags}");
        }
    }

    #[test]
    fn tags_mark_entities_or_parts_of_speech() {
        assert!(TagReader::of_labels(["O", "PER"]).marks_entities());
        assert!(TagReader::of_labels(["B", "I"]).marks_entities());
        assert!(!TagReader::of_labels(["NOUN", "VERB"]).marks_entities());
    }
}
