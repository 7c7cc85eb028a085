//! Settings from environment variables: `LEADSMAN_` and the setting's name; `PARCA_BEARER_TOKEN` for the token.

use std::ffi::OsString;

use crate::suggest::nearest;
use crate::table::{SETTINGS, Setting, find};

/// The variable that parca-agent takes its token from.
pub const TOKEN: &str = "PARCA_BEARER_TOKEN";
const PREFIX: &str = "LEADSMAN_";
const TOKEN_SETTING: &str = "remote-store-bearer-token";

/// What the environment says.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    /// Settings, their canonical values, and the variables that held them.
    pub values: Vec<(&'static Setting, String, String)>,
    /// What somebody may have mistyped: one line each.
    pub warnings: Vec<String>,
}

/// Reads `variables`. An empty one is as good as none.
///
/// # Errors
/// One line on the first value that is wrong; never with a secret in it.
pub fn read(
    variables: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Environment, String> {
    let mut environment = Environment::default();
    for (variable, value) in variables {
        let Ok(variable) = variable.into_string() else {
            continue;
        };
        let Some(setting) = setting(&variable) else {
            environment.warnings.extend(mistyped(&variable));
            continue;
        };
        if value.is_empty() {
            continue;
        }
        let value = value
            .into_string()
            .map_err(|_not_text| format!("{variable} is not text"))?;
        let canonical = setting
            .kind
            .canonical(&value)
            .map_err(|error| format!("{variable}: {error}"))?;
        environment.values.push((setting, canonical, variable));
    }
    environment.values.sort_by(|one, other| one.2.cmp(&other.2));
    // Our own name goes before the inherited one.
    let values = &environment.values;
    let own = values
        .iter()
        .any(|(setting, _, variable)| setting.name == TOKEN_SETTING && variable != TOKEN);
    if own {
        environment
            .values
            .retain(|(_, _, variable)| variable != TOKEN);
    }
    Ok(environment)
}

fn setting(variable: &str) -> Option<&'static Setting> {
    if variable == TOKEN {
        return find(TOKEN_SETTING);
    }
    let name = variable.strip_prefix(PREFIX)?;
    // Variables are upper case: `leadsman_log_level` is somebody else's.
    let upper = !name.bytes().any(|byte| byte.is_ascii_lowercase());
    find(&name.to_ascii_lowercase()).filter(|_| upper)
}

fn mistyped(variable: &str) -> Option<String> {
    let name = variable
        .strip_prefix(PREFIX)?
        .to_ascii_lowercase()
        .replace('_', "-");
    let meant = nearest(&name, SETTINGS.iter().map(|setting| setting.name))?;
    let meant = find(meant)?.variable();
    Some(format!("{variable} sets nothing: did you mean {meant}?"))
}
