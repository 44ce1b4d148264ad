//! Does growing pay? Several ways to train a model (*arms*), each with several seeds, compared fairly.
//!
//! [`mod@file`] and [`arm`] read what is to be compared, [`budget`] counts what it costs before anything runs, [`plan`] turns arms,
//! lengths, learning rates and seeds into a list of ordinary runs, `runner` takes those that are not done yet, and
//! [`results`] reads them back from their `metrics.jsonl`; `gather` puts together what was run without a study.
//! `comparison` then holds every arm against a reference at equal tokens, equal FLOPs and equal FLOPs after growth, and
//! decides what the intervals allow to say. `report/` says it, in words, tables and pictures; nothing else imports it.
//!
//! Not here: how a model grows (`model`), how a run goes on after a crash (`train`). Nothing in this
//! module decides in advance which arm is better, and no number is extrapolated.

pub mod arm;
pub mod budget;
pub(crate) mod changes;
pub(crate) mod comparison;
pub(crate) mod curve;
pub mod file;
pub(crate) mod gather;
pub mod plan;
pub(crate) mod predict;
pub(crate) mod report;
pub mod results;
pub(crate) mod runner;
pub(crate) mod statistics;
