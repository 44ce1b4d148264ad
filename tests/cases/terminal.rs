//! Every terminal gets its lines.
#![cfg(unix)]

use super::program::{Folder, Ran, done, say};
use pty_process::{Size, blocking};
use std::io::{BufRead, BufReader, Read};
use std::num::NonZero;
use std::process::{Child, Command, Stdio};

/// A terminal with the program in it.
struct Terminal {
    pty: blocking::Pty,
    child: Child,
    rows: u16,
    columns: u16,
}

/// What a terminal showed.
struct Shown {
    code: i32,
    /// All bytes that came.
    raw: String,
    /// What is on the screen at the end, and what was scrolled away: its rows, as the terminal wrapped them.
    rows: Vec<String>,
}

impl Terminal {
    /// `args` in a terminal of this size; `env` sets variables, or removes them with "".
    fn new(folder: &Folder, columns: u16, env: &[(&str, &str)], args: &str) -> Self {
        const ROWS: u16 = 50;
        Self::command(folder.command(args), columns, env, ROWS)
    }

    fn command(program: Command, columns: u16, env: &[(&str, &str)], rows: u16) -> Self {
        let (pty, pts) = blocking::open().unwrap();
        pty.resize(Size::new(rows, columns)).unwrap();
        let mut command = blocking::Command::new(program.get_program()).args(program.get_args());
        for unset in ["CI", "COLUMNS", "NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE"] {
            command = command.env_remove(unset);
        }
        for (name, value) in program.get_envs() {
            command = command.env(name, value.unwrap());
        }
        for (name, value) in env {
            command = if value.is_empty() { command.env_remove(name) } else { command.env(name, value) };
        }
        let child = command.current_dir(program.get_current_dir().unwrap()).spawn(pts).unwrap();
        Self { pty, child, rows, columns }
    }

    /// Reads until the program ends; `meanwhile` sees every piece that comes.
    fn watch(mut self, mut meanwhile: impl FnMut(&blocking::Pty, &mut vt100::Parser, &str)) -> Shown {
        let mut screen = vt100::Parser::new(cells(self.rows), cells(self.columns), 1000);
        let (mut raw, mut piece) = (Vec::new(), [0; 4096]);
        // Linux says "input/output error" once nobody has the other side open any more.
        while let Ok(length @ 1..) = self.pty.read(&mut piece) {
            raw.extend_from_slice(&piece[..length]);
            screen.process(&piece[..length]);
            meanwhile(&self.pty, &mut screen, &String::from_utf8_lossy(&raw));
        }
        let code = self.child.wait().unwrap().code().unwrap_or(-1);
        Shown { code, raw: String::from_utf8_lossy(&raw).into_owned(), rows: rows(&mut screen) }
    }

    fn shown(self) -> Shown {
        self.watch(|_, _, _| {})
    }
}

fn cells(count: u16) -> NonZero<u16> {
    NonZero::new(count).unwrap_or(NonZero::<u16>::MIN)
}

/// All rows, those that were scrolled away first.
fn rows(screen: &mut vt100::Parser) -> Vec<String> {
    let (height, columns) = screen.screen().size();
    screen.screen_mut().set_scrollback(usize::MAX);
    let above = screen.screen().scrollback();
    let mut all = Vec::new();
    for offset in (0..=above).rev() {
        screen.screen_mut().set_scrollback(offset);
        let visible: Vec<String> = screen.screen().rows(0, columns.get()).collect();
        let taken = if offset == 0 { usize::from(height.get()) } else { 1 };
        all.extend(visible.into_iter().take(taken));
    }
    screen.screen_mut().set_scrollback(0);
    while all.last().is_some_and(String::is_empty) {
        all.pop();
    }
    all
}

impl Shown {
    fn ok(self) -> Self {
        assert_eq!(self.code, 0, "{}", self.raw);
        self
    }

    /// As many rows start so.
    fn starting(&self, with: &str) -> Vec<&str> {
        self.rows.iter().filter(|row| row.starts_with(with)).map(String::as_str).collect()
    }
}

/// A run of 20 steps with a growth at 10 and a sample every 5 steps.
const GROWING: &str = "train --config run.toml --tune off --steps 20 --set train.sample_interval=5 \
                       --set growth=[{at_step=10,ffn_slot_num=24}] --out n";
const XTERM: (&str, &str) = ("TERM", "xterm");
const DUMB: (&str, &str) = ("TERM", "dumb");
const UNSET: (&str, &str) = ("TERM", "");

