//! What a number means that is spelled as in a table, a spreadsheet or another language.

/// No number is written longer.
const LONGEST: usize = 40;

/// The number that `text` seems to mean where it is none itself: `0,8`, `50%`, `1e-3f`, `10k`.
pub(crate) fn meant(text: &str) -> Option<f64> {
    let text = text.trim();
    if text.len() > LONGEST {
        return None;
    }
    let (digits, factor) = match text.strip_suffix('%') {
        Some(percent) => (percent.trim_end(), 0.01),
        None => match text.char_indices().next_back() {
            Some((at, 'k' | 'K')) => (text.get(..at)?, 1e3),
            Some((at, 'm' | 'M')) => (text.get(..at)?, 1e6),
            Some((at, 'f' | 'F' | 'd' | 'D')) => (text.get(..at)?, 1.0),
            _ => (text, 1.0),
        },
    };
    let plain = digits.replace(['_', '\''], "");
    // Groups of three after the first are thousands, one comma alone is a decimal point.
    let mut groups = plain.split(',');
    let first = groups.next().unwrap_or_default();
    let grouped = !first.is_empty() && first.len() <= 3 && first != "0" && plain.contains(',');
    let plain = if grouped && groups.all(|group| group.len() == 3) {
        plain.replace(',', "")
    } else {
        plain.replacen(',', ".", 1)
    };
    let number: f64 = plain.parse().ok()?;
    // 50 x 0.01 has no digits that nobody wrote.
    let scaled: f64 = format!("{:.12}", number * factor).parse().ok()?;
    let scaled = if factor == 1.0 { number } else { scaled };
    (scaled.is_finite() && text.parse::<f64>().is_err()).then_some(scaled)
}

/// "write 0.8 for it", or what a number looks like.
pub(crate) fn remedy(text: &str) -> String {
    match meant(text) {
        Some(number) => format!("write {} for {}", plain(number), text.trim()),
        None => "give a number such as 0.8".to_owned(),
    }
}

/// As a person writes it.
fn plain(number: f64) -> String {
    if number != 0.0 && !(1e-4..1e15).contains(&number.abs()) { format!("{number:e}") } else { format!("{number}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_other_places_are_understood() {
        for (text, said) in [
            ("0,001", "write 0.001 for 0,001"),
            ("0,8", "write 0.8 for 0,8"),
            ("50%", "write 0.5 for 50%"),
            ("12,5 %", "write 0.125 for 12,5 %"),
            ("1e-3f", "write 0.001 for 1e-3f"),
            ("1e-5f", "write 1e-5 for 1e-5f"),
            ("10k", "write 10000 for 10k"),
            ("1,000", "write 1000 for 1,000"),
            ("1_000", "write 1000 for 1_000"),
            ("1,000,000", "write 1000000 for 1,000,000"),
            ("fast", "give a number such as 0.8"),
            ("", "give a number such as 0.8"),
            (",", "give a number such as 0.8"),
            ("%", "give a number such as 0.8"),
            ("é", "give a number such as 0.8"),
        ] {
            assert_eq!(remedy(text), said, "{text}");
        }
    }
}
