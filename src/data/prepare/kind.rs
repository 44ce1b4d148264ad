//! What an input is, told by its name: its format, and how it is packed.

use std::str::FromStr;

use crate::error::Error;

/// What can be read, for people.
pub(super) const KNOWN: &str = ".txt, .md and .jsonl, each also .gz or .zst, and .parquet";

/// Where documents are in an input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// All of it is one.
    Text,
    /// Every line is an object of JSON with the text under a key.
    Lines,
    /// Every row has the text in a column.
    Parquet,
}

/// How an input is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Packing {
    Plain,
    Gzip,
    Zstd,
}

/// What an input is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Kind {
    pub(crate) format: Format,
    pub(crate) packing: Packing,
}

impl Kind {
    /// What a file of this name is; `None` where the name does not say.
    pub(super) fn of_name(name: &str) -> Option<Self> {
        let name = name.to_ascii_lowercase();
        let (stem, last) = name.rsplit_once('.')?;
        let (packing, extension) = match last {
            "gz" => (Packing::Gzip, stem.rsplit_once('.')?.1),
            "zst" | "zstd" => (Packing::Zstd, stem.rsplit_once('.')?.1),
            other => (Packing::Plain, other),
        };
        let format = match extension {
            "txt" | "text" | "md" | "markdown" => Format::Text,
            "jsonl" | "ndjson" => Format::Lines,
            // It packs its own pages.
            "parquet" if packing == Packing::Plain => Format::Parquet,
            _ => return None,
        };
        Some(Self { format, packing })
    }
}

impl FromStr for Kind {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let known =
            || Error::usage(format!("format is {text:?}, but must be txt, md, jsonl or parquet, such as jsonl.gz"));
        Self::of_name(&format!(".{text}")).ok_or_else(known)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_what_files_are() {
        let of = |format, packing| Some(Kind { format, packing });
        for (name, kind) in [
            ("a.txt", of(Format::Text, Packing::Plain)),
            ("dir.x/READ.ME.MD", of(Format::Text, Packing::Plain)),
            ("c4.00001.jsonl.gz", of(Format::Lines, Packing::Gzip)),
            ("a.ndjson.zst", of(Format::Lines, Packing::Zstd)),
            ("a.parquet", of(Format::Parquet, Packing::Plain)),
            ("a.gz", None),
            ("a.parquet.gz", None),
            ("a.json", None),
            ("txt", None),
        ] {
            assert_eq!(Kind::of_name(name), kind, "{name}");
        }
        assert_eq!("jsonl.zst".parse::<Kind>().unwrap().packing, Packing::Zstd);
        assert!("csv".parse::<Kind>().unwrap_err().to_string().contains("must be txt"));
    }
}
