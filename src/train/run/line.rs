//! A run's numbers as one line of so many columns: pure, for terminals of any width and for logs.
//!
//! Where a line is narrow the numbers of least importance go first. What stays is whole: a number that is cut off would be
//! another number.

use crate::config::TrainConfig;
use std::fmt::Write;

/// The latest numbers of a run.
#[derive(Debug, Clone, Default)]
pub(super) struct Numbers {
    /// Steps done.
    pub step: u64,
    /// Steps in all.
    pub steps: u64,
    /// Whether a step was taken, so that its numbers are known.
    pub is_measured: bool,
    /// Training loss, nats per token.
    pub loss: f64,
    /// The loss is not finite, or far above those before it.
    pub is_diverging: bool,
    /// Validation loss, once measured.
    pub val_loss: Option<f64>,
    /// Validation loss on the data that the model knew before.
    pub old_val_loss: Option<f64>,
    /// Learning rate of the last step.
    pub lr: f64,
    /// Gradient norm before clipping.
    pub grad_norm: f64,
    /// Time of a step alone, once two are done.
    pub speed: Option<Speed>,
    /// Seconds that are left, at the pace so far.
    pub seconds_left: Option<f64>,
    /// Device memory, in words.
    pub memory: String,
}

/// How fast steps are, without evaluations, samples and checkpoints between them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Speed {
    /// Of one step.
    pub seconds: f64,
    /// Tokens a second.
    pub tokens: f64,
    /// Share of the most multiply-adds that were measured on this device, where they were.
    pub peak_percent: Option<f64>,
}

/// Columns of the bar.
const LEAST_BAR: usize = 6;
const MOST_BAR: usize = 24;
/// What is more important than a bar: see [`fields`].
const ABOVE_BAR: usize = 7;

/// The line for a terminal: a bar and the numbers, in at most `columns`. `alarm` dresses a loss that is diverging.
pub(super) fn drawn(n: &Numbers, columns: usize, alarm: impl Fn(&str) -> String) -> String {
    let position = position(n, columns);
    let fields = fields(n);
    let (important, others): (Vec<_>, Vec<_>) = fields.iter().partition(|field| field.rank < ABOVE_BAR);
    let mut left = columns - position.len();
    let mut shown = fitting(&important, &mut left);
    // The bar, its brackets and a space.
    let bar = (!position.is_empty() && left > LEAST_BAR).then_some(LEAST_BAR);
    left -= bar.map_or(0, |bar| bar + 1);
    shown.extend(fitting(&others, &mut left));
    let mut line = bar.map_or_else(String::new, |bar| format!("{} ", self::bar(n, (bar + left).min(MOST_BAR))));
    line.push_str(&position);
    write_fields(&mut line, &fields, &shown, n.is_diverging.then_some(&alarm));
    line
}

/// The line for a log or a terminal that draws nothing, in at most `columns` where there are any.
pub(super) fn plain(n: &Numbers, columns: Option<usize>, alarm: impl Fn(&str) -> String) -> String {
    const HEAD: &str = "step ";
    let columns = columns.unwrap_or(usize::MAX);
    let position = position(n, columns.saturating_sub(HEAD.len()));
    let fields = fields(n);
    let mut left = columns.saturating_sub(HEAD.len() + position.len());
    let shown = fitting(&fields.iter().collect::<Vec<_>>(), &mut left);
    let mut line = format!("{HEAD}{position}");
    line.truncate(columns);
    write_fields(&mut line, &fields, &shown, n.is_diverging.then_some(&alarm));
    line
}

/// A number with its name.
struct Field {
    text: String,
    /// 0 is the most important.
    rank: usize,
    is_loss: bool,
}

