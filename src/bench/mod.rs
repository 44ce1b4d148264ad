//! How fast the device and each kernel are, for people who write shaders.
//!
//! | file | idea |
//! |---|---|
//! | [`timing`] | chains of dispatches, samples, median and spread, which clock to believe |
//! | [`record`] | one timed case, and the report it belongs to |
//! | [`output`] | Markdown, CSV, JSON, JSON lines |
//! | [`roofline`] | what the device can do at most: `ceiling`, `fma` and `cooperative` are its parts |
//! | [`probe`] | whether a GPU kept its speed meanwhile |
//! | [`matmul`], [`attention`], [`ops`], [`step`] | what is timed: products by size, attention at a model's shape, every operator, whole optimizer steps |
//! | [`compare`], [`regress`] | two reports against each other |
//! | [`picture`] | the roofline as a picture |
//!
//! Nothing is timed before its result was held against a reference.

pub(crate) mod attention;
mod ceiling;
pub(crate) mod compare;
mod cooperative;
pub(crate) mod fma;
pub(crate) mod matmul;
pub(crate) mod ops;
pub(crate) mod output;
pub(crate) mod picture;
mod probe;
pub(crate) mod record;
pub(crate) mod regress;
pub(crate) mod roofline;
pub(crate) mod step;
mod step_parts;
mod timing;
