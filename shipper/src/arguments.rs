//! The shipper's arguments. Reads no environment and no file.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use ipc_endpoint::arguments::Common;
use ipc_endpoint::duration;
use lexopt::{Parser, ValueExt};

use crate::remote::RemoteArguments;
use crate::store::Retention;

/// Bytes of profiles kept by default: about a day of ten-second windows of a busy machine.
const DEFAULT_MAX_BYTES: u64 = 1 << 30;
/// Age of profiles kept by default.
const DEFAULT_MAX_AGE: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// External labels at most.
const MAX_LABELS: usize = 32;

/// What the shipper is told.
#[derive(Clone, Debug)]
pub struct Arguments {
    /// Those of every process.
    pub common: Common,
    /// `--local-store-directory DIR`.
    pub store_directory: PathBuf,
    /// `--local-store-max-bytes BYTES`, `--local-store-max-age DURATION`.
    pub retention: Retention,
    /// `--node NAME`; the host's name when absent.
    pub node: Option<String>,
    /// `--metadata-external-labels NAME=VALUE;...`: stand on every sample.
    pub labels: Vec<(String, String)>,
    /// `--config-path FILE`: read at the start and when it changes; `--config-name NAME`: what its user calls it.
    pub config_path: Option<PathBuf>,
    /// See there.
    pub config_name: Option<String>,
    /// `--stated NAME=VALUE`, repeated: settings that the file can't change.
    pub stated: Vec<(&'static config::Setting, String)>,
    /// `--metadata-enable-process-cmdline`: read command lines.
    pub command_line: bool,
    /// `--metadata-container-runtime-socket-path PATH`: ask that container runtime.
    pub runtime_socket: Option<PathBuf>,
    /// `--kubernetes-api-server URL`: ask that Kubernetes API.
    pub kubernetes_server: Option<String>,
    /// `--kubernetes-ca-file PATH`: the authority of its certificate.
    pub kubernetes_authority: Option<PathBuf>,
    /// `--kubernetes-token-file PATH`: what to say who we are with.
    pub kubernetes_token: Option<PathBuf>,
    /// `--remote-store-...`.
    pub remote: RemoteArguments,
    /// `--otlp-*`: where traces of its work go.
    pub traces: traces::Settings,
}

impl Arguments {
    /// Parses the arguments behind the program's name.
    ///
    /// # Errors
    /// One line on what is wrong.
    pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Self, lexopt::Error> {
        let mut store_directory = None;
        let mut max_bytes = DEFAULT_MAX_BYTES;
        let mut max_age = DEFAULT_MAX_AGE;
        let mut node = None;
        let mut labels = Vec::new();
        let (mut config_path, mut config_name, mut stated) = (None, None, Vec::new());
        let (mut command_line, mut runtime_socket) = (false, None);
        let (mut kubernetes_server, mut kubernetes_authority, mut kubernetes_token) =
            (None, None, None);
        let (mut remote, mut traces) = (RemoteArguments::default(), traces::Settings::default());
        let common = Common::parse(arguments, |name, parser: &mut Parser| {
            match name {
                "local-store-directory" => store_directory = Some(PathBuf::from(parser.value()?)),
                "local-store-max-bytes" => max_bytes = parser.value()?.parse()?,
                "local-store-max-age" => {
                    max_age = parser.value()?.parse_with(duration::parse_positive)?;
                }
                "node" => node = Some(parser.value()?.string()?),
                "metadata-external-labels" => {
                    labels.extend(parser.value()?.parse_with(external_labels)?);
                }
                "config-path" => config_path = some_path(parser.value()?),
                "config-name" => config_name = Some(parser.value()?.string()?),
                "stated" => stated.push(parser.value()?.parse_with(setting)?),
                "metadata-enable-process-cmdline" => {
                    command_line = match parser.optional_value() {
                        Some(value) => value.parse()?,
                        None => true,
                    };
                }
                "metadata-container-runtime-socket-path" => {
                    runtime_socket = some_path(parser.value()?);
                }
                "kubernetes-api-server" => {
                    kubernetes_server =
                        Some(parser.value()?.string()?).filter(|url| !url.is_empty());
                }
                "kubernetes-ca-file" => kubernetes_authority = some_path(parser.value()?),
                "kubernetes-token-file" => kubernetes_token = some_path(parser.value()?),
                _ => return Ok(remote.argument(name, parser)? || traces.argument(name, parser)?),
            }
            Ok(true)
        })?;
        if labels.len() > MAX_LABELS {
            return Err(
                format!("{} labels, at most {MAX_LABELS} are allowed", labels.len()).into(),
            );
        }
        remote.settings.check()?;
        traces.way()?;
        Ok(Self {
            common,
            store_directory: store_directory
                .ok_or("--local-store-directory is missing: name the directory profiles go to")?,
            retention: Retention {
                max_bytes,
                max_age_millis: u64::try_from(max_age.as_millis()).unwrap_or(u64::MAX),
            },
            node,
            labels,
            config_path,
            config_name,
            stated,
            command_line,
            runtime_socket,
            kubernetes_server,
            kubernetes_authority,
            kubernetes_token,
            remote,
            traces,
        })
    }
}

/// Reads `NAME=VALUE` of a setting.
fn setting(text: &str) -> Result<(&'static config::Setting, String), String> {
    let (name, value) = text.split_once('=').unwrap_or((text, ""));
    let setting = config::find(name).ok_or_else(|| format!("{name:?} is no setting"))?;
    Ok((setting, value.to_owned()))
}

/// An empty path is none.
fn some_path(value: OsString) -> Option<PathBuf> {
    (!value.is_empty()).then(|| PathBuf::from(value))
}

/// Reads `NAME=VALUE;...`; names are those of Prometheus labels. Names that begin with `__` are for relabelling only.
pub(crate) fn external_labels(text: &str) -> Result<Vec<(String, String)>, String> {
    let mut labels = config::pairs(text)?;
    for (name, _) in &labels {
        let sound = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        if !name.bytes().all(sound) || name.starts_with(|first: char| first.is_ascii_digit()) {
            return Err(format!(
                "label name {name:?} may hold letters, digits and _ only, and no digit first"
            ));
        }
    }
    labels.retain(|(name, _)| !name.starts_with("__"));
    Ok(labels)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<Arguments, lexopt::Error> {
        Arguments::parse(arguments.iter().map(OsString::from))
    }

    #[test]
    fn everything_can_be_said() {
        let parsed = parse(&[
            "--local-store-directory=/s",
            "--local-store-max-bytes=5",
            "--local-store-max-age=3s",
            "--node=n",
            "--metadata-external-labels=region=eu=1",
            "--runtime-directory=/r",
            "--metadata-enable-process-cmdline",
            "--metadata-container-runtime-socket-path=/run/docker.sock",
            "--kubernetes-api-server=https://10.0.0.1:443",
            "--kubernetes-token-file=",
        ])
        .unwrap();
        assert!(parsed.command_line);
        assert_eq!(parsed.runtime_socket, Some("/run/docker.sock".into()));
        assert!(parsed.kubernetes_server.is_some() && parsed.kubernetes_token.is_none());
        assert_eq!(parsed.store_directory, PathBuf::from("/s"));
        assert_eq!(
            parsed.retention,
            Retention {
                max_bytes: 5,
                max_age_millis: 3000
            }
        );
        assert_eq!(parsed.node.as_deref(), Some("n"));
        assert_eq!(parsed.labels, [("region".to_owned(), "eu=1".to_owned())]);
        assert_eq!(parsed.common.runtime_directory, PathBuf::from("/r"));
    }

    #[test]
    fn nonsense_is_named() {
        for bad in [
            &[][..],
            &[
                "--local-store-directory=/s",
                "--metadata-external-labels=1a=b",
            ],
            &[
                "--local-store-directory=/s",
                "--metadata-external-labels=ab",
            ],
            &["--local-store-directory=/s", "--local-store-max-bytes=-1"],
            &["--local-store-directory=/s", "--surplus"],
        ] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }
}
