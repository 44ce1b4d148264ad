//! Does growing pay? Several ways to train a model (*arms*), each with several seeds, compared fairly.
//!
//! [`mod@file`] and [`arm`] read what is to be compared, [`budget`] counts what it costs before anything runs, [`plan`] turns arms,
//! lengths, learning rates and seeds into a list of ordinary runs, [`runner`] takes those that are not done yet, and
//! [`results`] reads them back from their `metrics.jsonl`. [`comparison`] then holds every arm against a reference at
//! equal tokens, equal FLOPs and equal FLOPs after growth, [`verdict`] says in words what the intervals allow, and
//! [`html`], [`markdown`] and [`jsonl`] write it down.
//!
//! Not here: how a model grows (the model room), how a run goes on after a crash (the train room). Nothing in this
//! room decides in advance which arm is better, and no number is extrapolated.

pub mod arm;
pub mod budget;
pub mod changes;
pub mod comparison;
pub mod curve;
pub mod file;
pub mod gather;
pub mod html;
pub mod jsonl;
pub mod markdown;
pub mod plan;
pub mod plot;
pub mod predict;
pub mod results;
pub mod runner;
pub mod statistics;
pub mod tables;
pub mod verdict;
pub mod words;
