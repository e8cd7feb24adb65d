//! Texts that a model wants in front of what it embeds, such as "query: " (Su et al. 2023, "INSTRUCTOR"; Wang et al.
//! 2022, "E5").

use std::collections::BTreeMap;

use crate::error::{Error, Result};

/// The prompts of a model by their names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Prompts {
    /// The texts.
    pub texts: BTreeMap<String, String>,
    /// The name of the one that is used where none is asked for.
    pub default: Option<String>,
}

impl Prompts {
    /// The prompt with this name.
    ///
    /// # Errors
    /// If there is none; the message lists those that there are.
    pub fn named(&self, name: &str) -> Result<&str> {
        let missing = || {
            let names: Vec<&str> = self.texts.keys().map(String::as_str).collect();
            let expected =
                if names.is_empty() { "a model with prompts".into() } else { format!("one of {}", names.join(", ")) };
            Error::Setting(format!("prompt: found no prompt `{name}`, expected {expected}"))
        };
        self.texts.get(name).map(String::as_str).ok_or_else(missing)
    }

    /// The one that is used where none is asked for; the empty text if there is none.
    pub fn usual(&self) -> &str {
        self.default.as_ref().and_then(|name| self.texts.get(name)).map_or("", String::as_str)
    }

    /// The one for questions that are asked of a corpus; the empty text if there is none.
    pub fn query(&self) -> &str {
        self.first(&["query"])
    }

    /// The one for the texts of a corpus; the empty text if there is none.
    pub fn document(&self) -> &str {
        self.first(&["document", "passage", "corpus"])
    }

    fn first(&self, names: &[&str]) -> &str {
        names.iter().find_map(|name| self.texts.get(*name)).map_or("", String::as_str)
    }
}