#[test]
fn every_kind_of_terminal_gets_progress_samples_growth_and_evaluations() {
    let folder = Folder::new();
    for columns in [20, 80, 200] {
        for term in [XTERM, DUMB, UNSET] {
            let shown = Terminal::new(&folder, columns, &[term], &format!("{GROWING} --overwrite")).shown().ok();
            let what = format!("{columns} columns, {term:?}: {}", shown.rows.join("\n"));
            for (head, least) in [("--- sample after ste", 3), ("grown at step 10: sl", 1), ("eval ", 3)] {
                assert!(shown.starting(head).len() >= least, "{head} {what}");
            }
            let progress = shown.starting("step ");
            if term == XTERM {
                assert!(progress.is_empty(), "drawn, and gone at the end: {what}");
                assert!(shown.raw.contains("1/20") && shown.raw.contains(" loss "), "{what}");
                assert!(!shown.rows.iter().any(|row| row.contains("] ") && row.contains(" loss ")), "{what}");
            } else {
                assert!(!shown.raw.contains('\u{1b}'), "no commands to a terminal that has none: {what}");
                assert_eq!(progress.len(), 2, "{what}");
                assert!(progress[1].starts_with("step 20"), "{what}");
                if (columns, term) == (80, DUMB) {
                    say("term-dumb-silent", progress[1]);
                }
            }
        }
    }
}

#[test]
fn what_is_drawn_is_one_line_of_any_width() {
    let folder = Folder::new();
    for columns in [1, 2, 7, 20, 80, 200] {
        let mut most = 0;
        let quiet = "train --config run.toml --tune off --steps 30 --set train.eval_interval=0 --out n --overwrite";
        let shown = Terminal::new(&folder, columns, &[XTERM], quiet).watch(|_, screen, _| {
            // The row below the one with the cursor would have what was wrapped.
            let (row, column) = screen.screen().cursor_position();
            most = most.max(column);
            let below = screen.screen().rows(0, columns).nth(usize::from(row) + 1);
            assert!(below.is_none_or(|below| below.is_empty()), "{columns} columns");
        });
        let shown = shown.ok();
        for drawn in shown.raw.split("\r\u{1b}[K\u{1b}[?7l").skip(1) {
            let line = drawn.split("\u{1b}[?7h").next().unwrap();
            assert!(line.chars().count() < usize::from(columns), "{columns} columns: {line:?}");
        }
        assert!(most <= columns);
    }
}

#[test]
fn a_terminal_without_a_size_and_ci_get_plain_lines() {
    let folder = Folder::new();
    for (columns, env) in [(0, XTERM), (80, ("CI", "true"))] {
        let env = [XTERM, env];
        let shown = Terminal::new(&folder, columns, &env, &format!("{GROWING} --overwrite")).shown().ok();
        let said = |what: &str| shown.raw.lines().filter(|line| line.starts_with(what)).count();
        assert_eq!((said("step "), said("--- sample"), said("grown at step 10")), (2, 4, 1), "{}", shown.raw);
        assert!(!shown.raw.contains('\u{1b}'));
    }
    // More than 80 columns of numbers are there where no width is known.
    let log = Terminal::new(&folder, 0, &[XTERM], &format!("{GROWING} --overwrite")).shown().ok();
    let line = log.raw.lines().find(|line| line.starts_with("step 20/20")).unwrap();
    assert!(line.contains(" norm ") && line.contains(" lr ") && line.len() > 80, "{line}");
}

#[test]
fn a_narrower_terminal_by_columns_is_believed_and_a_wider_one_is_not() {
    let folder = Folder::new();
    let longest = |columns: &str| {
        let args = "train --config run.toml --tune off --out n --overwrite";
        let shown = Terminal::new(&folder, 80, &[DUMB, ("COLUMNS", columns)], args).shown().ok();
        shown.raw.lines().filter(|line| line.starts_with("step ")).map(str::len).max().unwrap()
    };
    assert!(longest("40") <= 40);
    let wide = longest("500");
    assert!(wide > 40 && wide <= 80, "{wide}");
}

