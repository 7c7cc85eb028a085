//! Lists, then watches, one kind of object; lists again when the server says that the watch's version is too old; waits
//! longer after each failure. Runs for as long as the process.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use serde::Deserialize;

use super::Pods;
use super::client::{Access, AccessError, Client, WATCH_SECONDS};
use super::object::Object;

/// Objects of one page of a list.
const PAGE: usize = 500;
/// Pages of one list: more than any node has pods, and the end of a server that never stops.
const MAX_PAGES: usize = 200;
/// First and longest pause after a failure.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// What is watched.
#[derive(Clone, Debug)]
pub(super) struct Watch {
    kind: Kind,
    /// Path and field selector.
    query: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Pods,
    Node,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct List {
    metadata: ListMetadata,
    items: Option<Vec<Object>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ListMetadata {
    resource_version: String,
    #[serde(rename = "continue")]
    next: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Event {
    #[serde(rename = "type")]
    kind: String,
    object: serde_json::Value,
}

impl Watch {
    /// The pods of a node.
    pub(super) fn pods(node: &str) -> Self {
        Self {
            kind: Kind::Pods,
            query: format!(
                "/api/v1/pods?fieldSelector=spec.nodeName%3D{}",
                escaped(node)
            ),
        }
    }

    /// A node.
    pub(super) fn node(node: &str) -> Self {
        Self {
            kind: Kind::Node,
            query: format!(
                "/api/v1/nodes?fieldSelector=metadata.name%3D{}",
                escaped(node)
            ),
        }
    }
}

/// Text within a query.
fn escaped(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' => {
                char::from(byte).to_string()
            }
            other => format!("%{other:02X}"),
        })
        .collect()
}

