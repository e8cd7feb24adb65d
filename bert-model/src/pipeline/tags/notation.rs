//! The notation of tags: how a letter and a type are written.

/// What the letter of a tag says about its word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// The word is in no entity.
    Outside,
    /// The word starts an entity: `B`.
    Begin,
    /// The word continues an entity: `I` or `M`.
    Inside,
    /// The word ends an entity: `E` or `L`.
    End,
    /// The word is an entity by itself: `S`, `U` or `W`.
    Single,
}

impl Role {
    /// The role of a letter, which is the same in all schemes that use it.
    pub fn of(letter: char) -> Option<Self> {
        Some(match letter {
            'B' => Self::Begin,
            'I' | 'M' => Self::Inside,
            'E' | 'L' => Self::End,
            'S' | 'U' | 'W' => Self::Single,
            _ => return None,
        })
    }
}

/// The position of the letter in a tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Notation {
    /// `B-PER`, with this separator.
    First(char),
    /// `PER-B`, with this separator.
    Last(char),
    /// `B`: the tags have no types.
    Alone,
}

/// All notations; if several of them read a set of labels equally well, the first one is used.
pub(super) const NOTATIONS: [Notation; 5] =
    [Notation::First('-'), Notation::First('_'), Notation::Last('-'), Notation::Last('_'), Notation::Alone];

impl Notation {
    /// Splits a tag into letter and type; `None` if the tag is not in this notation. The type may contain the
    /// separator.
    pub fn parse(self, tag: &str) -> Option<(char, &str)> {
        let (letter, kind) = match self {
            Self::First(separator) => tag.split_once(separator)?,
            Self::Last(separator) => {
                let (kind, letter) = tag.rsplit_once(separator)?;
                (letter, kind)
            }
            Self::Alone => (tag, ""),
        };
        let letter = only_character(letter).filter(|&letter| Role::of(letter).is_some())?;
        (kind.is_empty() == (self == Self::Alone)).then_some((letter, kind))
    }
}

/// Whether a tag is outside of any entity: `O`, or one of BMEWO+'s tags such as `BB_O_PER`.
pub(super) fn is_outside(tag: &str) -> bool {
    let mut parts = tag.split(['-', '_']);
    let (first, second) = (parts.next().unwrap_or_default(), parts.next());
    tag == "O" || (matches!(first, "BB" | "MM" | "EE" | "WW") && second == Some("O"))
}

/// Whether the part of a tag before its first separator or after its last one is a single letter, so that the tag may
/// be meant to follow a scheme.
pub(super) fn is_like_a_scheme(tag: &str) -> bool {
    let is_separator = |character: char| "-_:./|".contains(character);
    let is_letter = |part: &str| only_character(part).is_some_and(char::is_alphabetic);
    let parts = (tag.split_once(is_separator), tag.rsplit_once(is_separator));
    matches!(parts, (Some((first, rest)), Some((front, last)))
        if !rest.is_empty() && !front.is_empty() && (is_letter(first) || is_letter(last)))
}

fn only_character(text: &str) -> Option<char> {
    let mut characters = text.chars();
    characters.next().filter(|_| characters.next().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_a_letter_and_a_type_in_either_order() {
        for (notation, tag, expected) in [
            (Notation::First('-'), "B-PER", Some(('B', "PER"))),
            (Notation::First('-'), "I-work-of-art", Some(('I', "work-of-art"))),
            (Notation::First('_'), "B_PER", Some(('B', "PER"))),
            (Notation::First('-'), "B_PER", None),
            (Notation::Last('-'), "work-of-art-E", Some(('E', "work-of-art"))),
            (Notation::Last('_'), "PER_S", Some(('S', "PER"))),
            (Notation::Alone, "B", Some(('B', ""))),
            (Notation::First('-'), "B-", None),
            (Notation::First('-'), "-LRB-", None),
            (Notation::First('-'), "X-PER", None),
            (Notation::First('-'), "", None),
        ] {
            assert_eq!(notation.parse(tag), expected, "{tag}");
        }
    }

    #[test]
    fn bmewo_plus_has_several_tags_for_words_outside() {
        for (tag, outside) in [("O", true), ("BB_O_PER", true), ("MM_O", true), ("WW-O-LOC", true), ("B_O", false)] {
            assert_eq!(is_outside(tag), outside, "{tag}");
        }
    }

    #[test]
    fn one_letter_beside_a_separator_looks_like_a_scheme() {
        for (tag, looks) in
            [("b-per", true), ("PER/B", true), ("LABEL_0", false), ("-LRB-", false), ("NN-TL", false), ("NOUN", false)]
        {
            assert_eq!(is_like_a_scheme(tag), looks, "{tag}");
        }
    }
}
