//! Numbers as people read them.

/// 1234567 as "1,234,567".
pub(crate) fn grouped(value: u64) -> String {
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

/// Four significant digits, without an exponent.
pub(crate) fn digits(value: f64) -> String {
    let magnitude = if value == 0.0 { 0.0 } else { value.abs().log10().floor() };
    let decimals = (3.0 - magnitude).clamp(0.0, 6.0) as usize;
    format!("{value:.decimals$}")
}

/// FLOPs with four digits and a prefix: "1.234 TFLOP".
pub(crate) fn flops(value: f64) -> String {
    let prefixes = [(1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")];
    let (unit, prefix) = prefixes.into_iter().find(|(unit, _)| value >= *unit).unwrap_or((1.0, ""));
    let scaled = value / unit;
    let decimals = match scaled {
        _ if scaled >= 100.0 => 1,
        _ if scaled >= 10.0 => 2,
        _ => 3,
    };
    format!("{scaled:.decimals$} {prefix}FLOP")
}

/// Bytes in the unit a person would use (decimal, as GPU vendors count): "151.0 MB".
pub(crate) fn bytes(value: u64) -> String {
    match value {
        0..1_000 => format!("{value} bytes"),
        1_000..1_000_000 => format!("{:.1} kB", value as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", value as f64 / 1e6),
        _ => format!("{:.1} GB", value as f64 / 1e9),
    }
}

/// Seconds as "42 s", "3.5 min" or "2.1 h".
pub(crate) fn seconds(value: f64) -> String {
    match value {
        v if v < 90.0 => format!("{v:.0} s"),
        v if v < 5400.0 => format!("{:.1} min", v / 60.0),
        v => format!("{:.1} h", v / 3600.0),
    }
}

/// A loss in nats per token.
pub(crate) fn loss(value: f64) -> String {
    format!("{value:.4}")
}

/// A difference of losses, always with its sign.
pub(crate) fn signed(value: f64) -> String {
    format!("{value:+.4}").replace('-', "\u{2212}")
}

/// Bytes as two digits each.
pub(crate) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_grouped_and_flops_have_a_prefix() {
        for (value, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (12_345_678, "12,345,678")] {
            assert_eq!(grouped(value), text);
        }
        assert_eq!(flops(1.2345e12), "1.234 TFLOP");
        assert_eq!((flops(999.0), flops(45.678e9)), ("999.0 FLOP".to_owned(), "45.68 GFLOP".to_owned()));
    }

    #[test]
    fn four_digits_are_kept() {
        for (value, text) in
            [(0.0, "0.000"), (1.0, "1.000"), (15.317, "15.32"), (12_345.6, "12346"), (0.001_234_5, "0.001234")]
        {
            assert_eq!(digits(value), text);
        }
    }

    #[test]
    fn bytes_seconds_and_losses_have_the_unit_of_a_person() {
        for (value, text) in [(999, "999 bytes"), (1_500, "1.5 kB"), (151_000_000, "151.0 MB"), (4 << 30, "4.3 GB")] {
            assert_eq!(bytes(value), text);
        }
        for (value, text) in [(61.0, "61 s"), (600.0, "10.0 min"), (7200.0, "2.0 h")] {
            assert_eq!(seconds(value), text);
        }
        assert_eq!((signed(0.5), signed(-0.25)), ("+0.5000".into(), "\u{2212}0.2500".into()));
    }
}
