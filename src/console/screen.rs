//! What standard error is: whether a line on it can be drawn again, how wide it is, whether it has colours. By the
//! environment and the system alone, without writing.

use std::ffi::OsString;
use std::io::IsTerminal;

/// Whether there are colours.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Color {
    /// On terminals that have them, unless `NO_COLOR` is set; with `CLICOLOR_FORCE` everywhere.
    #[default]
    Auto,
    /// Everywhere.
    Always,
    /// Nowhere.
    Never,
}

/// What is known of standard error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Screen {
    /// It is a terminal that takes commands, and somebody may be looking.
    takes_commands: bool,
    /// Of a terminal; `None` where it does not say, as under cron.
    pub(crate) columns: Option<usize>,
}

impl Screen {
    /// As it is now: windows change their size.
    pub(crate) fn of_stderr() -> Self {
        let stderr = std::io::stderr();
        let size = terminal_size::terminal_size_of(&stderr).map(|(width, _)| usize::from(width.0));
        Self::new(stderr.is_terminal(), size, |name| std::env::var_os(name))
    }

    fn new(is_terminal: bool, columns: Option<usize>, env: impl Fn(&str) -> Option<OsString>) -> Self {
        let watched = !is_set(env("CI"));
        let columns = columns.filter(|columns| is_terminal && *columns > 0);
        // What the user says may be less, never more: a line must not wrap.
        let said = env("COLUMNS").and_then(|said| said.to_str()?.trim().parse().ok()).filter(|said| *said > 0);
        let columns = columns.map(|columns| said.map_or(columns, |said: usize| said.min(columns)));
        Self { takes_commands: is_terminal && watched && has_commands(&env), columns }
    }

    /// Whether a line can be drawn again.
    pub(crate) fn draws(self) -> bool {
        self.takes_commands && self.columns.is_some()
    }
}

/// `CI=false` is how some say that it is none.
fn is_set(value: Option<OsString>) -> bool {
    value.is_some_and(|value| !value.is_empty() && value != "0" && value != "false")
}

/// Whether a terminal does more than print: where `TERM` is not set, only that of Windows.
fn has_commands(env: &impl Fn(&str) -> Option<OsString>) -> bool {
    match env("TERM") {
        Some(term) => !term.is_empty() && term != "dumb",
        None => cfg!(windows),
    }
}

/// Whether to colour what is written to standard error, which may be a terminal.
pub(super) fn is_colored(color: Color, is_terminal: bool, env: impl Fn(&str) -> Option<OsString>) -> bool {
    let given = |name: &str| env(name).is_some_and(|value| !value.is_empty());
    match color {
        Color::Always => true,
        Color::Never => false,
        Color::Auto if given("NO_COLOR") => false,
        Color::Auto if env("CLICOLOR_FORCE").is_some_and(|value| !value.is_empty() && value != "0") => true,
        Color::Auto => is_terminal && has_commands(&env) && env("CLICOLOR").is_none_or(|value| value != "0"),
    }
}

/// Old consoles of Windows take commands once they are told to.
#[cfg(windows)]
pub(super) fn prepare() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| drop(anstyle_query::windows::enable_ansi_colors()));
}

#[cfg(not(windows))]
pub(super) fn prepare() {}

#[cfg(test)]
mod tests {
    use super::*;

    fn env<'v>(values: &'v [(&'v str, &'v str)]) -> impl Fn(&str) -> Option<OsString> + 'v {
        move |name| values.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into())
    }

    const XTERM: (&str, &str) = ("TERM", "xterm");

    #[test]
    fn a_line_is_drawn_again_only_on_a_terminal_that_can() {
        let draws = |terminal, columns, values: &[(&str, &str)]| Screen::new(terminal, columns, env(values)).draws();
        assert!(draws(true, Some(80), &[XTERM]) && draws(true, Some(1), &[XTERM, ("CI", "false")]));
        assert!(!draws(false, None, &[XTERM]), "a pipe");
        assert!(!draws(true, Some(80), &[("TERM", "dumb")]));
        assert!(!draws(true, Some(80), &[("TERM", "")]));
        assert_eq!(draws(true, Some(80), &[]), cfg!(windows), "TERM is not set");
        assert!(!draws(true, None, &[XTERM]) && !draws(true, Some(0), &[XTERM]), "cron and kubectl have no size");
        assert!(!draws(true, Some(80), &[XTERM, ("CI", "true")]));
    }

    #[test]
    fn columns_say_less_than_the_window_and_never_more() {
        let columns = |said: &str| Screen::new(true, Some(80), env(&[XTERM, ("COLUMNS", said)])).columns;
        for (said, known) in [("40", 40), ("200", 80), ("0", 80), ("", 80), ("wide", 80), ("-1", 80)] {
            assert_eq!(columns(said), Some(known), "{said}");
        }
        assert_eq!(Screen::new(false, None, env(&[("COLUMNS", "40")])).columns, None, "a pipe has no width");
    }

    #[test]
    fn colours_are_for_terminals_unless_somebody_says_otherwise() {
        let auto = |terminal, values: &[(&str, &str)]| is_colored(Color::Auto, terminal, env(values));
        assert!(auto(true, &[XTERM]) && !auto(false, &[XTERM]) && !auto(true, &[("TERM", "dumb")]));
        assert!(!auto(true, &[XTERM, ("NO_COLOR", "1")]) && auto(true, &[XTERM, ("NO_COLOR", "")]));
        assert!(auto(false, &[("CLICOLOR_FORCE", "1")]) && !auto(false, &[("CLICOLOR_FORCE", "0")]));
        assert!(
            !auto(false, &[("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")]) && !auto(true, &[XTERM, ("CLICOLOR", "0")])
        );
        let forced = [("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")];
        assert!(is_colored(Color::Always, false, env(&forced)) && !is_colored(Color::Never, true, env(&forced)));
    }
}
