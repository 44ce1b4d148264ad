//! Text where it would be taken for something else: in HTML and SVG, in Markdown, in a path; and JSON lines.

use crate::error::{Error, Result};
use serde::Serialize;

/// Text for HTML and SVG, also inside attributes. Control characters, which neither may hold, are marked.
pub(crate) fn html(text: &str) -> String {
    let marked = |c: char| if c.is_control() && !matches!(c, '\n' | '\t') { '\u{fffd}' } else { c };
    let text: String = text.chars().map(marked).collect();
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// Text for Markdown, which takes some characters for markup.
pub(crate) fn markdown(text: &str) -> String {
    let is_markup = |c: char| matches!(c, '*' | '_' | '`' | '<' | '[' | '\\' | '#');
    text.chars().flat_map(|c| is_markup(c).then_some('\\').into_iter().chain([c])).collect()
}

/// Text for a cell of a Markdown table, whose markup is left as it is.
pub(crate) fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}

/// A name as part of a path or an identifier: lower-case letters and digits of any script, with dashes for the rest.
pub(crate) fn slug(name: &str) -> String {
    let plain: String = name.to_lowercase().chars().map(|c| if c.is_alphanumeric() { c } else { '-' }).collect();
    plain.split('-').filter(|part| !part.is_empty()).collect::<Vec<_>>().join("-")
}

/// As much of a text as `most` characters hold, `mark` at its end where it was longer.
pub(crate) fn clipped(text: &str, most: usize, mark: &str) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    let kept = most.saturating_sub(mark.chars().count());
    text.chars().take(kept).chain(mark.chars()).collect()
}

/// JSON lines: one value a line.
///
/// # Errors
/// None that can be met: no value of this program is one that JSON cannot hold.
pub(crate) fn json_lines<T: Serialize>(values: &[T]) -> Result<String> {
    let line = |value| serde_json::to_string(value).map(|text| text + "\n");
    values.iter().map(line).collect::<Result<_, _>>().map_err(|cause| Error::defect(format!("no JSON: {cause}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markup_is_text() {
        assert_eq!(html("<a b=\"c\">&"), "&lt;a b=&quot;c&quot;&gt;&amp;");
        assert_eq!(html("a\n\tb\u{1b}\0\r"), "a\n\tb\u{fffd}\u{fffd}\u{fffd}");
        assert_eq!(markdown("a_b*c|[d]"), "a\\_b\\*c|\\[d]");
        assert_eq!(cell("a|b\nc_d"), "a\\|b c_d");
    }

    #[test]
    fn names_become_parts_of_paths() {
        assert_eq!(slug("Transformer, stacked (x2)!"), "transformer-stacked-x2");
        assert_eq!(slug("--"), "");
        assert_eq!((slug("基线 (x2)").as_str(), slug("Größe").as_str()), ("基线-x2", "größe"));
    }

    #[test]
    fn long_text_is_clipped_with_a_mark() {
        assert_eq!((clipped("abcdef", 6, "..."), clipped("abcdefg", 6, "...")), ("abcdef".into(), "abc...".into()));
        assert_eq!(
            (clipped("\u{e9}abc", 3, "\u{2026}"), clipped("ab", 0, "\u{2026}")),
            ("\u{e9}a\u{2026}".into(), "\u{2026}".into())
        );
    }

    #[test]
    fn json_lines_are_one_value_each() {
        assert_eq!(json_lines(&["a\nb", "c"]).unwrap(), "\"a\\nb\"\n\"c\"\n");
        assert_eq!(json_lines::<u8>(&[]).unwrap(), "");
    }
}
