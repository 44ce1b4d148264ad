//! Every command in a block of code is one that this program, cargo or the scripts understand.
//!
//! Lines that start with `tokenformer` are given to the program itself, in a folder with texts to train on and no adapter
//! of the name that is asked for: parsing, settings and data are as ever, and nothing is computed. A line that the program
//! does not understand ends there with exit code 1.

use crate::{pages, root};
use std::fs;
use std::io::{Read, Seek};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokenformer::config::RunConfig;

/// No adapter is called so.
const NO_ADAPTER: &str = "no adapter has this name";

/// A command that finds no adapter ends within a second; on a busy machine it may take more.
const LONGEST: Duration = Duration::from_secs(120);

/// A command of a page.
struct Line {
    place: String,
    text: String,
}

/// The commands in blocks marked `sh`, without comments, continued lines put together.
fn commands() -> Vec<Line> {
    let mut found: Vec<Line> = Vec::new();
    for page in pages() {
        for block in page.blocks().into_iter().filter(|block| block.language == "sh") {
            let mut continues = false;
            for (number, line) in block.lines {
                let line = line.split(" #").next().unwrap().trim();
                let text = line.trim_end_matches('\\').trim_end();
                match found.last_mut().filter(|_| continues) {
                    Some(last) => last.text = format!("{} {text}", last.text),
                    None if text.is_empty() || text.starts_with('#') => {}
                    None => found.push(Line { place: format!("{}:{number}", page.name()), text: text.to_owned() }),
                }
                continues = line.ends_with('\\');
            }
        }
    }
    found
}

