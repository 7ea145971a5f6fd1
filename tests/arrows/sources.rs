//! The text of the tree.

use std::{fs, path::Path};

/// Folders that hold what is made from the tree, not the tree.
const NOT_THE_TREE: [&str; 4] = ["target", ".git", "run", "node_modules"];

/// One Rust file.
pub(crate) struct Source {
    /// Its path below the root.
    pub(crate) name: String,
    text: String,
}

impl Source {
    /// Whether it is below `folder`.
    pub(crate) fn is_in(&self, folder: &str) -> bool {
        Path::new(&self.name).starts_with(folder)
    }

    pub(crate) fn length(&self) -> usize {
        self.text.lines().count()
    }

    /// All of it but comments on lines of their own.
    pub(crate) fn code(&self) -> String {
        let code = self.text.lines().filter(|line| !line.trim_start().starts_with("//"));
        code.collect::<Vec<_>>().join("\n")
    }

    /// `NAME:LINE: TEXT` of each line with `word` in it. Comments and test modules are left out.
    pub(crate) fn lines_with(&self, word: &str) -> Vec<String> {
        let is_test = |part| ["tests", "tests.rs", "testing.rs"].iter().any(|name| part == *name);
        if Path::new(&self.name).iter().skip(1).any(is_test) {
            return Vec::new();
        }
        let lines: Vec<_> = self.text.lines().collect();
        let is_tests = |pair: &[&str]| pair[0].trim() == "#[cfg(test)]" && pair[1].ends_with('{');
        let end = lines.windows(2).position(is_tests).unwrap_or(lines.len());
        lines[..end]
            .iter()
            .enumerate()
            .filter(|(_, line)| line.contains(word) && !line.trim_start().starts_with("//"))
            .filter(|(_, line)| !line.contains(&format!("\"{word}")))
            .map(|(index, line)| format!("{}:{}: {}", self.name, index + 1, line.trim()))
            .collect()
    }
}

/// All Rust files of the tree.
pub(crate) fn rust_sources(root: &Path) -> Vec<Source> {
    let rust = |(name, text): (String, String)| name.ends_with(".rs").then_some(Source { name, text });
    text_files(root).into_iter().filter_map(rust).collect()
}

/// All files of the tree that are text, as (path below the root, text).
pub(crate) fn text_files(root: &Path) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let (path, kind) = (entry.path(), entry.file_type());
            if kind.as_ref().is_ok_and(fs::FileType::is_dir) {
                // Cargo marks its target folders, whatever their name, with this file.
                let made = path.join("CACHEDIR.TAG").exists();
                if !made && !NOT_THE_TREE.iter().any(|name| entry.file_name() == *name) {
                    folders.push(path);
                }
            } else if kind.is_ok_and(|kind| kind.is_file())
                && let Ok(text) = fs::read_to_string(&path)
                && let Ok(name) = path.strip_prefix(root)
            {
                found.push((name.to_string_lossy().into_owned(), text));
            }
        }
    }
    found.sort();
    found
}
