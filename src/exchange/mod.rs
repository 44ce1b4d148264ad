//! Models of this program in the forms of other programs, and back.
//!
//! | file | idea |
//! |---|---|
//! | `neox` | parameters of a Transformer as the tensors of `GPTNeoXForCausalLM`, and back |
//! | `neox_config` | its `config.json`, written and read |
//! | `weights` | tensors in files of other programs, one at a time |
//! | `import` | what of them is a model of this program |

mod import;
pub(crate) mod neox;
pub(crate) mod neox_config;
mod weights;

pub use import::{Imported, Options, open};
