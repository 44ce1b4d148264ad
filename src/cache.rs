//! Small files that spare the next run some work: verdicts and measurements of this machine's adapters.
//!
//! They lie in the user's cache folder, or in `TOKENFORMER_CACHE_DIR`. Nothing depends on them: a file that cannot
//! be written or read is only forgotten.

use std::path::PathBuf;

/// The folder kept as `name`, which need not be there.
pub(crate) fn folder(name: &str) -> Option<PathBuf> {
    path(name)
}

fn path(name: &str) -> Option<PathBuf> {
    let dir = match std::env::var_os("TOKENFORMER_CACHE_DIR").filter(|dir| !dir.is_empty()) {
        Some(dir) => PathBuf::from(dir),
        None => directories::ProjectDirs::from("", "", "tokenformer")?.cache_dir().to_path_buf(),
    };
    Some(dir.join(name))
}

/// The text kept as `name`, if there is one.
pub fn read(name: &str) -> Option<String> {
    std::fs::read_to_string(path(name)?).ok()
}

/// Keeps `text` as `name`, in place of what was there; never half of it.
pub fn write(name: &str, text: &str) {
    let Some(path) = path(name) else { return };
    if let Some(dir) = path.parent() {
        let _ = std::fs::create_dir_all(dir);
    }
    let beside = path.with_extension(format!("{}.tmp", std::process::id()));
    if std::fs::write(&beside, text).is_ok() && std::fs::rename(&beside, &path).is_err() {
        let _ = std::fs::remove_file(&beside);
    }
}

/// FNV-1a of some texts: tells two sets of shaders apart in a file name.
pub(crate) fn fingerprint<'a>(texts: impl IntoIterator<Item = &'a str>) -> u64 {
    let bytes = texts.into_iter().flat_map(str::bytes);
    bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}
