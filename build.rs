//! Lists the files of `shaders/` with their text, so that a new one needs no line anywhere.

use std::path::Path;
use std::{env, fs};

fn main() {
    let folder = Path::new(&env::var("CARGO_MANIFEST_DIR").expect("cargo says where the package is")).join("shaders");
    println!("cargo::rerun-if-changed={}", folder.display());
    let mut names: Vec<String> = fs::read_dir(&folder)
        .expect("the folder of shaders")
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("a name in UTF-8"))
        .filter(|name| name.ends_with(".wgsl"))
        .collect();
    names.sort();
    let line = |name: &String| format!("    ({name:?}, include_str!({:?})),\n", folder.join(name));
    let list: String = names.iter().map(line).collect();
    let text =
        format!("/// Name and text of every file in `shaders/`.\npub const FILES: &[(&str, &str)] = &[\n{list}];\n");
    let to = Path::new(&env::var("OUT_DIR").expect("cargo says where to write")).join("shaders.rs");
    fs::write(to, text).expect("the list can be written");
}
