//! From the paths that were given to the files that are read, in an order that nothing but their names decides.

use std::collections::HashSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use super::kind::{Format, KNOWN, Kind};
use crate::console::{detail, note, warn};
use crate::data::missing::unreadable;
use crate::error::{Error, Result};

/// The name of standard input.
pub(super) const STDIN: &str = "-";

/// A file that is read, or standard input.
#[derive(Debug, Clone)]
pub(super) struct Source {
    pub path: PathBuf,
    pub kind: Kind,
    /// Of the file as it is.
    pub bytes: u64,
    /// When it was written last, in nanoseconds.
    pub modified: u64,
}

impl Source {
    /// Whether it can be read only once.
    pub(super) fn is_stdin(&self) -> bool {
        self.path == Path::new(STDIN)
    }

    pub(super) fn shown(&self) -> String {
        if self.is_stdin() { "standard input".to_owned() } else { self.path.display().to_string() }
    }
}

/// The files at `paths`: files, directories with all below them, patterns, and `-`. `format` says what they are whose names
/// do not. What is in `out` is no input.
///
/// # Errors
/// A path with nothing at it, what is no file, a file of an unknown kind, or none at all.
pub(super) fn expand(paths: &[PathBuf], format: Option<Kind>, out: &Path) -> Result<Vec<Source>> {
    let mut found = Inputs {
        format,
        out: out.canonicalize().ok(),
        sources: Vec::new(),
        seen: HashSet::new(),
        others: 0,
        again: None,
    };
    paths.iter().try_for_each(|path| found.path(path))?;
    if let Some((path, count)) = &found.again {
        let more = if *count > 1 { format!(" and {} more", count - 1) } else { String::new() };
        warn(format_args!("{}{more} came twice and is read once", path.display()));
    }
    if found.others > 0 {
        note(format_args!("{} files are left alone, which are not {KNOWN}", found.others));
    }
    if found.sources.is_empty() {
        let given = paths.first().map(|path| path.display().to_string()).unwrap_or_default();
        return Err(Error::input(format!(
            "there is nothing to read in {given}: give files of {KNOWN}, or a folder with some"
        )));
    }
    let stdin = found.sources.iter().any(Source::is_stdin);
    if stdin && found.sources.len() > 1 {
        return Err(Error::usage("standard input (-) cannot be read beside files: give one or the other"));
    }
    Ok(found.sources)
}

struct Inputs {
    format: Option<Kind>,
    out: Option<PathBuf>,
    sources: Vec<Source>,
    /// By where they really are.
    seen: HashSet<PathBuf>,
    /// Files in directories that nobody asked to read.
    others: usize,
    /// The first file that came again, and how many did.
    again: Option<(PathBuf, usize)>,
}

impl Inputs {
    fn path(&mut self, path: &Path) -> Result<()> {
        if path == Path::new(STDIN) {
            let Some(kind) = self.format else {
                return Err(Error::usage(
                    "standard input has no name to tell what it is: add --format txt or --format jsonl",
                ));
            };
            if kind.format == Format::Parquet {
                return Err(Error::usage(
                    "a parquet file is read from its end, which standard input does not have yet: give the file",
                ));
            }
            self.sources.push(Source { path: path.to_owned(), kind, bytes: 0, modified: 0 });
            return Ok(());
        }
        match std::fs::metadata(path) {
            Ok(stat) if stat.is_dir() => self.directory(path),
            Ok(_) => match self.kind(path) {
                Some(kind) => self.file(path, kind),
                None => Err(Error::usage(format!(
                    "{} is none of {KNOWN} by its name: say what it is with --format txt or --format jsonl",
                    path.display()
                ))),
            },
            Err(cause) => match path.to_str().filter(|pattern| pattern.contains(['*', '?', '['])) {
                Some(pattern) => self.pattern(pattern),
                None => Err(unreadable("read", path, &cause, "name files of text to prepare, or a folder with some")),
            },
        }
    }

    fn kind(&self, path: &Path) -> Option<Kind> {
        self.format.or_else(|| Kind::of_name(&path.file_name()?.to_string_lossy()))
    }

    fn pattern(&mut self, pattern: &str) -> Result<()> {
        let bad =
            |why: String| Error::input(format!("no file matches {pattern:?}{why}: name files of text to prepare"));
        // As a shell does.
        let rules = glob::MatchOptions { require_literal_leading_dot: true, ..glob::MatchOptions::new() };
        let matched = glob::glob_with(pattern, rules).map_err(|e| bad(format!(" ({e})")))?;
        let before = self.sources.len() + self.others + self.again.as_ref().map_or(0, |(_, count)| *count);
        for path in matched {
            let path = path.map_err(|e| Error::io("read", e.path(), e.error()))?;
            if path.is_dir() { self.directory(&path)? } else { self.listed(&path)? }
        }
        match self.sources.len() + self.others + self.again.as_ref().map_or(0, |(_, count)| *count) {
            after if after > before => Ok(()),
            _ => Err(bad(String::new())),
        }
    }

