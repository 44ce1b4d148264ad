//! The program in a fresh folder, with a text and the settings of a model that trains in a second.

#![allow(dead_code)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// 20 kB of English.
pub const TEXT: &str = include_str!("in.txt");
/// Settings of a run on `in.txt`: 20 steps, an evaluation and a checkpoint every 10.
const SETTINGS: &str = include_str!("run.toml");

/// What a command did.
pub struct Ran {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Ran {
    /// The command succeeded.
    pub fn ok(self) -> Self {
        assert_eq!(self.code, 0, "{}{}", self.stdout, self.stderr);
        self
    }

    /// The command was refused with one sentence, which is returned.
    pub fn refused(self) -> String {
        assert!(self.code != 0 && self.code != 101, "exit code {}: {}{}", self.code, self.stdout, self.stderr);
        let errors: Vec<&str> = self.stderr.lines().filter(|line| line.starts_with("error: ")).collect();
        assert_eq!(errors.len(), 1, "one error: {}", self.stderr);
        errors[0].trim_start_matches("error: ").to_owned()
    }
}

/// A folder with `in.txt` and `run.toml`, removed at the end of a test.
pub struct Folder(tempfile::TempDir);

impl Folder {
    pub fn new() -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        folder.write("in.txt", TEXT);
        folder.write("run.toml", SETTINGS);
        folder
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        fs::write(self.path(name), bytes).unwrap();
    }

    pub fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).unwrap()
    }

    pub fn text(&self, name: &str) -> String {
        String::from_utf8(self.read(name)).unwrap()
    }

    /// The program with `args`, split at spaces.
    pub fn command(&self, args: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tokenformer"));
        // The self-test of an adapter runs at most once for all tests. The second keeps Mesa from complaining where nobody is
        // logged in.
        command.env("TOKENFORMER_CACHE_DIR", cache()).env("XDG_RUNTIME_DIR", cache());
        command.current_dir(self.0.path()).args(args.split_whitespace()).stdin(Stdio::null());
        command
    }

    pub fn run(&self, args: &str) -> Ran {
        done(&mut self.command(args))
    }

    /// `train` with the settings of the folder and `args`.
    pub fn train(&self, args: &str) -> Ran {
        self.run(&format!("train --config run.toml --tune off {args}"))
    }
}

/// Runs `command` to its end.
pub fn done(command: &mut Command) -> Ran {
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ran { code: output.status.code().unwrap_or(-1), stdout: text(&output.stdout), stderr: text(&output.stderr) }
}

/// Prints a line of the table case -> sentence: `cargo test --test cases -- --nocapture | grep '^case'`.
pub fn say(case: &str, sentence: &str) {
    println!("case {case} -> {sentence}");
}

fn cache() -> &'static Path {
    static CACHE: OnceLock<PathBuf> = OnceLock::new();
    CACHE.get_or_init(|| {
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("cases");
        fs::create_dir_all(&dir).unwrap();
        dir
    })
}

/// `program` under a shell's limit of so many KB a file.
#[cfg(unix)]
pub fn limited(kilobytes: usize, program: &Command) -> Command {
    let mut shell = Command::new("bash");
    shell.args(["-c", &format!("ulimit -f {kilobytes}; exec \"$@\""), "bash"]).arg(program.get_program());
    shell.args(program.get_args()).current_dir(program.get_current_dir().unwrap());
    shell.envs(program.get_envs().filter_map(|(name, value)| Some((name, value?))));
    shell
}
