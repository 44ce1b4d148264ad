//! What a path of data names: a text, a prepared directory, or token shards in a directory, a list or a pattern.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::manifest::MANIFEST;
use crate::config::DataSource;
use crate::error::{Error, Result};

/// Endings of files that hold text, for which there is `prepare`.
const TEXTS: [&str; 7] = ["txt", "md", "jsonl", "json", "parquet", "gz", "zst"];
/// Most parts of a list that may be one name with commas in it.
const COMMAS: usize = 8;

/// What data are, and where.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// One text, which need not be there.
    Text(PathBuf),
    /// A directory with a manifest.
    Prepared(PathBuf),
    /// Token shards, one after the other, which need not be there.
    Shards(Vec<PathBuf>),
    /// Token shards of which names say what they are for.
    Split {
        train: Vec<PathBuf>,
        val: Vec<PathBuf>,
        /// What is for neither.
        test: Vec<PathBuf>,
    },
}

impl Found {
    /// Whether it says which part of it is validated on.
    pub(super) fn has_split(&self) -> bool {
        matches!(self, Self::Prepared(_) | Self::Split { .. })
    }
}

/// What `path` names.
///
/// # Errors
/// A directory or a pattern without data, texts that are to be prepared, and shards of which it is not plain what they are for.
pub(super) fn find(path: &Path) -> Result<Found> {
    if path.is_dir() {
        return in_directory(path);
    }
    let text = path.to_str().filter(|_| !path.exists()).unwrap_or_default();
    if text.is_empty() {
        return Ok(single(path));
    }
    if text.contains(',') {
        let files = listed(text).into_iter().map(|name| matching(&name)).collect::<Result<Vec<_>>>()?.concat();
        return together(path, files, true);
    }
    if is_pattern(text) {
        let files = matching(text)?;
        return together(path, files, false);
    }
    Ok(single(path))
}

/// Whether `path` names one text.
pub(crate) fn is_text(path: &Path) -> bool {
    matches!(find(path), Ok(Found::Text(_)))
}

/// Whether what `path` names says itself which part of it is validated on.
pub(crate) fn has_split(path: &Path) -> bool {
    find(path).is_ok_and(|found| found.has_split())
}

/// The prepared directory that `path` names, if it is one.
pub(crate) fn prepared_directory(path: &Path) -> Option<PathBuf> {
    match find(path) {
        Ok(Found::Prepared(dir)) => Some(dir),
        _ => None,
    }
}

/// Why what `path` names is not there, if it is not.
pub(crate) fn not_there(path: &Path) -> Option<std::io::Error> {
    let absent = |path: &PathBuf| std::fs::metadata(path).err();
    match find(path) {
        Ok(Found::Text(path) | Found::Prepared(path)) => absent(&path),
        Ok(Found::Shards(files)) => files.first().and_then(absent),
        Ok(Found::Split { .. }) | Err(_) => None,
    }
}

/// A data set of these files in words.
pub(crate) fn describe(path: &Path, val_path: Option<&Path>) -> String {
    let second = val_path.map(|path| format!(" and {}", path.display())).unwrap_or_default();
    format!("data in {}{second}", path.display())
}

/// A data set of several sources in words.
pub(crate) fn describe_sources(sources: &[DataSource]) -> String {
    let total: f64 = sources.iter().map(|source| source.weight).sum();
    let percent = |weight: f64| (weight / total * 1000.0).round() / 10.0;
    let named = sources.iter().map(|source| format!("{} ({} %)", source.path.display(), percent(source.weight)));
    format!("data in {}", named.collect::<Vec<_>>().join(", "))
}

/// One file by its name.
fn single(path: &Path) -> Found {
    let beside = |ending: &str| PathBuf::from(format!("{}.{ending}", path.display()));
    if path.file_name().is_some_and(|name| name == MANIFEST) {
        Found::Prepared(path.parent().unwrap_or(path).to_path_buf())
    } else if has_ending(path, &["bin"]) {
        Found::Shards(vec![path.to_path_buf()])
    } else if has_ending(path, &["idx"]) {
        Found::Shards(vec![path.with_extension("bin")])
    } else if !path.exists() && beside("bin").is_file() && beside("idx").is_file() {
        // Megatron names its data without an ending.
        Found::Shards(vec![beside("bin")])
    } else {
        Found::Text(path.to_path_buf())
    }
}

