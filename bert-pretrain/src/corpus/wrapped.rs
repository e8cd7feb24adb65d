//! Hard-wrapped text, like the books of Project Gutenberg: paragraphs broken into lines of about the same width, with
//! an empty line between paragraphs. Such lines end within sentences, so they must be joined before they are split into
//! sentences.
//!
//! [`Wrapping`] decides whether a file is hard-wrapped, and [`join`] joins two lines.

/// Number of lines of a file that the decision is based on.
pub(super) const LINES_READ: usize = 2000;

/// Minimum number of pairs of adjacent lines needed for a decision.
const FEWEST_PAIRS: usize = 10;

/// Widths of hard-wrapped text, in characters. Narrower lines are lists or verse, and wider ones are paragraphs.
const WIDTHS: std::ops::RangeInclusive<usize> = 40..=120;

/// Statistics of adjacent lines, which determine whether a text is hard-wrapped. A text is hard-wrapped if, among the
/// lines that are directly followed by another nonempty line,
///
/// - the widest (ignoring the top fiftieth) has 40 to 120 characters,
/// - at least 75 % are full: appending the next line's first word would make them wider than 85 % of that,
/// - at most 40 % end with a full stop, a question mark or the like,
/// - and at least 40 % continue with a lowercase letter, or in a script without case.
#[derive(Debug, Default)]
pub(super) struct Wrapping {
    pairs: Vec<Pair>,
    /// Width of the previous line, and whether it ends a sentence; `None` after an empty line.
    previous: Option<(usize, bool)>,
    lines: usize,
}

/// Two adjacent lines.
#[derive(Debug)]
struct Pair {
    width: usize,
    ends_sentence: bool,
    /// Length of the second line's first word.
    next_word: usize,
    /// Whether the second line begins with a lowercase letter or a letter of a script without case.
    continues: bool,
}

impl Wrapping {
    /// Adds the next line of a document; returns whether more lines are needed.
    pub(super) fn add(&mut self, line: &str) -> bool {
        let line = line.trim();
        let Some(word) = line.split_whitespace().next() else {
            self.end_paragraph();
            return true;
        };
        if let Some((width, ends_sentence)) = self.previous {
            let continues =
                line.chars().find(|character| character.is_alphanumeric()).is_some_and(|c| !c.is_uppercase());
            self.pairs.push(Pair { width, ends_sentence, next_word: word.chars().count(), continues });
        }
        self.previous = Some((line.chars().count(), ends_sentence(line)));
        self.lines += 1;
        self.lines < LINES_READ
    }

    /// Marks the end of a paragraph: the next line is not adjacent to the last one.
    pub(super) fn end_paragraph(&mut self) {
        self.previous = None;
    }

    /// Whether the lines added so far are hard-wrapped.
    pub(super) fn is_wrapped(&self) -> bool {
        if self.pairs.len() < FEWEST_PAIRS {
            return false;
        }
        let mut widths: Vec<usize> = self.pairs.iter().map(|pair| pair.width).collect();
        widths.sort_unstable();
        let widest = widths[(widths.len() - 1) * 49 / 50];
        let share = |is: &dyn Fn(&Pair) -> bool| {
            self.pairs.iter().filter(|pair| is(pair)).count() as f64 / self.pairs.len() as f64
        };
        WIDTHS.contains(&widest)
            && share(&|pair| (pair.width + 1 + pair.next_word) as f64 > 0.85 * widest as f64) >= 0.75
            && share(&|pair| pair.ends_sentence) <= 0.4
            && share(&|pair| pair.continues) >= 0.4
    }
}

/// Whether a line ends with the end of a sentence, ignoring closing quotes and brackets.
fn ends_sentence(line: &str) -> bool {
    let is_closing =
        |character: char| matches!(character, '"' | '\'' | '”' | '’' | '»' | ')' | ']' | '」' | '』' | '_');
    line.trim_end_matches(is_closing).ends_with(['.', '!', '?', '…', ':', '。', '！', '？', '।', '؟'])
}

/// Appends the next line to a paragraph, with a space in between unless the line breaks at a hyphen or dash.
pub(super) fn join(paragraph: &mut String, line: &str) {
    let line = line.trim();
    if !paragraph.is_empty() && !paragraph.ends_with(['-', '—', '\u{ad}']) {
        paragraph.push(' ');
    }
    paragraph.push_str(line);
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROSE: &str = "It is a truth universally acknowledged, that a single man in possession of a good fortune, must be \
        in want of a wife. However little known the feelings or views of such a man may be on his first entering a \
        neighbourhood, this truth is so well fixed in the minds of the surrounding families, that he is considered as the \
        rightful property of some one or other of their daughters. \"My dear Mr. Bennet,\" said his lady to him one day, \
        \"have you heard that Netherfield Park is let at last?\" Mr. Bennet replied that he had not. ";

    /// Breaks text into lines of at most `width` characters, as a typewriter would.
    fn wrap(text: &str, width: usize) -> String {
        let mut lines = vec![String::new()];
        for word in text.split_whitespace() {
            let line = lines.last_mut().unwrap();
            if line.is_empty() {
                line.push_str(word);
            } else if line.len() + 1 + word.len() <= width {
                *line += &format!(" {word}");
            } else {
                lines.push(word.into());
            }
        }
        lines.join("\n")
    }

    fn is_wrapped(text: &str) -> bool {
        let mut wrapping = Wrapping::default();
        text.lines().all(|line| wrapping.add(line));
        wrapping.is_wrapped()
    }

    #[test]
    fn lines_that_are_full_and_end_within_sentences_are_wrapped() {
        let dialogue = "\"I do not,\" said he.\n\n\"Nor I.\"\n\n";
        for width in [55, 65, 72, 80, 100] {
            let paragraph = wrap(&PROSE.repeat(3), width);
            assert!(is_wrapped(&format!("CHAPTER I\n\n{paragraph}\n\n{dialogue}{paragraph}\n")), "{width}");
        }
    }

    #[test]
    fn sentences_paragraphs_headlines_lists_and_small_letters_are_not() {
        let sentences = PROSE.repeat(9).replace(". ", ".\n").replace("? ", "?\n");
        let plain: String = sentences.to_lowercase().chars().filter(|c| !c.is_ascii_punctuation()).collect();
        let headlines = "Stocks Fall Sharply as Oil Prices Rise for the Third Day\nMayor Opens New Bridge over the River\n\
            Scientists Find Water under the Surface of the Moon\nTeam Wins Cup\n";
        for text in [
            sentences,
            plain,
            headlines.repeat(9),
            format!("{PROSE}\n").repeat(30),
            format!("{PROSE}\n\n").repeat(30),
            "abandon\nability\nable\nabout\nabove\n".repeat(20),
            crate::sample::corpus(60, 1),
        ] {
            assert!(!is_wrapped(&text), "{text}");
        }
    }

    #[test]
    fn a_few_lines_decide_nothing() {
        assert!(!is_wrapped(&wrap(PROSE, 72)));
    }

    #[test]
    fn lines_are_joined_by_a_space_except_at_a_hyphen_or_dash() {
        let joined = |lines: &[&str]| {
            let mut paragraph = String::new();
            lines.iter().for_each(|line| join(&mut paragraph, line));
            paragraph
        };
        assert_eq!(
            joined(&["  It was a well-", "known fact,", "and--", "yes--true. "]),
            "It was a well-known fact, and--yes--true."
        );
    }
}