#[test]
fn a_window_may_change_its_size_during_a_run() {
    let folder = Folder::new();
    let args = "train --config run.toml --tune off --steps 200 --set train.checkpoint_interval=0 \
                --set train.eval_interval=20 --out n";
    let (mut sizes, mut seen) = ([30_u16, 120, 9, 80].into_iter(), 0);
    let shown = Terminal::new(&folder, 80, &[XTERM], args)
        .watch(|pty, screen, raw| {
            if raw.matches("eval ").count() > seen
                && let Some(columns) = sizes.next()
            {
                seen += 1;
                pty.resize(Size::new(50, columns)).unwrap();
                screen.screen_mut().set_size(cells(50), cells(columns));
            }
        })
        .ok();
    assert_eq!(seen, 4, "{}", shown.raw);
    // The evaluations stay, each in a line of its own.
    assert!(shown.raw.lines().filter(|line| line.contains("eval ")).count() >= 10, "{}", shown.raw);
    assert!(shown.rows.iter().any(|row| row.starts_with("eval 200/200")), "{:#?}", shown.rows);
}

#[test]
fn under_cron_a_log_has_everything() {
    let folder = Folder::new();
    let log = folder.path("log");
    let mut command = folder.command(GROWING);
    let settings: Vec<_> =
        command.get_envs().map(|(name, value)| (name.to_owned(), value.unwrap().to_owned())).collect();
    command.env_clear().envs(settings).stdin(Stdio::null()).stdout(Stdio::null());
    let status = command.stderr(std::fs::File::create(&log).unwrap()).status().unwrap();
    assert!(status.success());
    let log = folder.text("log");
    for (said, times) in [("step ", 2), ("--- sample", 4), ("grown at step 10", 1), ("eval ", 3)] {
        assert_eq!(log.lines().filter(|line| line.starts_with(said)).count(), times, "{said}: {log}");
    }
    assert!(!log.contains('\u{1b}') && !log.contains('\r'), "{log}");
}

#[test]
fn through_tee_a_terminal_shows_plain_lines() {
    let folder = Folder::new();
    let mut shell = Command::new("sh");
    let program = folder.command(GROWING);
    let words: Vec<_> = program.get_args().map(|arg| format!("'{}'", arg.to_str().unwrap())).collect();
    let line = format!("'{}' {} 2>&1 | tee log", program.get_program().to_str().unwrap(), words.join(" "));
    shell.args(["-c", &line]).current_dir(program.get_current_dir().unwrap());
    program.get_envs().for_each(|(name, value)| _ = shell.env(name, value.unwrap()));
    let shown = Terminal::command(shell, 80, &[XTERM], 50).shown().ok();
    let log = folder.text("log");
    assert_eq!(shown.raw.replace("\r\n", "\n"), log);
    assert!(log.lines().any(|line| line.starts_with("step 20/20 ")) && !log.contains('\u{1b}'), "{log}");
}

#[test]
fn text_that_is_not_ascii_comes_whole_whatever_the_locale() {
    let folder = Folder::new();
    folder.write("in.txt", "h\u{e9}llo w\u{f6}rld, \u{4f60}\u{597d}.\n".repeat(200));
    let env = [XTERM, ("LC_ALL", "C"), ("LANG", "C")];
    let args =
        "train --config run.toml --tune off --set train.sample_interval=5 --set train.sample_prompt=h\u{e9} --out n";
    let shown = Terminal::new(&folder, 60, &env, args).shown().ok();
    assert!(shown.rows.iter().any(|row| row.starts_with("h\u{e9}")), "{:#?}", shown.rows);
}

#[test]
fn closed_output_stops_nothing() {
    let folder = Folder::new();
    let program = folder.command(GROWING);
    let words: Vec<_> = program.get_args().map(|arg| format!("'{}'", arg.to_str().unwrap())).collect();
    let mut shell = Command::new("sh");
    let line = format!("exec '{}' {} <&- >&- 2>&-", program.get_program().to_str().unwrap(), words.join(" "));
    shell.args(["-c", &line]).current_dir(program.get_current_dir().unwrap());
    program.get_envs().for_each(|(name, value)| _ = shell.env(name, value.unwrap()));
    done(&mut shell).ok();
    assert!(folder.path("n/checkpoints/step-00000020.safetensors").exists());
}

/// A model that has learnt lines that end in CR LF.
fn of_crlf_text() -> Folder {
    let folder = Folder::new();
    folder.write("in.txt", "ab\r\n".repeat(3000));
    let steps = "--set train.max_steps=150 --set train.lr=0.02 --set train.sample_interval=150";
    folder.train(&format!("{steps} --out n -q")).ok();
    folder
}