fn has_ending(path: &Path, endings: &[&str]) -> bool {
    let ending = path.extension().and_then(|ending| ending.to_str());
    ending.is_some_and(|ending| endings.iter().any(|known| ending.eq_ignore_ascii_case(known)))
}

fn is_pattern(text: &str) -> bool {
    text.contains(['*', '?', '['])
}

/// The names of a list: what lies between commas, or more of it where that is a file.
fn listed(text: &str) -> Vec<String> {
    let parts: Vec<&str> = text.split(',').map(str::trim).collect();
    let (mut names, mut at) = (Vec::new(), 0);
    while let Some(part) = parts.get(at) {
        let joined = (2..=COMMAS).filter_map(|count| Some((count, parts.get(at..at + count)?.join(","))));
        let longer =
            if Path::new(part).exists() { None } else { joined.into_iter().find(|(_, name)| Path::new(name).exists()) };
        let (count, name) = longer.unwrap_or((1, (*part).to_owned()));
        names.extend(Some(name).filter(|name| !name.is_empty()));
        at += count;
    }
    names
}

/// The files that a pattern matches, or the one of that name.
fn matching(name: &str) -> Result<Vec<PathBuf>> {
    if !is_pattern(name) || Path::new(name).exists() {
        return Ok(vec![PathBuf::from(name)]);
    }
    let refuse = |why: String| Error::input(format!("{name} {why}; name data with --data"));
    let paths = glob::glob(name).map_err(|cause| refuse(format!("is no pattern of file names: {}", cause.msg)))?;
    let files: Result<Vec<PathBuf>, _> = paths.collect();
    let files = files.map_err(|cause| Error::io("read", cause.path(), cause.error()))?;
    if files.is_empty() { Err(refuse("matches no file".to_owned())) } else { Ok(files) }
}

/// What `files` are as one, which `path` names: a list if they were given `by_name`, else a pattern.
fn together(path: &Path, files: Vec<PathBuf>, by_name: bool) -> Result<Found> {
    let shown = path.display();
    if let [only] = &files[..] {
        return if only.is_dir() { in_directory(only) } else { Ok(single(only)) };
    }
    if let Some(dir) = files.iter().find(|file| file.is_dir() && by_name) {
        return Err(Error::input(format!(
            "{shown} lists the directory {}: name it alone, or give each of several a weight with \
             --set 'data.sources=[{{path=\"DIR\", weight=1}}]'",
            dir.display()
        )));
    }
    // An index is read with its data.
    let data = files.into_iter().filter(|file| !file.is_dir());
    let (shards, others): (Vec<PathBuf>, Vec<PathBuf>) =
        data.filter(|file| !has_ending(file, &["idx"])).partition(|file| has_ending(file, &["bin"]));
    match (&shards[..], &others[..]) {
        ([], [only]) if !by_name => Ok(single(only)),
        ([], [first, ..]) => Err(to_prepare(path, others.len(), first)),
        ([first, ..], [text, ..]) if by_name => Err(Error::usage(format!(
            "{shown} lists {}, which is no token shard, beside {}: make tokens of it with `tokenformer prepare`, or leave it \
             out",
            text.display(),
            first.display()
        ))),
        _ => by_purpose(path, shards, !by_name),
    }
}

