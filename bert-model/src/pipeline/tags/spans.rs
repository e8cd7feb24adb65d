//! Reads the entities from the tags of a sentence.

use std::iter;

use super::notation::Role;
use super::{EntitySpan, TagReader, TagScheme};

/// A tag after parsing: its role and its type.
type Tag<'a> = (Role, &'a str);

impl TagReader {
    /// Reads the entities from a sentence's tags, in order, like CoNLL's `conlleval` and seqeval's default mode: a tag
    /// that continues nothing starts an entity, and a change of type ends one.
    pub fn entities<'a, S: AsRef<str>>(&self, tags: &'a [S]) -> Vec<EntitySpan<'a>> {
        self.spans(tags.iter().map(S::as_ref)).collect()
    }

    /// As [`TagReader::entities`], one at a time.
    pub(crate) fn spans<'a>(&self, tags: impl Iterator<Item = &'a str>) -> impl Iterator<Item = EntitySpan<'a>> {
        let mut tags = tags.map(|tag| self.read(tag)).enumerate();
        let mut previous = (Role::Outside, "");
        let mut entity: Option<EntitySpan> = None;
        iter::from_fn(move || {
            for (index, tag) in tags.by_ref() {
                let continues = matches!(tag.0, Role::Inside | Role::End)
                    && matches!(previous.0, Role::Begin | Role::Inside)
                    && tag.1 == previous.1;
                previous = tag;
                let ended = match &mut entity {
                    _ if tag.0 == Role::Outside => entity.take(),
                    Some(entity) if continues => {
                        entity.end = index + 1;
                        None
                    }
                    _ => entity.replace(EntitySpan::new(tag.1, index, index + 1)),
                };
                if ended.is_some() {
                    return ended;
                }
            }
            entity.take()
        })
    }

    /// Reads the entities whose tags follow the scheme strictly, like seqeval's strict mode. Plain tags always do.
    pub fn strict_entities<'a, S: AsRef<str>>(&self, tags: &'a [S]) -> Vec<EntitySpan<'a>> {
        let Some(rules) = Rules::of(self.scheme()) else { return self.entities(tags) };
        let outside = (Role::Outside, "");
        // An additional outside tag ends an entity at the end of the sentence.
        let tags: Vec<Tag> = tags.iter().map(|tag| self.read(tag.as_ref())).chain([outside]).collect();
        let (mut entities, mut start, mut previous) = (Vec::new(), 0, outside);
        while start < tags.len() {
            let mut end = start + 1;
            if fits(rules.starts, previous, tags[start]) {
                while end < tags.len() && fits(rules.continues, tags[end - 1], tags[end]) {
                    end += 1;
                }
                if end < tags.len() && fits(rules.ends, tags[end - 1], tags[end]) {
                    entities.push(EntitySpan::new(tags[start].1, start, end));
                }
            }
            (start, previous) = (end, tags[end - 1]);
        }
        entities
    }
}

/// How the types of two neighbors must compare.
#[derive(Clone, Copy, PartialEq)]
enum Types {
    Same,
    Different,
    Any,
}

/// The letters of two neighbors, where `*` is any letter, and how their types must compare.
type Pattern = (char, char, Types);

/// The transitions that start, continue and end an entity in strict mode (seqeval 1.2.2, `scheme.py`), in the letters
/// of IOBES.
struct Rules {
    starts: &'static [Pattern],
    continues: &'static [Pattern],
    ends: &'static [Pattern],
}

const IOB1: Rules = Rules {
    starts: &[
        ('O', 'I', Types::Any),
        ('I', 'I', Types::Different),
        ('B', 'I', Types::Any),
        ('I', 'B', Types::Same),
        ('B', 'B', Types::Same),
    ],
    continues: &[('B', 'I', Types::Same), ('I', 'I', Types::Same)],
    ends: &[
        ('I', 'I', Types::Different),
        ('I', 'O', Types::Any),
        ('I', 'B', Types::Any),
        ('B', 'O', Types::Any),
        ('B', 'I', Types::Different),
        ('B', 'B', Types::Same),
    ],
};

const IOB2: Rules = Rules {
    starts: &[('*', 'B', Types::Any)],
    continues: &[('B', 'I', Types::Same), ('I', 'I', Types::Same)],
    ends: &[
        ('I', 'O', Types::Any),
        ('I', 'I', Types::Different),
        ('I', 'B', Types::Any),
        ('B', 'O', Types::Any),
        ('B', 'I', Types::Different),
        ('B', 'B', Types::Any),
    ],
};

