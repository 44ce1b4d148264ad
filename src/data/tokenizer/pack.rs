//! The text of a tokenizer as it travels inside a checkpoint: gzip, in base64.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use flate2::Compression;
use flate2::bufread::{GzDecoder, GzEncoder};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::io::Read;

use crate::error::{Error, Result};
use crate::report::number::hexadecimal;

/// Most bytes of a tokenizer's file. Those of the largest vocabularies have a half of it; what is parsed takes several times
/// as much memory.
pub(super) const MAX_BYTES: u64 = 64 << 20;

/// A packed text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Packed {
    sha256: String,
    bytes: u64,
    gzip: String,
}

/// SHA-256 in hexadecimal.
pub(super) fn sha256(text: &str) -> String {
    hexadecimal(&Sha256::digest(text))
}

impl Packed {
    pub(super) fn of(text: &str) -> Self {
        let mut gzip = Vec::new();
        // Reading memory does not fail.
        let _ = GzEncoder::new(text.as_bytes(), Compression::default()).read_to_end(&mut gzip);
        Self { sha256: sha256(text), bytes: text.len() as u64, gzip: STANDARD.encode(gzip) }
    }

    /// The text, which is as long as it says and of that hash: no more is unpacked than it says.
    pub(super) fn text(&self) -> Result<String> {
        let damaged = |what: String| Error::input(format!("the packed tokenizer {what}; the file is damaged"));
        if self.bytes > MAX_BYTES {
            return Err(damaged(format!("is {} bytes long, but at most {MAX_BYTES} are read", self.bytes)));
        }
        let gzip = STANDARD.decode(&self.gzip).map_err(|e| damaged(format!("is not base64: {e}")))?;
        let mut text = Vec::new();
        let mut unpacked = GzDecoder::new(gzip.as_slice()).take(self.bytes + 1);
        unpacked.read_to_end(&mut text).map_err(|e| damaged(format!("is not gzip: {e}")))?;
        if text.len() as u64 != self.bytes {
            return Err(damaged(format!("is not the {} bytes that it says", self.bytes)));
        }
        let found = hexadecimal(&Sha256::digest(&text));
        if found != self.sha256 {
            return Err(damaged(format!("has the SHA-256 {found} and says {:?}", self.sha256)));
        }
        String::from_utf8(text).map_err(|_| damaged("is not UTF-8".to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_comes_back_and_a_bomb_does_not_go_off() {
        let text = "{\"a\": \"é\"}\n".repeat(1000);
        let packed = Packed::of(&text);
        assert!(packed.gzip.len() < 200);
        assert_eq!(packed.text().unwrap(), text);
        let refusal = |packed: Packed| packed.text().unwrap_err().to_string();
        let short = refusal(Packed { bytes: 10, ..packed.clone() });
        assert!(short.contains("not the 10 bytes"), "{short}");
        let long = refusal(Packed { bytes: u64::MAX, ..packed.clone() });
        assert!(long.contains("at most 67108864"), "{long}");
        let other = refusal(Packed { sha256: "00".to_owned(), ..packed.clone() });
        assert!(other.contains("says \"00\""), "{other}");
        for gzip in ["", "!", "AAAA", &packed.gzip[..packed.gzip.len() / 2 / 4 * 4]] {
            refusal(Packed { gzip: gzip.to_owned(), ..packed.clone() });
        }
    }
}
