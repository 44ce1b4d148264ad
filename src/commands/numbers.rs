//! Numbers of the command line: the standard library would name neither the limit nor what was meant.

use crate::config::{meant, number_remedy};

/// A whole number.
pub(super) fn whole<T: TryFrom<u64>>(text: &str) -> Result<T, String> {
    up_to(text, 0, u64::MAX)
}

/// One of at least 1.
pub(super) fn counted<T: TryFrom<u64>>(text: &str) -> Result<T, String> {
    up_to(text, 1, u64::MAX)
}

/// One that a run keeps in its settings: TOML has signed integers only.
pub(super) fn kept<T: TryFrom<u64>>(text: &str) -> Result<T, String> {
    up_to(text, 0, i64::MAX as u64)
}

fn up_to<T: TryFrom<u64>>(text: &str, least: u64, most: u64) -> Result<T, String> {
    let fits = |number: &u64| (least..=most).contains(number);
    let number = text.parse().ok().filter(fits).and_then(|number| T::try_from(number).ok());
    // 1e3 and 300.0 are numbers, but none that a count is written as.
    let written = text.parse().ok().filter(|_| !text.bytes().all(|byte| byte.is_ascii_digit()));
    let meant = meant(text).or(written).filter(|number: &f64| number.fract() == 0.0 && (0.0..1e15).contains(number));
    number.ok_or_else(|| match meant {
        Some(number) if fits(&(number as u64)) => format!("write {number:.0}"),
        _ => format!("give a whole number from {least} to {most}"),
    })
}

/// "100M", "2_000_000" or "1.5k" as a number of tokens.
pub(super) fn tokens(text: &str, most: u64) -> Result<u64, String> {
    let plain = text.replace(['_', ','], "");
    let (number, factor) = match plain.char_indices().next_back() {
        Some((at, 'k' | 'K')) => (&plain[..at], 1e3),
        Some((at, 'm' | 'M')) => (&plain[..at], 1e6),
        Some((at, 'g' | 'G' | 'b' | 'B')) => (&plain[..at], 1e9),
        Some((at, 't' | 'T')) => (&plain[..at], 1e12),
        _ => (&plain[..], 1.0),
    };
    let tokens = number.parse::<f64>().map(|number| number * factor).unwrap_or(f64::NAN);
    if (1.0..=most as f64).contains(&tokens) && tokens.fract() == 0.0 {
        return Ok(tokens as u64);
    }
    Err(format!("\"{text}\" is no number of tokens from 1 to {most}: give one such as 100M"))
}

/// Any number; what it may be is judged with the other settings.
pub(super) fn number(text: &str) -> Result<f64, String> {
    text.trim().parse().map_err(|_| number_remedy(text))
}

/// "6GB", "800 MB" or "4GiB" as bytes.
pub(super) fn bytes(text: &str) -> Result<u64, String> {
    let refuse = || format!("\"{text}\" is no amount of memory: give a number and a unit, such as 6GB, 800MB or 4GiB");
    let unit_at = text.find(|c: char| c.is_ascii_alphabetic()).ok_or_else(refuse)?;
    let (number, unit) = text.split_at(unit_at);
    let number: f64 = number.trim().parse().map_err(|_| refuse())?;
    let factor = match unit.to_ascii_lowercase().as_str() {
        "mb" => 1e6,
        "gb" => 1e9,
        "mib" => 1_048_576.0,
        "gib" => 1_073_741_824.0,
        _ => return Err(refuse()),
    };
    let amount = number * factor;
    if (1.0..1e15).contains(&amount) { Ok(amount as u64) } else { Err(refuse()) }
}

/// "300s", "5m", "1.5h" or "1h30m" in seconds.
pub(super) fn seconds(text: &str) -> Result<f64, String> {
    let refuse = || format!("\"{text}\" is no length of time: give a number and a unit, such as 300s, 5m or 1h30m");
    let (mut total, mut rest) = (0.0, text.trim());
    while !rest.is_empty() {
        let unit_at = rest.find(|c: char| c.is_ascii_alphabetic()).ok_or_else(refuse)?;
        let (number, from_unit) = rest.split_at(unit_at);
        let unit_end = from_unit.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(from_unit.len());
        let (unit, after) = from_unit.split_at(unit_end);
        let each = match unit.to_ascii_lowercase().as_str() {
            "s" | "sec" => 1.0,
            "m" | "min" => 60.0,
            "h" => 3600.0,
            "d" => 86_400.0,
            _ => return Err(refuse()),
        };
        let number: f64 = number.trim().parse().map_err(|_| refuse())?;
        total += if number >= 0.0 { number * each } else { f64::NAN };
        rest = after.trim_start();
    }
    // At most 30 years.
    if total > 0.0 && total <= 1e9 { Ok(total) } else { Err(refuse()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_of_time_has_units() {
        for (text, want) in [("60s", 60.0), ("5m", 300.0), ("1h30m", 5400.0), ("1.5h", 5400.0), ("1h 5 min", 3900.0)] {
            assert_eq!(seconds(text), Ok(want), "{text}");
        }
        for bad in ["", "60", "5x", "m", "-5m", "0s", "1h-5m", "nans", "infs", "99999999d", "5m3"] {
            assert!(seconds(bad).unwrap_err().contains("such as 300s, 5m or 1h30m"), "{bad}");
        }
    }

    #[test]
    fn numbers_of_tokens_have_units() {
        let most = u64::from(u32::MAX) / 2;
        for (text, number) in [("100M", 100_000_000), ("1", 1), ("2_000", 2000), ("1.5k", 1500), ("2B", 2_000_000_000)]
        {
            assert_eq!(tokens(text, most), Ok(number));
        }
        for bad in ["0", "-1", "1.5", "3B", "M", "", "nan", "1e400", "é"] {
            assert!(tokens(bad, most).is_err(), "{bad}");
        }
    }

    #[test]
    fn numbers_are_read_or_said_how_to_write() {
        assert_eq!((whole::<usize>("300"), number("1e-3")), (Ok(300), Ok(1e-3)));
        for (text, said) in [
            ("1e3", "write 1000"),
            ("1,000", "write 1000"),
            ("10k", "write 10000"),
            ("300.0", "write 300"),
            ("2.5", "give a whole number from 0 to 18446744073709551615"),
            ("-1", "give a whole number from 0 to 18446744073709551615"),
            ("many", "give a whole number from 0 to 18446744073709551615"),
            ("nan", "give a whole number from 0 to 18446744073709551615"),
        ] {
            assert_eq!(whole::<usize>(text), Err(said.to_owned()), "{text}");
        }
        assert_eq!(counted::<usize>("0"), Err(format!("give a whole number from 1 to {}", u64::MAX)));
        assert_eq!(number("50%"), Err("write 0.5 for 50%".to_owned()));
    }
}
