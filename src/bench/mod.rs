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

pub mod attention;
mod ceiling;
pub mod compare;
mod cooperative;
pub mod fma;
pub mod matmul;
pub mod ops;
pub mod output;
pub mod picture;
mod probe;
pub mod record;
pub mod regress;
pub mod roofline;
pub mod step;
mod timing;
