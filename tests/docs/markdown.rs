//! As much Markdown as the tests need: headings, links, fenced blocks of code.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

pub struct Page {
    pub path: PathBuf,
    pub text: String,
}

/// A fenced block of code.
pub struct Block {
    pub language: String,
    /// With their numbers, from 1.
    pub lines: Vec<(usize, String)>,
}

impl Block {
    pub fn text(&self) -> String {
        self.lines.iter().map(|(_, line)| format!("{line}\n")).collect()
    }
}

impl Page {
    pub fn read(path: &Path) -> Self {
        let text = fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        Self { path: path.to_owned(), text }
    }

    /// Its path from the folder of the repository.
    pub fn name(&self) -> String {
        self.path.strip_prefix(super::root()).unwrap().display().to_string()
    }

    /// The blocks of code, and the lines outside of them.
    fn parts(&self) -> (Vec<Block>, Vec<(usize, &str)>) {
        let (mut blocks, mut prose, mut open): (Vec<Block>, Vec<_>, Option<Block>) = (Vec::new(), Vec::new(), None);
        for (line, number) in self.text.lines().zip(1..) {
            match (line.trim_start().strip_prefix("```"), open.take()) {
                (Some(_), Some(block)) => blocks.push(block),
                (Some(language), None) => {
                    open = Some(Block { language: language.trim().to_owned(), lines: Vec::new() });
                }
                (None, Some(mut block)) => {
                    block.lines.push((number, line.to_owned()));
                    open = Some(block);
                }
                (None, None) => prose.push((number, line)),
            }
        }
        assert!(open.is_none(), "{}: a block of code does not end", self.name());
        (blocks, prose)
    }

    /// The lines outside of blocks of code, with their numbers.
    pub fn prose(&self) -> Vec<(usize, &str)> {
        self.parts().1
    }

    pub fn blocks(&self) -> Vec<Block> {
        self.parts().0
    }

    /// Line numbers and texts of the headings.
    pub fn headings(&self) -> Vec<(usize, String)> {
        let prose = self.prose().into_iter();
        let heading = |(number, line): (usize, &str)| {
            let text = line.trim_start_matches('#');
            (text.len() < line.len() && text.starts_with(' ')).then(|| (number, text.trim().to_owned()))
        };
        prose.filter_map(heading).collect()
    }

    /// What a link may name behind a `#`. Of equal headings the second gets a `-1`, and so on.
    fn anchors(&self) -> Vec<String> {
        let mut seen: BTreeMap<String, usize> = BTreeMap::new();
        let mut anchor = |heading: &str| {
            let slug = slug(heading);
            let count = seen.entry(slug.clone()).or_insert(0);
            *count += 1;
            if *count == 1 { slug } else { format!("{slug}-{}", *count - 1) }
        };
        self.headings().iter().map(|(_, heading)| anchor(heading)).collect()
    }

    /// Line numbers and targets of links and pictures.
    pub fn links(&self) -> Vec<(usize, String)> {
        let mut links = Vec::new();
        for (number, line) in self.prose() {
            // What is between back ticks is no link; what is not has an even place.
            let text: Vec<&str> = line.split('`').enumerate().map(|(i, s)| if i % 2 == 0 { s } else { "x" }).collect();
            let text = text.concat();
            let targets = text.split("](").skip(1).filter_map(|rest| rest.split_once(')'));
            links.extend(targets.map(|(target, _)| (number, target.to_owned())));
        }
        links
    }

    /// What is wrong with a link of this page, if anything is. Other servers are not asked.
    pub fn broken(&self, target: &str) -> Option<String> {
        if target.contains("://") || target.starts_with("mailto:") {
            return None;
        }
        let (file, anchor) = target.split_once('#').map_or((target, None), |(file, anchor)| (file, Some(anchor)));
        let path = if file.is_empty() { self.path.clone() } else { self.path.parent().unwrap().join(file) };
        if file.is_empty() || path.exists() {
            let anchor = anchor?;
            let text = if file.is_empty() { self.text.clone() } else { fs::read_to_string(&path).ok()? };
            let known = Page { path, text }.anchors().iter().any(|known| known == anchor);
            return (!known).then(|| format!("{target}: no heading has the anchor {anchor}"));
        }
        Some(format!("{target}: there is no such file"))
    }
}

/// The anchor that GitHub gives a heading.
fn slug(heading: &str) -> String {
    let kept = heading.to_lowercase().replace(' ', "-");
    kept.chars().filter(|c| c.is_alphanumeric() || matches!(c, '-' | '_')).collect()
}
