//! Models of this program in the forms of other programs, and back.
//!
//! | file | idea |
//! |---|---|
//! | `neox` | parameters of a Transformer as the tensors of `GPTNeoXForCausalLM`, and back |
//! | `neox_config` | its `config.json`, written and read |
//! | `piece` | a tensor of a file, and the parameters it is made of |
//! | `export` | a model as files for transformers, llama.cpp and others |
//! | `weights` | tensors in files of other programs, one at a time |
//! | `import` | what of them is a model of this program |

pub(crate) mod export;
mod import;
mod neox;
mod neox_config;
mod piece;
mod weights;

pub use import::{Imported, Options, official_name, open};
