//! AWS's files: `~/.aws/credentials` (`AWS_SHARED_CREDENTIALS_FILE`) and `~/.aws/config` (`AWS_CONFIG_FILE`), of which the
//! section `AWS_PROFILE`, or `default`, counts. Read anew each time, so that rotated keys are taken up.

use std::{collections::BTreeMap, path::PathBuf};

use super::{Keys, Looked, Trouble, process};
use crate::surroundings::Surroundings;

type Section = BTreeMap<String, String>;

/// One profile, as both files have it. Holds secrets: not for showing.
pub(crate) struct Profile {
    name: String,
    /// From the file of credentials.
    keys: Section,
    /// From the file of settings.
    settings: Section,
    /// What could not be read, for the user.
    missing: Vec<String>,
}

impl Profile {
    /// The profile that counts; without files an empty one.
    pub(crate) fn read(around: &Surroundings) -> Profile {
        let name = around.variable("AWS_PROFILE").unwrap_or_else(|| "default".to_owned());
        let mut missing = Vec::new();
        let mut section = |file: Option<PathBuf>| match file.map(|file| (around.read(&file), file)) {
            None => {
                missing.push("no home directory".to_owned());
                Section::new()
            }
            Some((Err(why), _)) => {
                missing.push(why);
                Section::new()
            }
            Some((Ok(text), file)) => section_of(&text, &name).unwrap_or_else(|| {
                missing.push(format!("{}: no profile {name}", file.display()));
                Section::new()
            }),
        };
        let keys = section(around.aws_file("AWS_SHARED_CREDENTIALS_FILE", "credentials"));
        let settings = section(around.aws_file("AWS_CONFIG_FILE", "config"));
        Profile { name, keys, settings, missing }
    }

    /// `region` of the profile.
    pub(crate) fn region(&self) -> Option<String> {
        self.settings.get("region").or_else(|| self.keys.get("region")).cloned()
    }

    fn static_keys(&self) -> Option<Keys> {
        [&self.keys, &self.settings].into_iter().find_map(|section| {
            let (key, secret) = (section.get("aws_access_key_id")?, section.get("aws_secret_access_key")?);
            Some(Keys::lasting(key, secret, section.get("aws_session_token").cloned()))
        })
    }
}

pub(super) async fn look(around: &Surroundings) -> Result<Looked, Trouble> {
    let profile = Profile::read(around);
    if let Some(keys) = profile.static_keys() {
        return Ok(Looked::Found(keys));
    }
    let name = &profile.name;
    if let Some(command) = profile.settings.get("credential_process") {
        return process::run(command, name).await.map(Looked::Found);
    }
    if profile.settings.contains_key("role_arn") || profile.keys.contains_key("role_arn") {
        return Err(Trouble::lasting(format!(
            "profile {name} takes a role (role_arn), which is not supported: use a web identity or an instance's role"
        )));
    }
    let why = if profile.missing.is_empty() { "no aws_access_key_id".to_owned() } else { profile.missing.join("; ") };
    Ok(Looked::Nothing(format!("profile {name}: {why}")))
}

/// The lines `name = value` of `[wanted]` or `[profile wanted]`; `None` when there is no such section.
fn section_of(text: &str, wanted: &str) -> Option<Section> {
    let mut found: Option<Section> = None;
    let mut inside = false;
    for line in text.lines() {
        let bare = line.trim();
        if bare.is_empty() || bare.starts_with(['#', ';']) {
            continue;
        }
        if let Some(header) = bare.strip_prefix('[').and_then(|rest| rest.split(']').next()) {
            let header = header.trim();
            let name = header.strip_prefix("profile").filter(|rest| rest.starts_with([' ', '\t'])).unwrap_or(header);
            inside = name.trim() == wanted;
            if inside {
                found.get_or_insert_default();
            }
            continue;
        }
        // An indented line belongs to a nested setting (`s3 =`), which is none of ours.
        if !inside || line.starts_with([' ', '\t']) {
            continue;
        }
        if let Some((name, value)) = bare.split_once('=') {
            let (name, mut value) = (name.trim().to_ascii_lowercase(), value.trim());
            // A command may have such characters within quotes.
            if name != "credential_process" {
                value = value.split(" #").next().unwrap_or_default().split(" ;").next().unwrap_or_default().trim();
            }
            if !value.is_empty() {
                found.get_or_insert_default().insert(name, value.to_owned());
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_are_told_apart() {
        let text = "# comment\n[default]\nregion = a\ns3 =\n  region = nested\n\n[profile other]\nregion=b # why\n\
                    aws_access_key_id = x\n[profiles]\nregion = c\n[half\nno value\n= y\n";
        let region = |name: &str| section_of(text, name).and_then(|s| s.get("region").cloned());
        assert_eq!(region("default").as_deref(), Some("a"));
        assert_eq!(region("other").as_deref(), Some("b"));
        assert_eq!(region("profiles").as_deref(), Some("c"));
        assert_eq!(section_of(text, "nobody"), None);
        let command = "[default]\ncredential_process = tool --role 'a #1' ; x\n";
        let section = section_of(command, "default").expect("there");
        assert_eq!(section.get("credential_process").map(String::as_str), Some("tool --role 'a #1' ; x"));
        assert_eq!(section_of("[default]\n", "default"), Some(Section::new()));
    }
}
