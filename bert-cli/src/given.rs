//! Rejects options that have no effect on the current command. An option that was silently ignored would seem to work.
//!
//! Every command has a table of [`Rule`]s. All commands accept the options of [`crate::args::Common`], which need no
//! rules.

use bert_model::{Error, Result};
use clap::parser::ValueSource;
use clap::{ArgMatches, Args, Command, FromArgMatches};

/// The long names of the options that were given on the command line, as opposed to options that have their default
/// value.
///
/// Flatten this into the options of a command as the *first* field: parsing a field takes its values out of the
/// matches, and a later `Given` would not see them.
#[derive(Debug, Clone, Default)]
pub struct Given(Vec<String>);

/// A set of options, and whether they have an effect.
#[derive(Debug, Clone, Copy)]
pub struct Rule<'a> {
    /// Long names of the options, without the dashes.
    pub options: &'a [&'a str],
    /// Whether the options have an effect on the current command.
    pub has_effect: bool,
    /// Why the options have no effect, and what to do instead.
    pub otherwise: &'a str,
}

/// Creates a [`Rule`]: `options` have an effect only if `has_effect`; `otherwise` explains why they have none.
pub fn only_if<'a>(has_effect: bool, options: &'a [&'a str], otherwise: &'a str) -> Rule<'a> {
    Rule { options, has_effect, otherwise }
}

impl Given {
    /// Whether this option was given.
    pub fn has(&self, option: &str) -> bool {
        self.0.iter().any(|given| given == option)
    }

    /// Rejects the first given option that has no effect.
    ///
    /// # Errors
    /// [`Error::Usage`] that names the option and the reason.
    pub fn check(&self, rules: &[Rule]) -> Result<()> {
        for rule in rules.iter().filter(|rule| !rule.has_effect) {
            if let Some(option) = rule.options.iter().find(|option| self.has(option)) {
                return Err(Error::Usage(format!("--{option} has no effect here: {}", rule.otherwise)));
            }
        }
        Ok(())
    }
}

impl FromArgMatches for Given {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let is_given = |id: &&str| matches.value_source(id) == Some(ValueSource::CommandLine);
        Ok(Self(matches.ids().map(clap::Id::as_str).filter(is_given).map(|id| id.replace('_', "-")).collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Args for Given {
    fn augment_args(command: Command) -> Command {
        command
    }

    fn augment_args_for_update(command: Command) -> Command {
        command
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        given: Given,
        #[arg(long, default_value_t = 3)]
        top_k: usize,
        #[arg(long)]
        flag: bool,
        words: Vec<String>,
    }

    fn parse(arguments: &str) -> Cli {
        Cli::parse_from(["x"].into_iter().chain(arguments.split_whitespace()))
    }

    #[test]
    fn a_default_is_not_given_and_its_value_written_out_is() {
        for (arguments, expected) in
            [("", [false; 3]), ("--top-k 3", [true, false, false]), ("--flag a", [false, true, true])]
        {
            let Cli { given, top_k, flag, words } = parse(arguments);
            assert_eq!([given.has("top-k"), given.has("flag"), given.has("words")], expected, "{arguments}");
            assert_eq!((top_k, flag, words.len()), (3, expected[1], usize::from(expected[2])));
        }
    }

    #[test]
    fn what_has_no_effect_is_refused_with_its_reason_if_it_was_given() {
        let rules = [only_if(true, &["flag"], "never seen"), only_if(false, &["flag", "top-k"], "there is no top")];
        assert!(parse("word").given.check(&rules).is_ok());
        let message = parse("--top-k 3").given.check(&rules).unwrap_err().to_string();
        assert_eq!(message, "--top-k has no effect here: there is no top");
    }
}
