//! Numbers and names as people read them.

use super::budget::Axis;

/// 1234567 as "1,234,567".
pub fn whole(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// FLOPs with four digits and a prefix: "1.234 TFLOP".
pub fn flops(value: f64) -> String {
    let prefixes = [(1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")];
    let (unit, prefix) = prefixes.into_iter().find(|(unit, _)| value >= *unit).unwrap_or((1.0, ""));
    let scaled = value / unit;
    let decimals = if scaled >= 100.0 {
        1
    } else if scaled >= 10.0 {
        2
    } else {
        3
    };
    format!("{scaled:.decimals$} {prefix}FLOP")
}

/// A position on an axis with its unit.
pub fn amount(axis: Axis, value: f64) -> String {
    match axis {
        Axis::Tokens => format!("{} tokens", whole(value as u64)),
        Axis::Flops | Axis::MarginalFlops => flops(value),
    }
}

/// Seconds as "42 s", "3.5 min" or "2.1 h".
pub fn seconds(value: f64) -> String {
    match value {
        v if v < 90.0 => format!("{v:.0} s"),
        v if v < 5400.0 => format!("{:.1} min", v / 60.0),
        v => format!("{:.1} h", v / 3600.0),
    }
}

/// A loss.
pub fn loss(value: f64) -> String {
    format!("{value:.4}")
}

/// A difference of losses, always with its sign.
pub fn signed(value: f64) -> String {
    format!("{value:+.4}").replace('-', "\u{2212}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_and_prefixed() {
        assert_eq!(
            ["0", "999", "1,000", "12,345,678"],
            [0, 999, 1000, 12_345_678].map(whole).map(|t| t.leak() as &str)
        );
        assert_eq!(flops(1.2345e12), "1.234 TFLOP");
        assert_eq!((flops(999.0), flops(45.678e9)), ("999.0 FLOP".to_owned(), "45.68 GFLOP".to_owned()));
        assert_eq!(
            (seconds(61.0), seconds(600.0), seconds(7200.0)),
            ("61 s".into(), "10.0 min".into(), "2.0 h".into())
        );
        assert_eq!((signed(0.5), signed(-0.25)), ("+0.5000".into(), "\u{2212}0.2500".into()));
    }
}