const IOE1: Rules = Rules {
    starts: &[('O', 'I', Types::Any), ('I', 'I', Types::Different), ('E', 'I', Types::Any), ('E', 'E', Types::Same)],
    continues: &[('I', 'I', Types::Same), ('I', 'E', Types::Same)],
    ends: &[
        ('I', 'I', Types::Different),
        ('I', 'O', Types::Any),
        ('I', 'E', Types::Different),
        ('E', 'I', Types::Same),
        ('E', 'E', Types::Same),
    ],
};

const IOE2: Rules = Rules {
    starts: &[
        ('O', 'I', Types::Any),
        ('O', 'E', Types::Any),
        ('E', 'I', Types::Any),
        ('E', 'E', Types::Any),
        ('I', 'I', Types::Different),
        ('I', 'E', Types::Different),
    ],
    continues: &[('I', 'E', Types::Same), ('I', 'I', Types::Same)],
    ends: &[('E', '*', Types::Any)],
};

const IOBES: Rules = Rules {
    starts: &[('*', 'B', Types::Any), ('*', 'S', Types::Any)],
    continues: &[('B', 'I', Types::Same), ('B', 'E', Types::Same), ('I', 'I', Types::Same), ('I', 'E', Types::Same)],
    ends: &[('S', '*', Types::Any), ('E', '*', Types::Any)],
};

impl Rules {
    /// Returns the rules of a scheme; `None` for plain tags, which have none.
    fn of(scheme: TagScheme) -> Option<&'static Self> {
        Some(match scheme {
            TagScheme::Iob1 => &IOB1,
            TagScheme::Iob2 => &IOB2,
            TagScheme::Ioe1 => &IOE1,
            TagScheme::Ioe2 => &IOE2,
            TagScheme::Iobes | TagScheme::Bilou | TagScheme::Bmes | TagScheme::Bmewo => &IOBES,
            TagScheme::Plain => return None,
        })
    }
}

fn fits(patterns: &[Pattern], previous: Tag, tag: Tag) -> bool {
    let is = |letter: char, role: Role| match letter {
        '*' => true,
        'O' => role == Role::Outside,
        letter => Role::of(letter) == Some(role),
    };
    let compares = |types: Types| types == Types::Any || (types == Types::Same) == (previous.1 == tag.1);
    patterns.iter().any(|&(before, now, types)| is(before, previous.0) && is(now, tag.0) && compares(types))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Formats entities as `PER:0-2`.
    fn shown(entities: &[EntitySpan]) -> String {
        let one = |entity: &EntitySpan| format!("{}:{}-{}", entity.kind, entity.start, entity.end);
        entities.iter().map(one).collect::<Vec<_>>().join(" ")
    }

    fn entities(text: &str) -> String {
        let tags: Vec<&str> = text.split(' ').collect();
        shown(&TagReader::of_sentences(&[&tags]).entities(&tags))
    }

    #[test]
    fn every_scheme_and_notation_marks_the_same_entities() {
        for text in [
            "I-A I-A B-A O I-B I-C",
            "B-A I-A B-A O B-B B-C",
            "I-A E-A I-A O I-B I-C",
            "I-A E-A E-A O E-B E-C",
            "B-A E-A S-A O S-B S-C",
            "B-A L-A U-A O U-B U-C",
            "B_A E_A W_A WW_O_B W_B W_C",
            "A-B A-E A-S O B-S C-S",
            "A_B A_I A_B O B_B C_B",
        ] {
            assert_eq!(entities(text), "A:0-2 A:2-3 B:4-5 C:5-6", "{text}");
        }
        assert_eq!(entities("O B-A M-A M-A E-A O"), "A:1-5", "BMES: the middle is inside");
    }

    #[test]
    fn neighbors_of_one_plain_tag_are_one_entity() {
        assert_eq!(entities("O LOC LOC PER O PER"), "LOC:1-3 PER:3-4 PER:5-6");
    }

    #[test]
    fn what_continues_nothing_starts_an_entity_unless_the_reading_is_strict() {
        let reader = TagReader::of_labels(["O", "B-A", "I-A", "B-C", "I-C"]);
        let tags = ["O", "I-A", "I-A", "B-A", "I-C"];
        assert_eq!(shown(&reader.entities(&tags)), "A:1-3 A:3-4 C:4-5");
        assert_eq!(shown(&reader.strict_entities(&tags)), "A:3-4");
    }

    #[test]
    fn a_label_of_no_scheme_is_outside() {
        let reader = TagReader::of_labels(["O", "B-A", "I-A", "X"]);
        assert_eq!(shown(&reader.entities(&["B-A", "X", "I-A"])), "A:0-1 A:2-3");
    }
}
