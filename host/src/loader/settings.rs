//! The settings that a monitor can read: those with one value, and lists.

pub use crate::strings::Strings;

use serde::{Deserialize, Serialize};

/// Settings of a group as its monitors see them. Values are bytes.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// `name`, `strategy`, `exec`, `file`, `cwd`, `on_crash`, `directory`, as far as there is one.
    pub single: Vec<(String, Vec<u8>)>,
    /// `args` and `env` (`KEY=VALUE` each).
    pub lists: Vec<(String, Strings)>,
}

impl std::fmt::Debug for Settings {
    /// Shows the keys and never a value: the environment is among them.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let single = self.single.iter().map(|(key, _)| key);
        f.debug_set().entries(single).entries(self.lists.iter().map(|(key, _)| key)).finish()
    }
}

impl Settings {
    /// The value of a setting with one value.
    #[must_use]
    pub fn get(&self, key: &[u8]) -> Option<&[u8]> {
        self.single.iter().find(|(name, _)| name.as_bytes() == key).map(|(_, value)| value.as_slice())
    }

    /// How many values a setting has; 0 if there is no such setting.
    #[must_use]
    pub fn count(&self, key: &[u8]) -> usize {
        match self.list(key) {
            Some(values) => values.len(),
            None => usize::from(self.get(key).is_some()),
        }
    }

    /// One value of a list; of a setting with one value, that one at index 0.
    #[must_use]
    pub fn at(&self, key: &[u8], index: usize) -> Option<&[u8]> {
        match self.list(key) {
            Some(values) => values.get(index),
            None => self.get(key).filter(|_| index == 0),
        }
    }

    fn list(&self, key: &[u8]) -> Option<&Strings> {
        self.lists.iter().find(|(name, _)| name.as_bytes() == key).map(|(_, values)| values)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn single_values_and_lists_are_told_apart() {
        let settings = Settings {
            single: vec![("name".into(), b"web".to_vec())],
            lists: vec![("args".into(), [&b"-x"[..], b"\xff"].into_iter().collect())],
        };
        assert_eq!(settings.get(b"name"), Some(&b"web"[..]));
        assert_eq!(settings.get(b"args"), None);
        assert_eq!((settings.count(b"name"), settings.count(b"args"), settings.count(b"env")), (1, 2, 0));
        assert_eq!(settings.at(b"args", 1), Some(&b"\xff"[..]));
        assert_eq!(settings.at(b"args", 2), None);
        assert_eq!(settings.at(b"name", 0), Some(&b"web"[..]));
        assert!(!format!("{settings:?}").contains("web"));
    }
}
