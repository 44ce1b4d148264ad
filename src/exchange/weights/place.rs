//! Which files of weights a path stands for: one file, or what a directory has in the order in which transformers looks.

use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use crate::checkpoint::{Files, Storage};
use crate::data::bounded;
use crate::error::{Error, Result};

/// What a directory may have: a file of all weights, or the index of several.
const NAMES: [&str; 4] =
    ["model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json"];
/// Most bytes of an index: 16,000 tensors take 2 MB.
const MOST_INDEX: u64 = 8 << 20;
/// Most bytes of a small file of a model, such as `config.json`.
const MOST_TEXT: u64 = 1 << 20;
/// Most files of a model.
const MOST_FILES: usize = 1000;

/// The files of a model.
#[derive(Debug)]
pub(crate) struct Place {
    /// What was given, or the index in it.
    pub(super) given: PathBuf,
    /// Where other files of the model are; `None` for a file by itself.
    pub(crate) dir: Option<PathBuf>,
    pub(super) files: Vec<PathBuf>,
    /// Index of the file that an index says a tensor is in.
    pub(super) index: BTreeMap<String, usize>,
}

/// What an index says.
#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

impl Place {
    /// The files that `path` stands for.
    ///
    /// # Errors
    /// A directory without weights, and an index that is none or names files elsewhere.
    pub(crate) fn find(path: &Path) -> Result<Self> {
        if !path.is_dir() {
            if path.file_name().is_some_and(|name| name.to_string_lossy().ends_with(".index.json")) {
                return Self::indexed(path.to_path_buf(), path.parent().unwrap_or(Path::new("")));
            }
            let (given, files) = (path.to_path_buf(), vec![path.to_path_buf()]);
            return Ok(Self { given, dir: None, files, index: BTreeMap::new() });
        }
        let there = NAMES.iter().map(|name| path.join(name)).find(|file| file.exists());
        match there {
            Some(index) if index.extension().is_some_and(|end| end == "json") => Self::indexed(index, path),
            Some(file) => {
                let (given, files) = (file.clone(), vec![file]);
                Ok(Self { given, dir: Some(path.to_path_buf()), files, index: BTreeMap::new() })
            }
            None => Err(Error::input(format!(
                "{} has no weights: it needs {}; name a file of weights to take that",
                path.display(),
                NAMES.join(", ")
            ))),
        }
    }

    fn indexed(index: PathBuf, dir: &Path) -> Result<Self> {
        let refuse = |what: String| Error::input(format!("{} {what}: fetch the model again", index.display()));
        let text = read_text(&index, MOST_INDEX)?;
        let Index { weight_map } =
            serde_json::from_str(&text).map_err(|cause| refuse(format!("is no index of weights: {cause}")))?;
        let mut files: Vec<PathBuf> = Vec::new();
        let mut known: BTreeMap<String, usize> = BTreeMap::new();
        let mut places = BTreeMap::new();
        for (tensor, file) in weight_map {
            let index = match known.get(&file) {
                Some(index) => *index,
                None => {
                    // A name, and nothing that leads out of the directory.
                    let mut parts = Path::new(&file).components();
                    if !matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None)) {
                        return Err(refuse(format!("names {file:?}, which is not a file beside it")));
                    }
                    if files.len() == MOST_FILES {
                        return Err(refuse(format!("names more than {MOST_FILES} files")));
                    }
                    files.push(dir.join(&file));
                    known.insert(file, files.len() - 1);
                    files.len() - 1
                }
            };
            places.insert(tensor, index);
        }
        if files.is_empty() {
            return Err(refuse("names no files".to_owned()));
        }
        let dir = Some(dir.to_path_buf());
        Ok(Self { given: index, dir, files, index: places })
    }

    /// The text of a small file beside the weights, if it is there.
    ///
    /// # Errors
    /// One that cannot be read, or is too long for such a file.
    pub(crate) fn text(&self, name: &str) -> Result<Option<String>> {
        let Some(path) = self.beside(name) else { return Ok(None) };
        read_text(&path, MOST_TEXT).map(Some)
    }

    /// The text of `file`, if it is as short as such a file of this program.
    ///
    /// # Errors
    /// One that cannot be read.
    pub(crate) fn short_text(file: &Path) -> Result<Option<String>> {
        let len = Files.open(file).map_err(|cause| Error::io("read", file, &cause))?.len;
        if len > MOST_TEXT { Ok(None) } else { read_text(file, MOST_TEXT).map(Some) }
    }

    /// The path of a file beside the weights, if it is there.
    pub(crate) fn beside(&self, name: &str) -> Option<PathBuf> {
        self.dir.as_ref().map(|dir| dir.join(name)).filter(|path| path.exists())
    }
}

/// The text of a file that has at most so many bytes.
fn read_text(path: &Path, most: u64) -> Result<String> {
    const AGAIN: &str = "fetch the model again";
    String::from_utf8(bounded::read(path, most, AGAIN)?)
        .map_err(|_| Error::input(format!("{} is not UTF-8: {AGAIN}", path.display())))
}
