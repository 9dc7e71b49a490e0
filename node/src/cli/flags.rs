//! The flags of `trebol serve`, made from the table of settings, so that flags, variables and file cannot drift apart; and
//! what other commands need to know a node's settings as it knows them itself.

use crate::config::{self, ConfigError, Given, SETTINGS, Setting, Settings};
use clap::{Arg, ArgAction, ArgMatches, Args, Command, Error, FromArgMatches};
use std::path::PathBuf;
use std::sync::LazyLock;

/// Every setting with its flag, which clap wants to live for ever.
static FLAGS: LazyLock<Vec<(&'static Setting, String)>> =
    LazyLock::new(|| SETTINGS.iter().map(|setting| (setting, setting.flag())).collect());

/// Where a node's settings come from: a file, variables over it, flags over both.
#[derive(Debug, Clone, Args)]
pub(super) struct Layers {
    /// Settings file, TOML: [node], [ftp], [peer], [admin], [replica] and [core] with the keys named below
    #[arg(long, env = "TREBOL_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    flags: SettingFlags,
}

impl Layers {
    /// All of them over each other. The values fit their types; whether they fit together is for [`Settings::check`].
    pub(super) fn load(&self) -> Result<Settings, ConfigError> {
        // Variables that are no text are none of ours.
        let variables =
            std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        config::load(self.config.as_deref(), variables, &self.flags.0)
    }
}

/// Settings given as flags.
#[derive(Debug, Clone, Default)]
pub(super) struct SettingFlags(pub(super) Vec<Given>);

impl Args for SettingFlags {
    fn augment_args(mut command: Command) -> Command {
        for (setting, flag) in &*FLAGS {
            let heading = match setting.section {
                "node" => "Node",
                "ftp" => "Clients",
                "peer" => "Other nodes",
                "admin" => "Monitoring",
                "replica" => "Copies on this disk",
                _ => "Cluster protocol",
            };
            let help =
                format!("{} [{} in [{}], {}]", setting.help.trim(), setting.key, setting.section, setting.variable());
            let mut arg = Arg::new(flag.as_str())
                .long(flag.as_str())
                .help(help)
                .help_heading(heading)
                .value_name(if setting.switch { "BOOL" } else { "VALUE" })
                .allow_negative_numbers(true)
                .action(ArgAction::Set);
            if setting.switch {
                arg = arg.num_args(0..=1).require_equals(true).default_missing_value("true");
            }
            command = command.arg(arg);
        }
        command
    }
    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for SettingFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        let given = |(setting, flag): &(&'static Setting, String)| {
            let text: &String = matches.get_one(flag)?;
            Some(Given { setting, text: text.clone() })
        };
        Ok(Self(FLAGS.iter().filter_map(given).collect()))
    }
    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Result<SettingFlags, Error> {
        let command = SettingFlags::augment_args(Command::new("serve").no_binary_name(true));
        SettingFlags::from_arg_matches(&command.try_get_matches_from(args)?)
    }

    #[test]
    fn every_setting_has_a_flag() {
        SettingFlags::augment_args(Command::new("serve")).debug_assert();
        let given = parse(&["--ftp-listen", "127.0.0.1:0", "--insecure-peers", "--ftp-require-tls=false"]).unwrap().0;
        let pairs: Vec<(&str, &str)> = given.iter().map(|g| (g.setting.key, g.text.as_str())).collect();
        assert_eq!(pairs, [("listen", "127.0.0.1:0"), ("require_tls", "false"), ("insecure_peers", "true")]);
    }

    #[test]
    fn negative_values_are_values() {
        assert_eq!(parse(&["--priority", "-3"]).unwrap().0[0].text, "-3");
    }

    #[test]
    fn unknown_flags_are_refused() {
        assert!(parse(&["--heartbeat"]).is_err());
    }
}