#[test]
fn crlf_text_prints_as_lines() {
    let folder = of_crlf_text();
    let generate = "generate n --tokens 40 --temperature 0";
    let piped = folder.run(generate).ok().stdout;
    assert!(piped.contains("ab\r\nab\r\n"), "a pipe has the bytes: {piped:?}");
    let shown = Terminal::new(&folder, 80, &[XTERM], generate).shown().ok();
    assert!(shown.starting("ab").len() > 5 && shown.rows.iter().all(|row| !row.contains('\\')), "{:#?}", shown.rows);
    // A sample of a run, in a log.
    let log = folder.run("train --steps 160 --resume n --tune off --set train.sample_interval=155").ok().stderr;
    assert!(log.contains("\nab\nab\n") && !log.contains("\\r") && !log.contains('\r'), "{log:?}");
}

#[test]
fn a_carriage_return_alone_is_written_out() {
    let folder = Folder::new();
    folder.write("in.txt", "ab\r".repeat(3000));
    folder.train("--set train.max_steps=150 --set train.lr=0.02 --out n -q").ok();
    let shown = Terminal::new(&folder, 80, &[XTERM], "generate n --prompt a --tokens 12 --temperature 0").shown().ok();
    assert!(shown.rows.iter().any(|row| row.contains("ab\\rab\\rab")), "{:#?}", shown.rows);
}

#[test]
fn quiet_leaves_errors_warnings_and_results() {
    let folder = Folder::new();
    let ran = folder.run(&format!("{GROWING} -q")).ok();
    assert_eq!(ran.stderr, "");
    assert!(ran.stdout.contains("train loss") && ran.stdout.contains("grown at step 10"), "{}", ran.stdout);
    for verb in ["eval n", "generate n --tokens 5", "plan --config run.toml", "inspect n"] {
        let ran = folder.run(&format!("-q {verb}")).ok();
        assert!(ran.stderr.is_empty() && !ran.stdout.is_empty(), "{verb}: {}", ran.stderr);
    }
    let refused = folder.run("eval nothing --quiet");
    assert!(refused.stderr.starts_with("error: cannot read nothing"), "{}", refused.stderr);
    // A warning is told all the same.
    let newest = folder.path("n/checkpoints/step-00000020.safetensors");
    let mut bytes = std::fs::read(&newest).unwrap();
    let last = bytes.len() - 9;
    bytes[last] ^= 1;
    std::fs::write(&newest, bytes).unwrap();
    let ran = folder.run("eval n -q").ok();
    assert!(ran.stderr.starts_with("warning: ") && ran.stderr.lines().count() == 1, "{}", ran.stderr);
}

#[test]
fn verbose_says_why() {
    let folder = Folder::new();
    let why = |stderr: &str| stderr.lines().find(|line| line.starts_with("adapter: ")).unwrap().to_owned();
    let usual = why(&folder.train("--out n").ok().stderr);
    assert!(usual.len() < 80 && !usual.contains(" (the "), "{usual}");
    let said = folder.train("--out m -v").ok().stderr;
    let adapter = why(&said);
    assert!(adapter.ends_with(')') && adapter.len() > usual.len(), "{adapter}");
    assert!(said.contains("\nsaved m/checkpoints/step-00000010.safetensors in "), "{said}");
    let both = folder.train("--out o -q -v").refused();
    assert!(both.contains("--quiet") && both.contains("--verbose"), "{both}");
}

#[test]
fn colours_are_for_terminals_and_can_be_chosen() {
    let folder = Folder::new();
    let red = "\u{1b}[1;31merror: \u{1b}[0m";
    let colored = |env: &[(&str, &str)], args: &str| Terminal::new(&folder, 80, env, args).shown().raw.contains(red);
    assert!(colored(&[XTERM], "eval nothing"));
    assert!(!colored(&[XTERM], "eval nothing --color never"));
    assert!(!colored(&[XTERM, ("NO_COLOR", "1")], "eval nothing"));
    assert!(!colored(&[DUMB], "eval nothing") && !colored(&[UNSET], "eval nothing"));
    let piped = |args: &str, env: &str| done(folder.command(args).env(env, "1")).stderr.contains(red);
    assert!(!piped("eval nothing", "UNUSED") && piped("eval nothing", "CLICOLOR_FORCE"));
    assert!(piped("eval nothing --color always", "NO_COLOR") && !piped("eval nothing --color=never", "CLICOLOR_FORCE"));
    // Also of arguments that cannot be parsed, and with nothing but colour in them.
    let parsed = Terminal::new(&folder, 80, &[XTERM], "--color never eval").shown();
    assert!(parsed.code == 1 && !parsed.raw.contains('\u{1b}'), "{:?}", parsed.raw);
}

