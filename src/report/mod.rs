//! Reports as text: tables, pictures and pages, and numbers as people read them.
//!
//! | file | idea |
//! |---|---|
//! | [`number`] | counts, bytes, FLOPs, seconds and losses in words |
//! | [`escape`] | text inside HTML, SVG, Markdown and paths; JSON lines |
//! | [`table`] | one table, written as Markdown, HTML or CSV |
//! | [`page`] | an HTML page that stands alone |
//! | [`svg`], [`scale`], [`place`] | elements of a picture, axes, places for labels that touch nothing |
//! | [`shell`] | words of a command |
//! | [`chart`] | curves over an axis, with bands and marks |
//!
//! A leaf: nothing here knows what is reported.

pub(crate) mod chart;
pub(crate) mod escape;
pub(crate) mod number;
pub(crate) mod page;
pub(crate) mod place;
pub(crate) mod scale;
pub(crate) mod shell;
pub(crate) mod svg;
pub(crate) mod table;