/// Follows the server until the process ends.
pub(super) fn run(watch: &Watch, access: &Access, pods: &Pods) {
    let mut version = None;
    let mut pause = FIRST_PAUSE;
    let mut is_failing = false;
    loop {
        let started = Instant::now();
        match follow(watch, access, pods, &mut version) {
            Ok(()) => {
                if std::mem::take(&mut is_failing) {
                    log::info!("the Kubernetes API tells of {:?} again", watch.kind);
                }
                pause = FIRST_PAUSE;
                // A server that ends each watch at once is not asked without pause.
                let least = FIRST_PAUSE.saturating_sub(started.elapsed());
                std::thread::sleep(least);
                continue;
            }
            Err(AccessError::Expired) => {
                version = None;
                log::debug!(
                    "{:?}: the version of the watch is too old: listing again",
                    watch.kind
                );
            }
            Err(AccessError::Broken(error)) if started.elapsed() > LONGEST_PAUSE => {
                // A connection that lasted and then broke is the network's daily life.
                log::debug!("{:?}: the watch broke off: {error}", watch.kind);
                pause = FIRST_PAUSE;
            }
            Err(error) => {
                pods.locked().errors += 1;
                if !std::mem::replace(&mut is_failing, true) {
                    log::warn!(
                        "the Kubernetes API tells nothing new of {:?}: {error}; asked again until it does",
                        watch.kind
                    );
                }
            }
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Lists unless a version is known to watch from, then watches until the server ends it.
fn follow(
    watch: &Watch,
    access: &Access,
    pods: &Pods,
    version: &mut Option<String>,
) -> Result<(), AccessError> {
    // The authority may be renewed, so a client is made for each watch.
    let client = Client::new(access)?;
    let from = match version {
        Some(from) => from.clone(),
        None => list(watch, &client, pods)?,
    };
    *version = Some(from.clone());
    let query = format!(
        "{}&watch=1&allowWatchBookmarks=true&timeoutSeconds={WATCH_SECONDS}&resourceVersion={}",
        watch.query,
        escaped(&from)
    );
    client.lines(&query, |line| {
        let event: Event = serde_json::from_slice(line).map_err(AccessError::Malformed)?;
        on_event(watch.kind, event, pods, version)
    })
}

fn list(watch: &Watch, client: &Client<'_>, pods: &Pods) -> Result<String, AccessError> {
    let mut listed = HashSet::new();
    let mut next = String::new();
    for _page in 0..MAX_PAGES {
        let mut query = format!("{}&limit={PAGE}", watch.query);
        if !next.is_empty() {
            query = format!("{query}&continue={}", escaped(&next));
        }
        let list: List = client.document(&query)?;
        for object in list.items.into_iter().flatten() {
            listed.insert(object.metadata.uid.clone());
            take(watch.kind, object, pods);
        }
        next = list.metadata.next.unwrap_or_default();
        if next.is_empty() {
            if watch.kind == Kind::Pods {
                pods.locked().listed(&listed, Instant::now());
            }
            return Ok(list.metadata.resource_version);
        }
    }
    Err(AccessError::TooLarge((MAX_PAGES * PAGE) as u64))
}

fn take(kind: Kind, object: Object, pods: &Pods) {
    match kind {
        Kind::Pods => {
            let pod = object.into_pod();
            pods.locked().apply(pod, Instant::now());
        }
        Kind::Node => {
            let node = object.into_node();
            pods.locked().node = Some(std::sync::Arc::new(node));
        }
    }
}

fn on_event(
    kind: Kind,
    event: Event,
    pods: &Pods,
    version: &mut Option<String>,
) -> Result<(), AccessError> {
    if event.kind == "ERROR" {
        let code = event.object.get("code").and_then(serde_json::Value::as_u64);
        return Err(match code {
            Some(410) => AccessError::Expired,
            code => AccessError::Status {
                server: "the watch".to_owned(),
                status: code.and_then(|code| u16::try_from(code).ok()).unwrap_or(0),
                hint: "it is asked again later",
            },
        });
    }
    let object: Object = serde_json::from_value(event.object).map_err(AccessError::Malformed)?;
    if !object.metadata.resource_version.is_empty() {
        *version = Some(object.metadata.resource_version.clone());
    }
    match event.kind.as_str() {
        "ADDED" | "MODIFIED" => take(kind, object, pods),
        "DELETED" if kind == Kind::Pods => {
            // Born and gone since the last look: what it was is told now, and kept for its samples.
            let uid = object.metadata.uid.clone();
            take(kind, object, pods);
            pods.locked().delete(&uid, Instant::now());
        }
        // BOOKMARK has a version only; others are of the future.
        _ => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(text: &str) -> Event {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn events_change_what_is_known_and_where_the_watch_goes_on() {
        let pods = Pods::default();
        let mut version = Some("1".to_owned());
        let mut tell = |text: &str| on_event(Kind::Pods, event(text), &pods, &mut version);
        let pod = |kind: &str, uid: &str, version: u32| {
            format!(
                r#"{{"type":"{kind}","object":{{"metadata":{{"name":"p-{uid}","namespace":"s","uid":"{uid}","resourceVersion":"{version}"}}}}}}"#
            )
        };
        tell(&pod("ADDED", "a", 5)).unwrap();
        tell(&pod("DELETED", "b", 6)).unwrap();
        tell(r#"{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"9"}}}"#).unwrap();
        for uid in ["a", "b"] {
            assert!(pods.find(Some(uid), None).is_some(), "{uid}");
        }
        let gone = tell(r#"{"type":"ERROR","object":{"kind":"Status","code":410}}"#);
        assert!(matches!(gone, Err(AccessError::Expired)));
        let broken = tell(r#"{"type":"ERROR","object":{"kind":"Status","code":500}}"#);
        assert!(matches!(
            broken,
            Err(AccessError::Status { status: 500, .. })
        ));
        assert_eq!(version.as_deref(), Some("9"));
    }

    #[test]
    fn a_node_name_cannot_leave_its_selector() {
        let watch = Watch::pods("n1&limit=0#x y");
        assert_eq!(
            watch.query,
            "/api/v1/pods?fieldSelector=spec.nodeName%3Dn1%26limit%3D0%23x%20y"
        );
    }
}
