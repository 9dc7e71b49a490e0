//! Puts defaults, file, variables and flags over each other. A mistake in any of them is one sentence that names the place
//! and, for a typo, the nearest known name; nothing is guessed.

use super::{SETTINGS, Setting, Settings};
use std::path::{Path, PathBuf};

/// A setting given on the command line.
#[derive(Debug, Clone)]
pub struct Given {
    /// Which.
    pub setting: &'static Setting,
    /// As typed.
    pub text: String,
}

/// What is wrong with the settings. Nothing was started.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration file {path}: {error}")]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// The file is no TOML, or a value has the wrong type.
    #[error("{path}, line {line}: {message}")]
    File {
        /// Which file.
        path: PathBuf,
        /// Where, from 1.
        line: usize,
        /// What is wrong.
        message: String,
    },
    /// A key that does not exist.
    #[error("{place}: there is no setting {name:?}{hint}")]
    Unknown {
        /// File and line, or "environment".
        place: String,
        /// As written.
        name: String,
        /// ", did you mean …?" or the list of what there is.
        hint: String,
    },
    /// A value of the wrong kind in a variable or a flag.
    #[error("{name}: {message}")]
    Value {
        /// The flag or variable.
        name: String,
        /// What was expected.
        message: String,
    },
}

/// Loads the settings. `env` are all variables of the process; other programs' are passed over.
pub fn load(
    file: Option<&Path>,
    env: impl IntoIterator<Item = (String, String)>,
    flags: &[Given],
) -> Result<Settings, ConfigError> {
    let text = match file {
        Some(path) => {
            std::fs::read_to_string(path).map_err(|error| ConfigError::Read { path: path.to_owned(), error })?
        }
        None => String::new(),
    };
    let path = file.unwrap_or(Path::new("settings"));
    // The file is checked by itself first: only then do errors have lines.
    let mistake = |error: toml::de::Error| file_mistake(path, &text, &error);
    toml::from_str::<Settings>(&text).map_err(mistake)?;
    let mut table: toml::Table = toml::from_str(&text).map_err(mistake)?;
    for (name, value) in env {
        if let Some(setting) = by_variable(&name)? {
            put(&mut table, setting, &name, &value)?;
        }
    }
    for given in flags {
        put(&mut table, given.setting, &format!("--{}", given.setting.flag()), &given.text)?;
    }
    table.try_into().map_err(|error: toml::de::Error| ConfigError::Value {
        name: "settings".to_owned(),
        message: error.message().to_owned(),
    })
}

fn put(table: &mut toml::Table, setting: &Setting, name: &str, text: &str) -> Result<(), ConfigError> {
    let value = (setting.parse)(text).map_err(|message| ConfigError::Value { name: name.to_owned(), message })?;
    let section = table.entry(setting.section).or_insert_with(|| toml::Table::new().into());
    // Anything but a table was refused with the file.
    if let Some(section) = section.as_table_mut() {
        section.insert(setting.key.to_owned(), value);
    }
    Ok(())
}

/// The setting of a variable. `None` for variables that are none of ours; a name that begins like one of ours and is no
/// setting is a typo.
fn by_variable(name: &str) -> Result<Option<&'static Setting>, ConfigError> {
    let found = SETTINGS.iter().find(|setting| setting.variable() == name);
    let sections = ["TREBOL_FTP_", "TREBOL_PEER_", "TREBOL_ADMIN_", "TREBOL_REPLICA_", "TREBOL_CORE_"];
    if found.is_none() && sections.iter().any(|section| name.starts_with(section)) {
        let known: Vec<String> = SETTINGS.iter().map(Setting::variable).collect();
        let hint = nearest(name, known.iter().map(String::as_str)).map_or(String::new(), did_you_mean);
        return Err(ConfigError::Unknown { place: "environment".to_owned(), name: name.to_owned(), hint });
    }
    Ok(found)
}

/// The one sentence for what toml and serde say.
fn file_mistake(path: &Path, text: &str, error: &toml::de::Error) -> ConfigError {
    let line = error.span().map_or(1, |span| text[..span.start.min(text.len())].matches('\n').count() + 1);
    let message = error.message();
    // serde: unknown field `x`, expected one of `a`, `b`
    let Some(rest) = message.strip_prefix("unknown field `") else {
        let message = message.lines().collect::<Vec<_>>().join("; ");
        return ConfigError::File { path: path.to_owned(), line, message };
    };
    let mut quoted = rest.split('`').step_by(2);
    let name = quoted.next().unwrap_or_default().to_owned();
    let known: Vec<&str> = quoted.filter(|word| !word.is_empty()).collect();
    let hint = match nearest(&name, known.iter().copied()) {
        Some(near) => did_you_mean(near),
        None => format!("; here there are {}", known.join(", ")),
    };
    ConfigError::Unknown { place: format!("{}, line {line}", path.display()), name, hint }
}