/// A program that is started with a signal ignored goes on ignoring it, as after `nohup`, and would never end.
fn signals_are_heard() {
    let Ok(status) = std::fs::read_to_string("/proc/self/status") else { return };
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap().trim();
    // HUP, INT, USR1 and TERM.
    let ours = u64::from_str_radix(ignored, 16).unwrap() & (1 << 0 | 1 << 1 | 1 << 9 | 1 << 14);
    assert_eq!(
        ours, 0,
        "started with signals ignored, as nohup and `&` in a script do: start the tests in the foreground"
    );
}

/// The program, interrupted by `signal` once it has done a step.
fn interrupted(folder: &Folder, args: &str, signal: &str) -> Ran {
    signals_are_heard();
    let mut child = folder.command(args).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap());
    let mut said = String::new();
    while !said.contains("\nstep ") {
        assert_ne!(lines.read_line(&mut said).unwrap(), 0, "{said}");
    }
    assert!(Command::new("kill").args([&format!("-{signal}"), &child.id().to_string()]).status().unwrap().success());
    lines.read_to_string(&mut said).unwrap();
    Ran { code: child.wait().unwrap().code().unwrap_or(-1), stdout: String::new(), stderr: said }
}

#[test]
fn an_interrupted_run_ends_with_the_command_that_goes_on() {
    let folder = Folder::new();
    for signal in ["INT", "TERM", "HUP", "USR1"] {
        let args = format!("train --config run.toml --tune off --steps 100000 --polite --out my_{signal}");
        let ran = interrupted(&folder, &args, signal);
        assert_eq!(ran.code, 130, "{}", ran.stderr);
        let last = ran.stderr.lines().last().unwrap();
        let command = last.split(" of 100000; saved; go on with tokenformer ").nth(1).unwrap();
        assert_eq!(command, format!("train --resume my_{signal} --tune off --polite"), "{last}");
        let step: u64 = last["stopped after step ".len()..].split(' ').next().unwrap().parse().unwrap();
        assert!(folder.path(&format!("my_{signal}/checkpoints/step-{step:08}.safetensors")).exists(), "{last}");
        folder.run(&format!("{command} --steps {}", step + 2)).ok();
    }
}

#[test]
fn ctrl_c_in_a_terminal_removes_the_bar_and_the_next_prompt_has_a_line() {
    let folder = Folder::new();
    folder.write("my text.txt", super::program::TEXT);
    let args = "train --config run.toml --tune off --steps 100000 --out n";
    let mut sent = false;
    let shown = Terminal::new(&folder, 80, &[XTERM], args).watch(|mut pty, _, raw| {
        if !sent && raw.contains("/100000 loss ") {
            sent = true;
            std::io::Write::write_all(&mut pty, b"\x03").unwrap();
        }
    });
    assert_eq!(shown.code, 130);
    assert!(shown.starting("stopping after this step; ").len() == 1, "{:#?}", shown.rows);
    assert_eq!(shown.starting("stopped after step ").len(), 1, "{:#?}", shown.rows);
    assert!(shown.starting("[").is_empty(), "{:#?}", shown.rows);
    assert!(shown.raw.ends_with('\n'));
}

#[test]
fn a_second_interrupt_ends_at_once_and_says_what_is_saved() {
    signals_are_heard();
    let folder = Folder::new();
    // Steps of seconds: the second interrupt comes within one.
    let slow = "--set train.batch_size=1 --set train.total_batch_tokens=16000 --set train.checkpoint_interval=1";
    let args = format!("train --config run.toml --tune off --steps 1000 --set train.log_interval=1 {slow} --out n");
    let mut child = folder.command(&args).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap());
    let mut said = String::new();
    let mut until = |what: &str, said: &mut String| {
        while !said.contains(what) {
            assert_ne!(lines.read_line(said).unwrap(), 0, "{said}");
        }
    };
    let kill = || Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    until("\nstep 2/", &mut said);
    kill();
    until("stopping after this step", &mut said);
    kill();
    lines.read_to_string(&mut said).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let last = said.lines().last().unwrap();
    let step = last.strip_prefix("stopped at once; step ").unwrap_or_else(|| panic!("{said}"));
    assert!(step.ends_with("is saved; go on with tokenformer train --resume n"), "{last}");
}

