//! A large text that is trained on with a tokenizer of sub-words: prepared once into the cache folder, named by its content.
//!
//! A small one is made into tokens in memory each time, which takes less than a second.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::state::{self, OutputState};
use super::{Kind, MOST_TOKENS, Request, ValBy, Wanted, job};
use crate::cache;
use crate::checkpoint::{FileDigest, RunLock, check_unlocked};
use crate::config::TokenizerKind;
use crate::console::{detail, note, slowly, warn};
use crate::data::manifest::{Manifest, TOKENIZER};
use crate::data::{Tokenizer, shard};
use crate::error::{Error, Result};
use crate::report::number::{self, hexadecimal};

/// Bytes of a text above which it is prepared.
const LARGE: u64 = 8 << 20;
/// The folder in the cache folder.
const FOLDER: &str = "prepared";

/// Token shards of a text, and the tokenizer that made them.
#[derive(Debug)]
pub(crate) struct CachedText {
    pub train: PathBuf,
    pub val: PathBuf,
    pub tokenizer: Tokenizer,
}

/// The tokens of the text at `path`, validated on the text at `val_path` or on its end, where it is large and its tokens are of
/// sub-words; `None` where it is to be read into memory, as also where there is no room in the cache folder.
///
/// # Errors
/// A text of more tokens than a shard may have.
pub(crate) fn cached_text(
    path: &Path,
    val_path: Option<&Path>,
    val_fraction: f64,
    tokenizer: Wanted,
) -> Result<Option<CachedText>> {
    let of_words = match &tokenizer {
        Wanted::Kind(kind) => !matches!(kind, TokenizerKind::Byte | TokenizerKind::Char),
        Wanted::Known(tokenizer) => !matches!(tokenizer, Tokenizer::Byte | Tokenizer::Char(_)),
    };
    let size = |path: &Path| path.metadata().ok().filter(|stat| stat.is_file()).map(|stat| stat.len());
    let paths = || [Some(path), val_path].into_iter().flatten();
    let is_large = || paths().any(|path| size(path).is_some_and(|bytes| bytes > LARGE));
    let are_texts = || paths().all(|path| size(path).is_some() && crate::data::is_text(path));
    if !of_words || !is_large() || !are_texts() {
        return Ok(None);
    }
    let both = || -> Result<CachedText> {
        let share = if val_path.is_some() { 0.0 } else { val_fraction };
        let (dir, tokenizer) = one(path, share, tokenizer)?;
        let shard = |dir: &Path, name: &str| dir.join(format!("{name}_000000.bin"));
        let train = shard(&dir, "train");
        match val_path {
            None => Ok(CachedText { train, val: shard(&dir, "val"), tokenizer }),
            Some(other) => {
                let (dir, tokenizer) = one(other, 0.0, Wanted::Known(tokenizer))?;
                Ok(CachedText { train, val: shard(&dir, "train"), tokenizer })
            }
        }
    };
    match both() {
        Ok(found) => Ok(Some(found)),
        Err(usage @ Error::Usage(_)) => Err(usage),
        // Reading it into memory says what is wrong with a text, and does without a cache.
        Err(error) => {
            warn(format_args!("the tokens of {} are not kept for the next time: {error}", path.display()));
            Ok(None)
        }
    }
}

/// The directory that one text is prepared in, and the tokenizer.
fn one(path: &Path, val_fraction: f64, tokenizer: Wanted) -> Result<(PathBuf, Tokenizer)> {
    let content = slowly(&format!("reading {}", path.display()), || FileDigest::read(path))?.sha256;
    let named = match &tokenizer {
        Wanted::Kind(TokenizerKind::File(file)) => FileDigest::read(file)?.sha256,
        Wanted::Kind(kind) => kind.to_string(),
        Wanted::Known(tokenizer) => tokenizer.to_file_text()?,
    };
    let key = Sha256::digest(format!("{} {content} {val_fraction} {named}", env!("CARGO_PKG_VERSION")));
    let key: String = hexadecimal(&key).chars().take(32).collect();
    let dir = cache::folder(&format!("{FOLDER}/{key}"))
        .ok_or_else(|| Error::input("there is no cache folder; name one with TOKENFORMER_CACHE_DIR"))?;
    let request = Request {
        inputs: vec![path.to_owned()],
        format: Some("txt".parse::<Kind>()?),
        out: dir.clone(),
        tokenizer,
        shard_tokens: MOST_TOKENS,
        val_by: Some(ValBy::End),
        val_fraction: Some(val_fraction),
        text_key: "text".to_owned(),
        skip_bad: false,
        threads: threads(),
        overwrite: false,
        by_content: true,
    };
    let lock = lock(&dir)?;
    // What cannot be gone on with is nobody's loss.
    let whole = match state::look(&dir) {
        Ok(OutputState::Finished(manifest)) => is_whole(&dir, &manifest),
        Ok(_) => true,
        Err(_) => false,
    };
    if !whole {
        state::clear(&dir)?;
    }
    let prepared = job::prepare(&request, &AtomicBool::new(false))?;
    lock.remove();
    match prepared.manifest.train.shards.len() {
        1 => {}
        _ => {
            return Err(Error::usage(format!(
                "{} has more than {MOST_TOKENS} tokens: prepare it with `tokenformer prepare`, and train on that folder",
                path.display()
            )));
        }
    }
    let (shown, made) = (dir.display(), number::grouped(prepared.manifest.train.tokens + prepared.manifest.val.tokens));
    match prepared.was_finished {
        true => detail(format_args!("tokens of {} are read from {shown}", path.display())),
        false => note(format_args!("{made} tokens of {} are kept in {shown} for the next time", path.display())),
    }
    let tokenizer = Tokenizer::read_file(&dir.join(TOKENIZER), "remove its directory")?;
    Ok((dir, tokenizer))
}

/// Threads for work that nobody gave a number for.
pub(super) fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Whether the shards are as long as the manifest says.
fn is_whole(dir: &Path, manifest: &Manifest) -> bool {
    let width = shard::width_for(manifest.vocab_size);
    let all = manifest.train.shards.iter().chain(&manifest.val.shards);
    all.into_iter().all(|listed| {
        dir.join(&listed.file).metadata().is_ok_and(|stat| stat.len() == shard::bytes_of(width, listed.tokens))
    })
}

/// Waits for another process that prepares the same text.
fn lock(dir: &Path) -> Result<RunLock> {
    let mut waited = false;
    while check_unlocked(dir).is_err() {
        if !waited {
            note("waiting for another tokenformer, which makes tokens of the same text");
        }
        waited = true;
        std::thread::sleep(Duration::from_millis(200));
    }
    RunLock::take(dir)
}