fn in_directory(dir: &Path) -> Result<Found> {
    if dir.join(MANIFEST).exists() {
        return Ok(Found::Prepared(dir.to_path_buf()));
    }
    let entries = std::fs::read_dir(dir).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let entries = entries.map_err(|cause| Error::io("read", dir, &cause))?;
    let visible = |name: &std::ffi::OsStr| !name.as_encoded_bytes().starts_with(b".");
    let mut files: Vec<PathBuf> =
        entries.iter().filter(|entry| visible(&entry.file_name())).map(std::fs::DirEntry::path).collect();
    files.sort_unstable();
    let (shards, others): (Vec<PathBuf>, Vec<PathBuf>) = files.into_iter().partition(|file| has_ending(file, &["bin"]));
    if !shards.is_empty() {
        return by_purpose(dir, shards, true);
    }
    let texts: Vec<&PathBuf> = others.iter().filter(|file| has_ending(file, &TEXTS)).collect();
    match texts.first() {
        Some(first) => Err(to_prepare(dir, texts.len(), first)),
        None => Err(Error::input(format!(
            "{} is a directory without data: there is no {MANIFEST} of `tokenformer prepare` in it, no token shard (.bin) and \
             no text; name a text file or a directory of token shards with --data",
            dir.display()
        ))),
    }
}

fn to_prepare(path: &Path, count: usize, first: &Path) -> Error {
    let (shown, first) = (path.display(), first.display());
    Error::input(format!(
        "{shown} has {count} files that are no token shards, such as {first}; name a text file, or make tokens of all with \
         `tokenformer prepare {shown} --out TOKENS` and train on --data TOKENS"
    ))
}

/// What the name of a shard says it is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Train,
    Val,
    Test,
    Unsaid,
}

/// What the name of a shard says, and the rest of it.
fn purpose(file: &Path) -> (Purpose, String) {
    let name = file.file_stem().unwrap_or_default().to_string_lossy().to_lowercase();
    let mut found = Purpose::Unsaid;
    let mut rest: Vec<&str> = Vec::new();
    for word in name.split(|c: char| !c.is_alphanumeric()) {
        match word {
            "train" | "training" => found = Purpose::Train,
            "val" | "valid" | "validation" => found = Purpose::Val,
            "test" => found = Purpose::Test,
            number if number.bytes().all(|byte| byte.is_ascii_digit()) => {}
            word => rest.push(word),
        }
    }
    (found, rest.join("_"))
}

