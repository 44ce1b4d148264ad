//! Models of this program in the forms of other programs, and back.
//!
//! | file | idea |
//! |---|---|
//! | `weights` | tensors in files of other programs, one at a time |
//! | `import` | what of them is a model of this program |

mod import;
mod weights;

pub use import::{Imported, Options, open};
