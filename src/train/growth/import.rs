//! Where a model is from that was not trained here from its start: the first entry of its lineage.

use crate::checkpoint::FileDigest;
use serde::{Deserialize, Serialize};

/// Files of another program, or of this one as another changed them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Import {
    /// Name of the file or directory that was given.
    pub name: String,
    /// What form it had, in words.
    pub form: String,
    /// Its weights, and what else of it says what the model is.
    pub files: Vec<FileDigest>,
}

impl Import {
    /// One line for people.
    pub fn describe(&self) -> String {
        format!("imported from {}, {}", self.name, self.form)
    }
}