    fn directory(&mut self, dir: &Path) -> Result<()> {
        let out = self.out.clone();
        let wanted = |entry: &walkdir::DirEntry| {
            let hidden = entry.depth() > 0 && entry.file_name().to_string_lossy().starts_with('.');
            let is_out = || out.is_some() && entry.file_type().is_dir() && entry.path().canonicalize().ok() == out;
            !hidden && !is_out()
        };
        for entry in walkdir::WalkDir::new(dir).follow_links(true).sort_by_file_name().into_iter().filter_entry(wanted)
        {
            match entry {
                Ok(entry) if entry.file_type().is_dir() => {}
                Ok(entry) => self.listed(entry.path())?,
                Err(error) if error.loop_ancestor().is_some() => {
                    let path = error.path().unwrap_or(dir).display();
                    warn(format_args!("{path} is a link to a folder around it, and is not followed"));
                }
                Err(error) => {
                    let path = error.path().unwrap_or(dir);
                    let cause = error
                        .io_error()
                        .map_or_else(|| error.to_string(), |cause| Error::io("read", path, cause).to_string());
                    return Err(Error::input(format!("{cause}; mend that, or move it out of {}", dir.display())));
                }
            }
        }
        Ok(())
    }

    /// A file that nobody named.
    fn listed(&mut self, path: &Path) -> Result<()> {
        match Kind::of_name(&path.file_name().unwrap_or_default().to_string_lossy()) {
            Some(kind) => self.file(path, kind),
            None => {
                detail(format_args!("{} is left alone", path.display()));
                self.others += 1;
                Ok(())
            }
        }
    }

    fn file(&mut self, path: &Path, kind: Kind) -> Result<()> {
        let io = |cause: std::io::Error| unreadable("read", path, &cause, "make it readable, or leave it out");
        let stat = std::fs::metadata(path).map_err(io)?;
        // Before it is opened: a pipe would be waited for.
        if !stat.is_file() {
            return Err(Error::input(format!(
                "{} is no regular file: pipe it in, with - for its name and --format jsonl or txt",
                path.display()
            )));
        }
        if kind.format == Format::Parquet && cfg!(not(feature = "parquet")) {
            return Err(Error::usage(format!(
                "{} is a parquet file, which this build does not read: build with `cargo install --features parquet`, or convert \
                 it to .jsonl",
                path.display()
            )));
        }
        // Now, and not after hours.
        File::open(path).map_err(io)?;
        if !self.seen.insert(path.canonicalize().map_err(io)?) {
            self.again.get_or_insert_with(|| (path.to_owned(), 0)).1 += 1;
            return Ok(());
        }
        let since = stat.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        let modified = since.and_then(|since| u64::try_from(since.as_nanos()).ok()).unwrap_or(0);
        self.sources.push(Source { path: path.to_owned(), kind, bytes: stat.len(), modified });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(paths: &[&str], dir: &Path) -> Result<Vec<String>> {
        let paths: Vec<PathBuf> = paths.iter().map(|path| dir.join(path)).collect();
        let sources = expand(&paths, None, &dir.join("out"))?;
        let relative =
            |source: &Source| source.path.strip_prefix(dir).unwrap().display().to_string().replace('\\', "/");
        Ok(sources.iter().map(relative).collect())
    }

    #[test]
    fn folders_and_patterns_are_read_in_order_and_each_file_once() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["d/b.txt", "d/a/z.md", "d/c.jsonl.gz", "d/.git/x.txt", "d/pic.png", "out/train.txt", "e[1].txt"] {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "text").unwrap();
        }
        let all = ["d/a/z.md", "d/b.txt", "d/c.jsonl.gz"];
        assert_eq!(names(&["d"], dir.path()).unwrap(), all);
        assert_eq!(names(&["d/*.txt", "d"], dir.path()).unwrap(), ["d/b.txt", "d/a/z.md", "d/c.jsonl.gz"]);
        assert_eq!(names(&["d/**/*"], dir.path()).unwrap(), all);
        assert_eq!(names(&["", "d/b.txt"], dir.path()).unwrap().len(), 4, "the output is no input");
        assert_eq!(names(&["e[1].txt"], dir.path()).unwrap(), ["e[1].txt"], "a file before a pattern");
        for (paths, said) in [
            (&["d/pic.png"][..], "say what it is with --format"),
            (&["no.txt"], "cannot read"),
            (&["no*.txt"], "no file matches"),
            (&["d/.git/*.png"], "no file matches"),
        ] {
            let error = names(paths, dir.path()).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
        assert!(expand(&["-".into()], None, dir.path()).unwrap_err().to_string().contains("--format"));
    }

    #[cfg(unix)]
    #[test]
    fn loops_of_links_end_and_pipes_are_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("d")).unwrap();
        std::fs::write(dir.path().join("d/a.txt"), "text").unwrap();
        std::os::unix::fs::symlink(dir.path().join("d"), dir.path().join("d/again")).unwrap();
        std::os::unix::fs::symlink("a.txt", dir.path().join("d/b.txt")).unwrap();
        assert_eq!(names(&["d"], dir.path()).unwrap(), ["d/a.txt"]);
        let pipe = dir.path().join("pipe.txt");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        assert!(names(&["pipe.txt"], dir.path()).unwrap_err().to_string().contains("no regular file"));
    }
}