/// In the order shown.
fn fields(n: &Numbers) -> Vec<Field> {
    let speed = n.speed.as_ref();
    let all = [
        (0, n.is_measured.then(|| format!("loss {}", loss(n.loss)))),
        (2, n.val_loss.map(|val| format!("val {}", loss(val)))),
        (6, n.old_val_loss.map(|old| format!("old {}", loss(old)))),
        (8, n.is_measured.then(|| format!("lr {:.2e}", n.lr))),
        (9, n.is_measured.then(|| format!("norm {:.2}", n.grad_norm))),
        (3, speed.map(|speed| format!("{} tok/s", count(speed.tokens)))),
        (4, speed.map(|speed| duration(speed.seconds))),
        (5, speed.and_then(|speed| speed.peak_percent).map(|percent| format!("{}% peak", share(percent)))),
        (10, Some(n.memory.clone()).filter(|memory| !memory.is_empty())),
        (1, n.seconds_left.map(|left| format!("eta {}", clock(left)))),
    ];
    let field = |(rank, text): (usize, Option<String>)| Some(Field { text: text?, rank, is_loss: rank == 0 });
    all.into_iter().filter_map(field).collect()
}

/// "12/2000", or "12" where it is not known how many there will be.
pub(super) fn of(step: u64, steps: u64) -> String {
    if steps == TrainConfig::NO_LIMIT as u64 { step.to_string() } else { format!("{step}/{steps}") }
}

/// "12/2000" or, where the loss would not fit beside it, "12".
fn position(n: &Numbers, columns: usize) -> String {
    let (long, short) = (of(n.step, n.steps), n.step.to_string());
    let beside = " loss ".len() + loss(n.loss).len();
    let fits = |text: &String, more: usize| text.len() + more <= columns;
    [(&long, beside), (&short, beside), (&long, 0), (&short, 0)]
        .into_iter()
        .find(|(text, more)| fits(text, *more))
        .map_or_else(String::new, |(text, _)| text.clone())
}

/// The ranks of those that fit into what is `left`, each with a space before it: none is shown where one above it is not.
fn fitting(fields: &[&Field], left: &mut usize) -> Vec<usize> {
    let mut by_rank: Vec<&&Field> = fields.iter().collect();
    by_rank.sort_by_key(|field| field.rank);
    let mut shown = Vec::new();
    for field in by_rank {
        let Some(rest) = left.checked_sub(field.text.len() + 1) else { break };
        *left = rest;
        shown.push(field.rank);
    }
    shown
}

fn write_fields(line: &mut String, fields: &[Field], shown: &[usize], alarm: Option<&impl Fn(&str) -> String>) {
    for Field { text, is_loss, .. } in fields.iter().filter(|field| shown.contains(&field.rank)) {
        let dressed = alarm.filter(|_| *is_loss).map(|alarm| alarm(text));
        let _ = write!(line, " {}", dressed.as_deref().unwrap_or(text));
    }
}

/// "[====>     ]".
fn bar(n: &Numbers, columns: usize) -> String {
    let inside = columns.saturating_sub(2);
    let done = (n.step as f64 / n.steps.max(1) as f64 * inside as f64) as usize;
    let head = if done < inside { ">" } else { "" };
    format!("[{:<inside$}]", "=".repeat(done.min(inside)) + head)
}

/// Four decimals, unless they would be a long number.
fn loss(value: f64) -> String {
    if value.is_finite() && value.abs() >= 1e5 { format!("{value:.2e}") } else { format!("{value:.4}") }
}

/// "850", "12.3k" or "4.56M".
fn count(value: f64) -> String {
    match value {
        v if v < 9999.5 => format!("{v:.0}"),
        v if v < 999_950.0 => format!("{:.1}k", v / 1e3),
        v => format!("{:.2}M", v / 1e6),
    }
}

/// "0.4" or "38".
fn share(percent: f64) -> String {
    if percent < 9.95 { format!("{percent:.1}") } else { format!("{percent:.0}") }
}

/// Of a step: "0.9 ms", "45 ms" or "1.25 s".
fn duration(seconds: f64) -> String {
    match seconds {
        s if s < 9.95e-3 => format!("{:.1} ms", s * 1e3),
        s if s < 0.9995 => format!("{:.0} ms", s * 1e3),
        s => format!("{s:.2} s"),
    }
}

