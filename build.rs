//! Lists the files of `shaders/` with their text, so that a new one needs no line anywhere.

use std::error::Error;
use std::path::Path;
use std::{env, fs};

fn main() -> Result<(), Box<dyn Error>> {
    let folder = Path::new(&env::var("CARGO_MANIFEST_DIR")?).join("shaders");
    println!("cargo::rerun-if-changed={}", folder.display());
    let mut names = Vec::new();
    for entry in fs::read_dir(&folder)? {
        let name = entry?.file_name();
        names.extend(name.to_str().filter(|name| name.ends_with(".wgsl")).map(str::to_owned));
    }
    names.sort();
    let line = |name: &String| format!("    ({name:?}, include_str!({:?})),\n", folder.join(name));
    let list: String = names.iter().map(line).collect();
    let text =
        format!("/// Name and text of every file in `shaders/`.\npub const FILES: &[(&str, &str)] = &[\n{list}];\n");
    fs::write(Path::new(&env::var("OUT_DIR")?).join("shaders.rs"), text)?;
    Ok(())
}
