//! Models of this program in the forms of other programs, and back.
//!
//! | file | idea |
//! |---|---|
//! | `neox` | parameters of a Transformer as the tensors of `GPTNeoXForCausalLM`, and back |
//! | `neox_config` | its `config.json`, written and read |

pub(crate) mod neox;
pub(crate) mod neox_config;