/// The words of a command as a shell takes them: quotes are all that the pages use.
fn words(text: &str) -> Vec<String> {
    let (mut words, mut word, mut quote): (Vec<String>, Option<String>, Option<char>) = (Vec::new(), None, None);
    for c in text.chars() {
        match (quote, c) {
            (Some(open), _) if c == open => quote = None,
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, ' ') => words.extend(word.take()),
            _ => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

/// A folder as a reader has it: texts, and the studies of the repository.
fn folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let text = "What is a token? A character, or a byte. ".repeat(200);
    for name in ["input.txt", "new.txt", "other.txt", "data/tinyshakespeare.txt"] {
        fs::create_dir_all(dir.path().join(name).parent().unwrap()).unwrap();
        fs::write(dir.path().join(name), &text).unwrap();
    }
    fs::write(dir.path().join("run.toml"), "preset = \"quickstart\"\n").unwrap();
    fs::create_dir(dir.path().join("studies")).unwrap();
    for study in crate::files(&root().join("studies"), "toml") {
        fs::copy(&study, dir.path().join("studies").join(study.file_name().unwrap())).unwrap();
    }
    dir
}

/// What the program says against a command, if it does not understand it, or goes on to compute.
fn refusal(words: &[String], dir: &Path) -> Option<String> {
    let mut words = words.to_vec();
    if let Some(named) = words.iter().position(|word| word == "--adapter").and_then(|at| words.get_mut(at + 1)) {
        *named = NO_ADAPTER.to_owned();
    }
    let mut said = tempfile::tempfile().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_tokenformer"));
    command.args(words).current_dir(dir).env("WGPU_ADAPTER_NAME", NO_ADAPTER).env("TOKENFORMER_CACHE_DIR", dir);
    command.env("XDG_RUNTIME_DIR", dir).env_remove("WGPU_BACKEND").stdout(Stdio::null());
    let mut child = command.stderr(said.try_clone().unwrap()).spawn().unwrap();
    let started = Instant::now();
    let code = loop {
        match child.try_wait().unwrap() {
            Some(status) => break status.code(),
            None if started.elapsed() > LONGEST => {
                child.kill().unwrap();
                child.wait().unwrap();
                break None;
            }
            None => std::thread::sleep(Duration::from_millis(20)),
        }
    };
    let mut text = String::new();
    said.rewind().unwrap();
    said.read_to_string(&mut text).unwrap();
    match code {
        Some(1) => Some(text),
        None => Some(format!("it was still running after {LONGEST:?}\n{text}")),
        Some(_) => None,
    }
}

#[test]
fn every_command_of_the_program_is_understood() {
    let all: Vec<Line> = commands().into_iter().filter(|line| line.text.starts_with("tokenformer ")).collect();
    assert!(all.len() > 40, "only {} commands were found", all.len());
    let (next, dir) = (AtomicUsize::new(0), folder());
    let refused = |line: &Line| {
        // From there on it is the shell's.
        let of_shell = |word: &String| ["|", "&&", ";", ">", ">>", "<", "2>"].contains(&word.as_str());
        let words: Vec<String> = words(&line.text).into_iter().take_while(|word| !of_shell(word)).collect();
        refusal(&words[1..], dir.path()).map(|said| format!("{}: {}\n{said}", line.place, line.text))
    };
    let faults: Vec<String> = std::thread::scope(|scope| {
        let work = || {
            let taken = std::iter::from_fn(|| all.get(next.fetch_add(1, Ordering::Relaxed)));
            taken.filter_map(refused).collect::<Vec<_>>()
        };
        let threads: Vec<_> = (0..2).map(|_| scope.spawn(work)).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn planted_commands_are_refused() {
    let dir = folder();
    let refused = |text: &str| refusal(&words(text), dir.path());
    assert_eq!(refused("train --preset quickstart --set 'train.lr=1e-3' --out \"runs/my run\""), None);
    for text in [
        "fly",
        "train --preset fastest",
        "train --stesp 10",
        "train --set train.learning_rate=1",
        "grow runs/mine",
        "bench matmul --layout xx",
    ] {
        assert!(refused(text).is_some(), "{text}");
    }
}

#[test]
fn what_scripts_and_cargo_are_asked_for_is_there() {
    let mut faults = Vec::new();
    for Line { place, text } in commands() {
        let words = words(&text);
        let after = |flag: &'static str| words.iter().zip(words.iter().skip(1)).filter(move |(word, _)| *word == flag);
        let file = |name: &String| root().join("tests").join(format!("{name}.rs")).exists();
        let named =
            after("--test").map(|(_, name)| ("test", name, file(name) || root().join("tests").join(name).is_dir()));
        let example = |name: &String| root().join(format!("examples/{name}.rs")).exists();
        let examples = after("--example").map(|(_, name)| ("example", name, example(name)));
        let scripts = words.iter().filter(|word| word.starts_with("scripts/"));
        let scripts = scripts.map(|script| ("script", script, root().join(script).exists()));
        let missing = named.chain(examples).chain(scripts).filter(|(_, _, is_there)| !is_there);
        faults.extend(missing.map(|(what, name, _)| format!("{place}: there is no {what} {name}")));
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn every_verb_is_shown() {
    let help = Command::new(env!("CARGO_BIN_EXE_tokenformer")).arg("--help").output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let verbs = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let verbs: Vec<&str> = verbs.filter_map(|line| line.split_whitespace().next()).filter(|&v| v != "help").collect();
    assert!(verbs.contains(&"train") && verbs.len() > 8, "{verbs:?}");
    let shown = commands();
    for verb in verbs {
        let is_shown = shown.iter().any(|line| words(&line.text).iter().skip(1).any(|word| word == verb));
        assert!(is_shown, "no page shows how to use `tokenformer {verb}`");
    }
}

#[test]
fn every_configuration_is_one() {
    for page in pages() {
        for block in page.blocks().into_iter().filter(|block| block.language == "toml") {
            let place = format!("{}:{}", page.name(), block.lines[0].0);
            let text = block.text();
            text.parse::<toml::Table>().unwrap_or_else(|e| panic!("{place}: {e}"));
            // A study has arms; it is parsed by the command that runs it.
            if !text.contains("[[arm]]") {
                RunConfig::from_toml(&text, &place).unwrap_or_else(|e| panic!("{e}"));
            }
        }
    }
}