#[test]
fn a_warning_stays_above_the_bar() {
    let folder = Folder::new();
    // Every loss is a spike: what is told between two steps is told whole.
    let args = "train --config run.toml --tune off --steps 250 --out n --set train.on_bad_steps=skip \
                --set train.spike_zscore=0.001 --set train.eval_interval=0";
    let shown = Terminal::new(&folder, 120, &[XTERM], args).shown().ok();
    let warned = shown.raw.matches("warning: ").count();
    let whole = shown.rows.iter().filter(|row| row.starts_with("warning: the loss of step ")).count();
    assert!(warned > 3 && whole == warned, "{whole} of {warned}: {:#?}", shown.rows);
}

#[test]
fn what_takes_long_says_so_in_plain_lines() {
    let folder = Folder::new();
    let args = "--steps 1 --set train.eval_interval=0 --set train.eval_batches=2000 --out n";
    let ran = folder.train(args).ok();
    assert!(ran.stderr.contains("evaluating on 2000 batches after step 1"), "{}", ran.stderr);
}

#[test]
fn steps_done_are_counted_the_same_in_every_line_of_metrics() {
    let folder = Folder::new();
    folder.run(GROWING).ok();
    let text = folder.text("n/metrics.jsonl");
    let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let steps = |kind: &str| -> Vec<u64> {
        lines.iter().filter(|line| line["kind"] == kind).map(|line| line["step"].as_u64().unwrap()).collect()
    };
    assert_eq!(steps("train"), (1..=20).collect::<Vec<_>>());
    assert_eq!((steps("sample"), steps("eval"), steps("growth")), (vec![5, 10, 15, 20], vec![0, 10, 20], vec![10]));
    assert_eq!(lines[0]["metrics"], 2);
}

#[test]
fn metrics_of_the_version_before_go_on_as_one_file() {
    let folder = Folder::new();
    folder.run(&format!("{GROWING} --set train.keep_last=9")).ok();
    let whole = folder.text("n/metrics.jsonl");
    // As version 1 had it: after 10 steps, from 0.
    let old = |line: &str| {
        let mut line: serde_json::Value = serde_json::from_str(line).unwrap();
        let (kind, step) = (line["kind"].as_str().unwrap().to_owned(), line["step"].as_u64());
        if kind == "run" {
            line.as_object_mut().unwrap().remove("metrics");
        }
        if let (Some(step), "train" | "sample") = (step, kind.as_str()) {
            line["step"] = (step - 1).into();
        }
        format!("{line}\n")
    };
    folder.write("n/metrics.jsonl", whole.lines().map(old).collect::<String>());
    for later in ["step-00000020", "best"] {
        std::fs::remove_file(folder.path(&format!("n/checkpoints/{later}.safetensors"))).unwrap();
    }
    folder.run("train --resume n --tune off").ok();
    let told = |text: &str| -> Vec<String> {
        let clean = |line: &str| {
            let mut line: serde_json::Value = serde_json::from_str(line).unwrap();
            line.as_object_mut().unwrap().remove("seconds");
            (line["kind"] != "run").then(|| line.to_string())
        };
        text.lines().filter_map(clean).collect()
    };
    let now = folder.text("n/metrics.jsonl");
    assert_eq!(told(&now), told(&whole));
    let said = now.lines().filter(|line| line.contains("\"kind\":\"run\"")).all(|line| line.contains("\"metrics\":2"));
    assert!(said, "{now}");
}

#[test]
fn script_shows_what_a_terminal_does() {
    let folder = Folder::new();
    let program = folder.command(GROWING);
    let words: Vec<_> = program.get_args().map(|arg| arg.to_str().unwrap().to_owned()).collect();
    let quoted = words.iter().map(|word| format!("'{word}'")).collect::<Vec<_>>().join(" ");
    let mut script = Command::new("script");
    let inner = format!("TERM=dumb '{}' {quoted}", program.get_program().to_str().unwrap());
    script.args(["-qec", &inner, "/dev/null"]).current_dir(program.get_current_dir().unwrap()).stdin(Stdio::null());
    program.get_envs().for_each(|(name, value)| _ = script.env(name, value.unwrap()));
    // It comes with util-linux; where it does not, the other tests stand for it.
    let Ok(output) = script.env_remove("CI").output() else { return };
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    if cfg!(target_os = "linux") {
        assert!(said.contains("step 20/20 ") && said.contains("grown at step 10"), "{said}");
    }
}
