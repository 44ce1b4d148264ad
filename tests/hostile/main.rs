//! Hostile files: every parser of a file gets inputs made to break it, and must accept or refuse each without a
//! panic, within 100 ms, and with a heap of at most twice the input and 1 MiB.
//!
//! Each file here attacks one parser: it makes valid files, damages their structure, puts lengths right again so that
//! the damage gets past the outermost check, and says what must hold of whatever is accepted. Large inputs and what
//! was found on the way are tests with names of their own.
//!
//! The short form is `cargo test --release --test hostile`; the full one sets the number of cases, see `attack`.

// clippy.toml allows these in tests, but not in the functions that tests share.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod attack;
mod checkpoint;
mod config;
mod dice;
mod foreign;
mod header;
mod meter;
mod sets;
mod shard;
mod tokenizer;
mod tokenizer_json;