/// Shards by what their names are for, where some are for training and some for validation. Found ones are `of_one` set.
fn by_purpose(path: &Path, shards: Vec<PathBuf>, of_one: bool) -> Result<Found> {
    let said: Vec<(Purpose, String)> = shards.iter().map(|file| purpose(file)).collect();
    let has = |wanted| said.iter().any(|(purpose, _)| *purpose == wanted);
    if !has(Purpose::Train) || !has(Purpose::Val) {
        return Ok(Found::Shards(shards));
    }
    let shown = path.display();
    if let Some((file, _)) = shards.iter().zip(&said).find(|(_, (purpose, _))| *purpose == Purpose::Unsaid) {
        return Err(Error::input(format!(
            "{shown} has shards named train and val, and {}, which is neither: name those to train on by a pattern, and those to \
             validate on with --set data.val_path=PATTERN",
            file.display()
        )));
    }
    let sets: BTreeSet<&str> = said.iter().map(|(_, rest)| rest.as_str()).collect();
    if sets.len() > 1 && of_one {
        let names: Vec<&str> =
            sets.into_iter().take(3).map(|name| if name.is_empty() { "train" } else { name }).collect();
        return Err(Error::input(format!(
            "{shown} has shards of several data sets ({}): name one of them by a pattern such as '{}*.bin', or give each a \
             weight with data.sources",
            names.join(", "),
            names.first().unwrap_or(&"")
        )));
    }
    let of = |wanted| {
        let kept = shards.iter().zip(&said).filter(|(_, (purpose, _))| *purpose == wanted);
        kept.map(|(file, _)| file.clone()).collect()
    };
    Ok(Found::Split { train: of(Purpose::Train), val: of(Purpose::Val), test: of(Purpose::Test) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_understood_as_their_makers_lay_them_out() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let make = |names: &[&str]| {
            names.iter().for_each(|name| {
                std::fs::create_dir_all(at(name).parent().unwrap()).unwrap();
                std::fs::write(at(name), b"ab").unwrap();
            })
        };
        make(&["nanogpt/train.bin", "nanogpt/val.bin", "nanogpt/meta.pkl", "nanogpt/input.txt", "nanogpt/prepare.py"]);
        make(&[
            "fineweb/fineweb_train_000002.bin",
            "fineweb/fineweb_train_000001.bin",
            "fineweb/fineweb_val_000000.bin",
        ]);
        make(&[
            "shakespeare/tiny_shakespeare_train.bin",
            "shakespeare/tiny_shakespeare_val.bin",
            "shakespeare/._x.bin",
        ]);
        make(&[
            "plain/b.bin",
            "plain/a.bin",
            "plain/a,c.bin",
            "texts/a.md",
            "texts/b.md",
            "megatron/gpt_text_document.bin",
        ]);
        make(&["megatron/gpt_text_document.idx", "prepared/manifest.json", "prepared/x.bin", "empty/x.py"]);
        make(&["two/a_train.bin", "two/b_train.bin", "two/a_val.bin", "odd/train.bin", "odd/val.bin", "odd/gpt2.bin"]);
        let found = |name: &str| find(&at(name));
        let paths = |names: &[&str]| names.iter().map(|name| at(name)).collect::<Vec<_>>();
        let split =
            |train: &[&str], val: &[&str]| Found::Split { train: paths(train), val: paths(val), test: Vec::new() };
        assert_eq!(found("nanogpt").unwrap(), split(&["nanogpt/train.bin"], &["nanogpt/val.bin"]));
        let fineweb = || {
            let train = ["fineweb/fineweb_train_000001.bin", "fineweb/fineweb_train_000002.bin"];
            split(&train, &["fineweb/fineweb_val_000000.bin"])
        };
        assert_eq!((found("fineweb").unwrap(), found("fineweb/*.bin").unwrap()), (fineweb(), fineweb()));
        let [train, val] = ["train", "val"].map(|part| format!("shakespeare/tiny_shakespeare_{part}.bin"));
        assert_eq!(found("shakespeare").unwrap(), split(&[&train], &[&val]));
        let shards = |names: &[&str]| Found::Shards(paths(names));
        assert_eq!(
            found("fineweb/*_train_*").unwrap(),
            shards(&["fineweb/fineweb_train_000001.bin", "fineweb/fineweb_train_000002.bin"])
        );
        assert_eq!(found("plain").unwrap(), shards(&["plain/a,c.bin", "plain/a.bin", "plain/b.bin"]));
        assert_eq!(found("plain/a,c.bin").unwrap(), shards(&["plain/a,c.bin"]));
        let list = format!("{},{}", at("plain/b.bin").display(), at("plain/a,c.bin").display());
        assert_eq!(find(Path::new(&list)).unwrap(), shards(&["plain/b.bin", "plain/a,c.bin"]));
        for name in ["megatron", "megatron/*", "megatron/gpt_text_document", "megatron/gpt_text_document.idx"] {
            assert_eq!(found(name).unwrap(), shards(&["megatron/gpt_text_document.bin"]), "{name}");
        }
        for name in ["prepared", "prepared/manifest.json"] {
            assert_eq!(found(name).unwrap(), Found::Prepared(at("prepared")));
        }
        assert_eq!(found("texts/a.md").unwrap(), Found::Text(at("texts/a.md")));
        assert_eq!(found("none.bin").unwrap(), shards(&["none.bin"]));
        let texts = format!("{},{}", at("plain/b.bin").display(), at("texts/a.md").display());
        let dirs = format!("{},{}", at("plain").display(), at("nanogpt").display());
        for (name, said) in [
            ("texts", "`tokenformer prepare "),
            ("texts/*.md", "2 files that are no token shards"),
            ("empty", "without data"),
            ("none*.bin", "matches no file"),
            ("two", "several data sets (a, b)"),
            ("odd", "gpt2.bin, which is neither"),
            (texts.as_str(), "a.md, which is no token shard"),
            (dirs.as_str(), "data.sources"),
            ("plain/[", "no pattern"),
        ] {
            let error = found(name).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
    }
}
