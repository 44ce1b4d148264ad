//! What a device can do, in a file: `devices --save` writes it, `plan --target` plans for it elsewhere.

use crate::checkpoint::{Files, replace};
use crate::error::{Error, Result};
use crate::gpu::device::Gpu;
use crate::kernel::Target;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Most bytes of such a file; real ones have a few hundred.
const MOST_BYTES: u64 = 64 << 10;

/// A device by name, and what it can do.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SavedTarget {
    /// Name, backend and driver, in a line.
    pub(super) adapter: String,
    /// Limits and features.
    pub(super) target: Target,
}

impl SavedTarget {
    /// Of an open device.
    pub(super) fn of(gpu: &Gpu) -> Self {
        Self { adapter: gpu.describe(), target: gpu.target }
    }

    /// What every WebGPU device offers.
    pub(super) fn webgpu() -> Self {
        Self { adapter: "any WebGPU device".to_owned(), target: Target::WEBGPU }
    }

    /// Writes it to `file`, which holds it whole or is left as it was.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub(super) fn write(&self, file: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self);
        let text = text.map_err(|e| Error::defect(format!("the target cannot be written as JSON: {e}")))?;
        replace(&Files, file, &format!("{text}\n")).map_err(|e| Error::io("write", file, &e))
    }

    /// Reads what [`SavedTarget::write`] wrote.
    ///
    /// # Errors
    /// No such file, or one that `devices --save` did not write; limits below those of WebGPU.
    pub(super) fn read(file: &Path) -> Result<Self> {
        let shown = file.display();
        let refuse = |why: String| {
            Error::input(format!(
                "{shown} is no target: {why}; write one with `tokenformer devices --save FILE` where the device is, or \
                 plan for `--target webgpu`"
            ))
        };
        let failed = |e| Error::io("read", file, &e);
        let mut text = Vec::new();
        // Not by its length: a device file has none, and no end.
        File::open(file).map_err(failed)?.take(MOST_BYTES + 1).read_to_end(&mut text).map_err(failed)?;
        if text.len() as u64 > MOST_BYTES {
            return Err(refuse(format!("it has more than {MOST_BYTES} bytes")));
        }
        let saved: Self = serde_json::from_slice(&text).map_err(|e| refuse(e.to_string()))?;
        saved.target.check().map_err(refuse)?;
        Ok(saved)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::{Dtype, Fragment, Fragments};
    use std::fs;

    #[test]
    fn a_target_is_read_back_and_others_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("card.json");
        let fragments = Fragments::of(|fragment| fragment == Fragment { side: 8, operand: Dtype::F32 });
        let target = Target { subgroup_sizes: [32, 64], f16: true, fragments, ..Target::WEBGPU };
        let saved = SavedTarget { adapter: "a card".to_owned(), target };
        saved.write(&file).unwrap();
        assert_eq!(SavedTarget::read(&file).unwrap(), saved);
        let text = fs::read_to_string(&file).unwrap();
        for (from, to, said) in [
            ("\"8f32\"", "\"9f32\"", "names no matrix unit"),
            ("\"f16\": true", "\"f16\": 1", "invalid type"),
            ("\"invocations\": 256", "\"invocations\": 0", "invocations is 0"),
            ("\"max_binding\": 134217728", "\"max_binding\": 4", "max_binding is 4"),
            ("    32,", "    64,\n    32,", "trailing characters"),
            ("    32,", "    65,", "subgroup_sizes"),
            ("{", "[", "expected"),
        ] {
            assert!(text.contains(from), "{from} in {text}");
            fs::write(&file, text.replacen(from, to, 1)).unwrap();
            let error = SavedTarget::read(&file).unwrap_err();
            assert!(error.exit_code() == 2 && error.to_string().contains(said), "{said}: {error}");
        }
        fs::write(&file, " ".repeat(MOST_BYTES as usize + 1)).unwrap();
        assert!(SavedTarget::read(&file).unwrap_err().to_string().contains("more than 65536 bytes"));
        assert!(SavedTarget::read(dir.path()).is_err(), "a folder");
        #[cfg(unix)]
        assert!(SavedTarget::read(Path::new("/dev/zero")).unwrap_err().to_string().contains("more than"));
    }
}
