//! How much header a file's values justify, told before anything is allocated by it.
//!
//! A header takes up to 50 times its bytes once parsed (`[0,0,...]`), so a file of nothing else could fill the memory.
//! A checkpoint is nearly all values, and their size says what may be spent on describing them: reading a file never
//! takes more than twice its size and 1 MiB. Writing asks the same, as what is written must be readable.

/// Longest header accepted or written, in bytes; the format itself allows 100 MB.
const MAX_HEADER: u64 = 16 << 20;
/// Header of a file with few values, in bytes.
const HEADER: u64 = 64 << 10;
/// Memory for the parsed header of such a file.
const MEMORY: u64 = 768 << 10;
/// Memory that each of `[{,:` outside texts stands for, at most, as measured.
const A_SIGN: u64 = 90;
/// The same for a `{` in the metadata, whose maps are trees.
const A_MAP: u64 = 700;

/// Longest header of a file with `values` bytes of values.
pub(super) fn longest_header(values: u64) -> u64 {
    (HEADER + values / 8).min(MAX_HEADER)
}

/// Memory that may still be spent on parsing a header.
#[derive(Debug, Clone, Copy)]
pub(super) struct ParseBudget(u64);

impl ParseBudget {
    /// That of a file with `values` bytes of values.
    pub(super) fn new(values: u64) -> Self {
        Self(MEMORY + values / 4 * 3)
    }

    /// What is left after parsing the JSON of the header; `None` where it does not suffice.
    pub(super) fn after_header(self, json: &[u8]) -> Option<Self> {
        self.after(json, A_SIGN)
    }

    /// What is left after parsing the JSON of the metadata.
    pub(super) fn after_metadata(self, json: &[u8]) -> Option<Self> {
        self.after(json, A_MAP)
    }

    fn after(self, json: &[u8], a_map: u64) -> Option<Self> {
        let (mut inside, mut escaped, mut spent) = (false, false, 0);
        for &byte in json {
            match byte {
                _ if escaped => escaped = false,
                b'\\' if inside => escaped = true,
                b'"' => inside = !inside,
                b'{' if !inside => spent += a_map,
                b'[' | b',' | b':' if !inside => spent += A_SIGN,
                _ => {}
            }
        }
        self.0.checked_sub(spent).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_outside_texts_costs() {
        let left = |json: &str| ParseBudget::new(0).after_header(json.as_bytes()).map(|budget| MEMORY - budget.0);
        assert_eq!(left(r#"{"a{[\",:": [1, 2]}"#), Some(4 * A_SIGN));
        assert_eq!(left(r#""\\",,"#), Some(2 * A_SIGN));
        assert_eq!(left(&"[".repeat((MEMORY / A_SIGN) as usize)), Some(MEMORY / A_SIGN * A_SIGN));
        assert_eq!(left(&"[".repeat((MEMORY / A_SIGN + 1) as usize)), None);
    }

    #[test]
    fn values_justify_a_header() {
        assert_eq!((longest_header(0), longest_header(80 << 10)), (64 << 10, 74 << 10));
        assert_eq!(longest_header(u64::MAX), MAX_HEADER);
        // The signs of one tensor in a header.
        let tensor = r#","layers.0.mlp.key_param_tokens":{"dtype":"F32","shape":[5,3],"data_offsets":[0,60]}"#;
        for (tensors, values_each, fits) in [(600, 60, true), (900, 60, false), (900, 1000, true), (50_000, 2000, true)]
        {
            let budget = ParseBudget::new(tensors * values_each);
            assert_eq!(budget.after_header(tensor.repeat(tensors as usize).as_bytes()).is_some(), fits, "{tensors}");
        }
    }
}