fn did_you_mean(name: &str) -> String {
    format!(", did you mean {name:?}?")
}

/// The candidate that a typo most likely meant: at most a third of its letters differ, or two (swapped ones count as two).
fn nearest<'a>(typed: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    candidates
        .map(|candidate| (distance(typed, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= (candidate.len() / 3).max(2))
        .min()
        .map(|(_, candidate)| candidate)
}

/// Levenshtein's distance, by one row.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let change = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(file: &str, env: &[(&str, &str)], flags: &[(&str, &str)]) -> Result<Settings, ConfigError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.toml");
        std::fs::write(&path, file).unwrap();
        let flags: Vec<Given> = flags
            .iter()
            .map(|(flag, text)| Given {
                setting: SETTINGS.iter().find(|s| s.flag() == *flag).unwrap(),
                text: (*text).to_owned(),
            })
            .collect();
        load(Some(&path), env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())), &flags)
    }
    fn sentence(result: Result<Settings, ConfigError>) -> String {
        let text = result.unwrap_err().to_string();
        text[text.find("t.toml").unwrap_or(0)..].to_owned()
    }

    #[test]
    fn flags_win_over_variables_over_the_file_over_defaults() {
        let file = "[core]\nheartbeat_ms = 1\nsuspect_ms = 2\ndown_ms = 3\n";
        let env = [("TREBOL_CORE_SUSPECT_MS", "20"), ("TREBOL_CORE_DOWN_MS", "30"), ("PATH", "/bin")];
        let settings = from(file, &env, &[("core-down-ms", "300"), ("insecure-peers", "true")]).unwrap();
        let core = &settings.core;
        assert_eq!((core.heartbeat_ms, core.suspect_ms, core.down_ms, core.answer_ms), (1, 20, 300, 300));
        assert!(settings.peer.insecure_peers);
    }

    #[test]
    fn typo_in_the_file_names_line_and_nearest_key() {
        let wrong = sentence(from("[core]\nheartbeet_ms = 1\n", &[], &[]));
        assert_eq!(wrong, "t.toml, line 2: there is no setting \"heartbeet_ms\", did you mean \"heartbeat_ms\"?");
        let wrong = sentence(from("\n\n[fpt]\n", &[], &[]));
        assert_eq!(wrong, "t.toml, line 3: there is no setting \"fpt\", did you mean \"ftp\"?");
        let wrong = sentence(from("[peer]\nquorum_of_wolves = 1\n", &[], &[]));
        assert!(wrong.contains("here there are listen, raw_listen"), "{wrong}");
    }

    #[test]
    fn typo_in_a_variable_names_the_nearest() {
        let wrong = sentence(from("", &[("TREBOL_PEER_SEED", "a:1")], &[]));
        assert_eq!(wrong, "environment: there is no setting \"TREBOL_PEER_SEED\", did you mean \"TREBOL_PEER_SEEDS\"?");
        assert!(from("", &[("TREBOL_LOG", "info"), ("TREBOL_REQUIRE_CLIENTS", "1")], &[]).is_ok());
    }

    #[test]
    fn wrong_values_name_their_place() {
        assert!(sentence(from("[ftp]\nlisten = \"here\"\n", &[], &[])).starts_with("t.toml, line 2: "));
        assert!(sentence(from("[ftp\n", &[], &[])).starts_with("t.toml, line 1: "));
        let wrong = sentence(from("", &[("TREBOL_FTP_LISTEN", "here")], &[]));
        assert_eq!(wrong, "TREBOL_FTP_LISTEN: \"here\" is not an address and port such as 0.0.0.0:21");
        let wrong = sentence(from("", &[], &[("core-min-copies", "-1")]));
        assert_eq!(wrong, "--core-min-copies: \"-1\" is not a whole number");
        let missing = load(Some(Path::new("nowhere.toml")), [], &[]).unwrap_err().to_string();
        assert!(missing.starts_with("cannot read the configuration file nowhere.toml: "), "{missing}");
    }

    #[test]
    fn settings_survive_their_own_toml() {
        let mut settings = Settings::default();
        settings.peer.seeds = vec!["a:1".to_owned(), "b:2".to_owned()];
        settings.ftp.tls_key = Some("/k".into());
        let text = toml::to_string(&settings).unwrap();
        assert_eq!(from(&text, &[], &[]).unwrap(), settings);
    }
}
