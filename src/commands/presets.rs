//! `tokenformer presets`: the runs there are by name, their size, and what each is for; or the settings of one.

use crate::config::{PRESETS, RunConfig};
use crate::error::Result;
use crate::report::number;

/// Prints them, or as TOML the settings of the one that is named.
///
/// # Errors
/// No preset of that name, or standard output that cannot be written to.
pub(crate) fn run(name: Option<&str>) -> Result<()> {
    if let Some(name) = name {
        return super::print(&RunConfig::preset(name)?.to_toml()?);
    }
    let (mut text, mut per_token) = (String::new(), false);
    for preset in &PRESETS {
        let config = RunConfig::preset(preset.name)?;
        let model = &config.model;
        let of_data = model.vocab_size == 0;
        per_token |= of_data;
        text += &format!(
            "{:<17}{:>13}{} parameters, {} layers x {}, {} tokens a sequence\n    {}\n",
            preset.name,
            number::grouped(model.param_count()),
            if of_data { "*" } else { " " },
            model.num_layers,
            model.hidden_size,
            model.seq_length,
            preset.what
        );
    }
    if per_token {
        text += "* and a row of the embedding for each token of the data's vocabulary\n";
    }
    text += "\nuse one with `tokenformer train --preset NAME`; `tokenformer presets NAME` prints its settings\n";
    super::print(&text)
}
