//! Escapes arbitrary text to HTML that displays it and has no other effect.
//!
//! A corpus may contain `<script>`, control characters and right-to-left text. All external text
//! goes through [`escape`]; within a line it is also wrapped in `<bdi>`, to contain its direction.

use super::scale::grouped;

/// Maximum number of code points shown of one text; a line of a corpus may be a whole book.
const LONGEST_TEXT: usize = 3_000;
/// Number of code points shown before the rest of a text is folded.
const FOLDED_AFTER: usize = 400;

/// Escapes `text` for the content of an element or of a quoted attribute.
///
/// Control characters become their symbols (`␀`, `␛`), since HTML forbids some and shows none.
pub(super) fn escape(text: &str) -> String {
    let mut html = String::with_capacity(text.len() + text.len() / 8);
    for character in text.chars() {
        match character {
            '&' => html.push_str("&amp;"),
            '<' => html.push_str("&lt;"),
            '>' => html.push_str("&gt;"),
            '"' => html.push_str("&quot;"),
            '\'' => html.push_str("&#39;"),
            '\n' | '\t' => html.push(character),
            '\0'..='\u{1f}' => html.push(char::from_u32(0x2400 + u32::from(character)).unwrap_or('\u{fffd}')),
            '\u{7f}' => html.push('\u{2421}'),
            '\u{80}'..='\u{9f}' => html.push('\u{fffd}'),
            _ => html.push(character),
        }
    }
    html
}

/// Escapes `text` for use within a line of other text.
pub(super) fn inline(text: &str) -> String {
    format!("<bdi>{}</bdi>", escape(text))
}

/// Formats `text` as a paragraph; a long one is folded after its beginning, a very long one
/// truncated.
pub(super) fn paragraph(text: &str) -> String {
    let html = |text: &str| format!("<p class=\"text\" dir=\"auto\">{}</p>\n", escape(text));
    let after = |characters: usize| text.char_indices().nth(characters).map(|(at, _)| at);
    // Folding away a line or two is not worth a click.
    let (Some(fold), Some(_)) = (after(FOLDED_AFTER), after(FOLDED_AFTER * 3 / 2)) else { return html(text) };
    // Prefer to fold between words; some scripts have no spaces.
    let gap = text[..fold].rfind(char::is_whitespace).filter(|gap| *gap * 2 > fold);
    let (beginning, rest) = text.split_at(gap.unwrap_or(fold));
    let end = after(LONGEST_TEXT).map_or(rest.len(), |end| end - beginning.len());
    let left_out = match rest[end..].chars().count() {
        0 => String::new(),
        count => format!("<p class=\"aside\">… and {} more characters</p>\n", grouped(&count.to_string())),
    };
    format!(
        "{}<details class=\"rest\"><summary>{} more characters</summary>\n{}{left_out}</details>\n",
        html(&format!("{beginning} …")),
        grouped(&rest.chars().count().to_string()),
        html(rest[..end].trim_start()),
    )
}

/// Formats a list of which the first `shown` items are visible and the rest folded.
pub(super) fn folded_list(items: &[String], shown: usize) -> String {
    // Folding away one or two items is not worth a click.
    let shown = if items.len() <= shown + 2 { items.len() } else { shown };
    let list = |items: &[String]| format!("<ul class=\"items\">\n{}</ul>\n", items.concat());
    let (first, rest) = items.split_at(shown);
    if items.is_empty() {
        "<p class=\"aside\">None.</p>\n".into()
    } else if rest.is_empty() {
        list(first)
    } else {
        format!("{}<details><summary>{} more</summary>\n{}</details>\n", list(first), rest.len(), list(rest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markup_is_escaped() {
        assert_eq!(
            escape("<script>alert('a & \"b\"')</script>"),
            "&lt;script&gt;alert(&#39;a &amp; &quot;b&quot;&#39;)&lt;/script&gt;"
        );
    }

    #[test]
    fn control_characters_become_visible() {
        assert_eq!(escape("a\0b\u{1b}[0m\r\n\t\u{7f}\u{85}"), "a␀b␛[0m␍\n\t␡\u{fffd}");
    }

    #[test]
    fn other_scripts_stay_and_are_isolated() {
        assert_eq!(inline("\u{202e}שלום 漢字 👩‍🚀"), "<bdi>\u{202e}שלום 漢字 👩‍🚀</bdi>");
    }

    #[test]
    fn long_texts_are_folded_and_cut_between_code_points() {
        let html = paragraph(&"é".repeat(LONGEST_TEXT + 7));
        assert_eq!(html.matches('é').count(), LONGEST_TEXT);
        assert!(html.contains("and 7 more characters"), "{html}");
        let html = paragraph(&"été ".repeat(300));
        assert_eq!(html.matches("été").count(), 300);
        assert!(html.contains("été …</p>") && html.contains("801 more characters</summary>"), "{html}");
        assert!(!paragraph(&"é".repeat(FOLDED_AFTER + 100)).contains("details"));
    }

    #[test]
    fn lists_fold_only_what_is_worth_it() {
        let items = vec!["<li></li>".to_string(); 12];
        assert!(!folded_list(&items, 10).contains("details"));
        assert!(folded_list(&items, 9).contains("3 more"));
        assert!(folded_list(&[], 9).contains("None."));
    }
}
