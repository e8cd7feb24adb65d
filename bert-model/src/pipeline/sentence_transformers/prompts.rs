//! Prompts: texts such as "query: " that a model expects in front of its inputs (Su et al. 2023, "INSTRUCTOR"; Wang et
//! al. 2022, "E5").

use std::collections::BTreeMap;

use crate::error::{Error, Result};

/// The prompts of a model.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Prompts {
    /// The text of each prompt, by name.
    pub texts: BTreeMap<String, String>,
    /// The name of the default prompt.
    pub default: Option<String>,
}

impl Prompts {
    /// Returns the prompt with this name.
    ///
    /// # Errors
    /// If there is none; the message lists the available names.
    pub fn named(&self, name: &str) -> Result<&str> {
        let missing = || {
            let names: Vec<&str> = self.texts.keys().map(String::as_str).collect();
            let expected =
                if names.is_empty() { "a model with prompts".into() } else { format!("one of {}", names.join(", ")) };
            Error::Setting(format!("prompt: found no prompt `{name}`, expected {expected}"))
        };
        self.texts.get(name).map(String::as_str).ok_or_else(missing)
    }

    /// The default prompt; empty if there is none.
    pub fn default_text(&self) -> &str {
        self.default.as_ref().and_then(|name| self.texts.get(name)).map_or("", String::as_str)
    }

    /// The prompt for queries to a corpus; empty if there is none.
    pub fn query(&self) -> &str {
        self.first(&["query"])
    }

    /// The prompt for the texts of a corpus; empty if there is none.
    pub fn document(&self) -> &str {
        self.first(&["document", "passage", "corpus"])
    }

    fn first(&self, names: &[&str]) -> &str {
        names.iter().find_map(|name| self.texts.get(*name)).map_or("", String::as_str)
    }
}