/// Of what is left: "9s", "1m20s", "2h05m" or "3d04h".
fn clock(seconds: f64) -> String {
    // At most 30 years, so that a pace of nearly nothing keeps its line short.
    let s = seconds.clamp(0.0, 1e9).round() as u64;
    match s {
        0..60 => format!("{s}s"),
        60..3600 => format!("{}m{:02}s", s / 60, s % 60),
        3600..86_400 => format!("{}h{:02}m", s / 3600, s / 60 % 60),
        _ => format!("{}d{:02}h", s / 86_400, s / 3600 % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers() -> Numbers {
        Numbers {
            step: 1200,
            steps: 20_000,
            is_measured: true,
            loss: 3.123_45,
            val_loss: Some(3.25),
            lr: 1e-3,
            grad_norm: 0.5,
            speed: Some(Speed { seconds: 0.0452, tokens: 12_345.0, peak_percent: Some(38.4) }),
            seconds_left: Some(80.0),
            memory: "1.2 GB".to_owned(),
            ..Numbers::default()
        }
    }

    fn at(columns: usize) -> String {
        drawn(&numbers(), columns, str::to_owned)
    }

    #[test]
    fn a_terminal_of_80_columns_has_a_bar_and_what_matters() {
        assert_eq!(at(77), "[>   ] 1200/20000 loss 3.1235 val 3.2500 12.3k tok/s 45 ms 38% peak eta 1m20s");
    }

    #[test]
    fn numbers_go_by_importance_where_a_line_is_narrow() {
        assert_eq!(at(19), "1200 loss 3.1235");
        assert_eq!(at(33), "1200/20000 loss 3.1235 eta 1m20s");
        assert_eq!((at(9), at(4), at(3), at(0)), ("1200".to_owned(), "1200".to_owned(), String::new(), String::new()));
        let wide = at(199);
        for said in ["lr 1.00e-3", "norm 0.50", "1.2 GB"] {
            assert!(wide.contains(said), "{wide}");
        }
    }

    #[test]
    fn no_line_is_longer_than_its_columns() {
        let far = Numbers {
            step: u64::MAX,
            steps: u64::MAX,
            loss: f64::MAX,
            val_loss: Some(f64::NAN),
            old_val_loss: Some(f64::INFINITY),
            lr: f64::MIN_POSITIVE,
            speed: Some(Speed { seconds: 1e9, tokens: 1e15, peak_percent: None }),
            seconds_left: Some(f64::INFINITY),
            ..numbers()
        };
        for n in [numbers(), far, Numbers::default()] {
            for columns in 0..300 {
                let line = drawn(&n, columns, str::to_owned);
                assert!(line.len() <= columns && !line.ends_with(' '), "{columns}: {line:?}");
                let line = plain(&n, Some(columns), str::to_owned);
                assert!(line.len() <= columns, "{columns}: {line:?}");
            }
        }
    }

    #[test]
    fn a_log_has_everything() {
        let said =
            "step 1200/20000 loss 3.1235 val 3.2500 lr 1.00e-3 norm 0.50 12.3k tok/s 45 ms 38% peak 1.2 GB eta 1m20s";
        assert_eq!(plain(&numbers(), None, str::to_owned), said);
        assert_eq!(plain(&numbers(), Some(40), str::to_owned), "step 1200/20000 loss 3.1235 eta 1m20s");
    }

    #[test]
    fn only_a_diverging_loss_alarms() {
        let alarm = |text: &str| format!("<{text}>");
        let bad = Numbers { loss: f64::NAN, is_diverging: true, ..numbers() };
        assert!(drawn(&bad, 79, alarm).contains(" <loss NaN> ") && plain(&bad, None, alarm).contains(" <loss NaN> "));
        assert!(!drawn(&numbers(), 79, alarm).contains('<'));
    }

    #[test]
    fn a_bar_fills_up() {
        let bar = |step| bar(&Numbers { step, steps: 4, ..Numbers::default() }, 10);
        assert_eq!([bar(0), bar(2), bar(4), bar(9)], ["[>       ]", "[====>   ]", "[========]", "[========]"]);
    }

    #[test]
    fn units_are_those_of_a_person() {
        assert_eq!([9999.0, 10_000.0, 999_960.0].map(count), ["9999", "10.0k", "1.00M"]);
        assert_eq!([0.04, 9.94, 38.4].map(share), ["0.0", "9.9", "38"]);
        assert_eq!([0.000_9, 0.01, 0.9999].map(duration), ["0.9 ms", "10 ms", "1.00 s"]);
        assert_eq!([9.4, 80.0, 7500.0, 360_000.0].map(clock), ["9s", "1m20s", "2h05m", "4d04h"]);
    }
}
