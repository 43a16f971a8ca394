//! Every library that could be meant by a name, in the order in which names are looked for.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::resolve::{SearchPath, candidates, is_name, stem_of};

/// One file that a name stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The name that leads to it, with `_` for `-`.
    pub name: String,
    /// Where it was found; not canonical.
    pub path: PathBuf,
    /// The file that the name leads to instead of this one.
    pub shadowed_by: Option<PathBuf>,
}

/// Lists the files of all directories, in search order and by name within a directory. Nothing is opened: a
/// file may turn out not to be a monitor. A directory that is absent or cannot be read has none.
#[must_use]
pub fn list(search: &SearchPath) -> Vec<Found> {
    let mut first: HashMap<String, PathBuf> = HashMap::new();
    let mut all = Vec::new();
    for directory in search.directories() {
        for (name, path) in of_directory(directory) {
            let shadowed_by = first.get(&name).cloned();
            first.entry(name.clone()).or_insert_with(|| path.clone());
            all.push(Found { name, path, shadowed_by });
        }
    }
    all
}

fn of_directory(directory: &Path) -> Vec<(String, PathBuf)> {
    let entries = directory.read_dir().into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .filter_map(|entry| Some(stem_of(entry.file_name().to_str()?)?.to_owned()))
        // A name is looked for with `_`, so a file with `-` is never found.
        .filter(|name| is_name(name) && !name.contains('-'))
        .collect();
    names.sort();
    names.dedup();
    let files = |name: String| candidates(&name).into_iter().map(move |file| (name.clone(), file));
    let files = names.into_iter().flat_map(files).map(|(name, file)| (name, directory.join(file)));
    files.filter(|(_, path)| path.symlink_metadata().is_ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::super::resolve::Places;
    use super::*;

    #[test]
    fn files_are_listed_in_search_order_and_shadowed_ones_say_by_what() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        let suffix = std::env::consts::DLL_SUFFIX;
        let file = |directory: &str, stem: &str| root.join(directory).join(format!("{stem}{suffix}"));
        for (directory, stem) in
            [("b", "libfoo"), ("a", "libimmortal_monitor_foo"), ("a", "foo"), ("b", "zap")]
        {
            std::fs::create_dir_all(root.join(directory)).unwrap();
            std::fs::write(file(directory, stem), "").unwrap();
        }
        for odd in ["readme.txt", "lib.so.6", "no-dash.so"] {
            std::fs::write(root.join("a").join(odd), "").unwrap();
        }
        let given = [root.join("a"), root.join("nothing"), root.join("b")];
        let places = Places { given: &given, directory: root.to_owned(), ..Places::default() };
        let found = list(&SearchPath::new(&places));
        let chosen = file("a", "libimmortal_monitor_foo");
        let expected = [
            ("foo", chosen.clone(), None),
            ("foo", file("a", "foo"), Some(chosen.clone())),
            ("foo", file("b", "libfoo"), Some(chosen)),
            ("zap", file("b", "zap"), None),
        ];
        let expected =
            expected.map(|(name, path, shadowed_by)| Found { name: name.into(), path, shadowed_by });
        assert_eq!(found, expected);
    }
}
