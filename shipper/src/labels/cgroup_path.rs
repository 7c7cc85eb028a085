//! What a cgroup's path says: the container, pod, machine, unit and slice. A table of the shapes that container engines
//! and systemd give their cgroups, with either driver (`cgroupfs`, `systemd`). Reads no files.

use std::borrow::Cow;

/// Who made a container's cgroup.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Engine {
    /// Docker, also below Kubernetes.
    Docker,
    /// Docker's or a lone BuildKit: a step of an image's build.
    Buildkit,
    /// containerd by itself (ctr, nerdctl) or below Kubernetes (also k3s).
    Containerd,
    /// CRI-O.
    Crio,
    /// Podman and whatever else uses libpod.
    Podman,
    /// LXC, LXD, Incus.
    Lxc,
    /// systemd-nspawn, and what else systemd-machined knows.
    Nspawn,
}

impl Engine {
    /// As the label says it; for Kubernetes' engines what stands before `://` in its container IDs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Buildkit => "buildkit",
            Self::Containerd => "containerd",
            Self::Crio => "cri-o",
            Self::Podman => "podman",
            Self::Lxc => "lxc",
            Self::Nspawn => "systemd-nspawn",
        }
    }
}

/// A container by its cgroup.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Container {
    /// Who made it; `None`: the path has only its ID.
    pub engine: Option<Engine>,
    /// ID, or for LXC and machines the name.
    pub id: String,
    /// containerd's namespace, where the path has it.
    pub namespace: Option<String>,
}

/// What a path says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Place {
    /// Containers that hold it, outermost first.
    pub containers: Vec<Container>,
    /// UID of the Kubernetes pod.
    pub pod_uid: Option<String>,
    /// Index in `containers` of the pod's container.
    pub pod_container: Option<usize>,
    /// systemd's unit on the host.
    pub unit: Option<String>,
    /// The slice that unit is in.
    pub slice: Option<String>,
    /// The unit of a user's own systemd.
    pub user_unit: Option<String>,
}

/// Containers of one path that are looked at: nesting deeper than this is no container engine's doing.
const MAX_NESTED: usize = 8;
/// Bytes of an ID or name.
const MAX_ID: usize = 253;

/// How an ID looks.
#[derive(Clone, Copy, Debug)]
enum Id {
    /// 64 hexadecimal digits.
    Hex,
    /// BuildKit's: lower-case letters and digits.
    Word,
    /// A name that a person gave.
    Name,
}

impl Id {
    fn fits(self, text: &str) -> bool {
        match self {
            Self::Hex => {
                text.len() == 64
                    && text
                        .bytes()
                        .all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
            }
            Self::Word => {
                (20..=64).contains(&text.len())
                    && text
                        .bytes()
                        .all(|byte| byte.is_ascii_digit() || byte.is_ascii_lowercase())
            }
            Self::Name => {
                !text.is_empty()
                    && text.len() <= MAX_ID
                    && text
                        .bytes()
                        .all(|byte| byte.is_ascii_alphanumeric() || b"-_.\\".contains(&byte))
            }
        }
    }
}

/// A directory that is a container: `prefix`ID`suffix`.
struct Shape {
    prefix: &'static str,
    suffix: &'static str,
    id: Id,
    engine: Engine,
}

const fn shape(prefix: &'static str, suffix: &'static str, id: Id, engine: Engine) -> Shape {
    Shape {
        prefix,
        suffix,
        id,
        engine,
    }
}

/// Directories that say by themselves what they are. `cri-o`'s and Podman's monitors (`crio-conmon-`, `libpod-conmon-`)
/// are no containers, and do not fit for their second word.
const SHAPES: [Shape; 17] = [
    shape("docker-", ".scope", Id::Hex, Engine::Docker),
    shape("buildkit-", ".scope", Id::Word, Engine::Buildkit),
    shape("docker-buildkit-", ".scope", Id::Word, Engine::Buildkit),
    shape("cri-containerd-", ".scope", Id::Hex, Engine::Containerd),
    shape("nerdctl-", ".scope", Id::Hex, Engine::Containerd),
    shape("containerd-", ".scope", Id::Hex, Engine::Containerd),
    shape("crio-", ".scope", Id::Hex, Engine::Crio),
    shape("crio-", "", Id::Hex, Engine::Crio),
    shape("libpod-", ".scope", Id::Hex, Engine::Podman),
    shape("libpod-", "", Id::Hex, Engine::Podman),
    shape("libpod-payload-", "", Id::Hex, Engine::Podman),
    shape("lxc.payload.", "", Id::Name, Engine::Lxc),
    shape("lxc.monitor.", "", Id::Name, Engine::Lxc),
    shape("systemd-nspawn@", ".service", Id::Name, Engine::Nspawn),
    shape("machine-", ".scope", Id::Name, Engine::Nspawn),
    shape("kata_", "", Id::Hex, Engine::Containerd),
    shape("docker-", "", Id::Hex, Engine::Docker),
];

/// Directories that need their parent's name to be a container: parent, child, engine. The first that fits.
const BELOW: [(&str, Id, Engine); 8] = [
    ("buildkit", Id::Word, Engine::Buildkit),
    ("docker", Id::Hex, Engine::Docker),
    ("libpod_parent", Id::Hex, Engine::Podman),
    ("lxc", Id::Name, Engine::Lxc),
    ("lxc.payload", Id::Name, Engine::Lxc),
    ("lxc.monitor", Id::Name, Engine::Lxc),
    ("k8s.io", Id::Hex, Engine::Containerd),
    ("default", Id::Hex, Engine::Containerd),
];

/// containerd's usual namespaces: a container right below them at the tree's root may be called anything.
const CONTAINERD_NAMESPACES: [&str; 3] = ["default", "k8s.io", "moby"];

/// Suffixes of the units that processes may be in.
const UNITS: [&str; 5] = [".service", ".scope", ".socket", ".mount", ".swap"];

/// Reads a path, as `/proc/PID/cgroup` or the kernel's records have it.
#[must_use]
pub fn parse(path: &str) -> Place {
    let mut place = Place::default();
    // runc given systemd's notation by a cgroupfs driver makes one directory of `slice:engine:id`.
    let segments: Vec<&str> = path
        .split(['/', ':'])
        .filter(|segment| !segment.is_empty() && *segment != "..")
        .collect();
    for (index, segment) in segments.iter().enumerate() {
        if place.pod_uid.is_none() {
            place.pod_uid = pod_uid(segment, segments.get(index.wrapping_sub(1)));
        }
        if place.containers.len() < MAX_NESTED
            && let Some(container) = container(&segments, index, place.pod_uid.is_some())
            && place.containers.last().map(|last| &last.id) != Some(&container.id)
        {
            if place.pod_uid.is_some() && place.pod_container.is_none() {
                place.pod_container = Some(place.containers.len());
            }
            place.containers.push(container);
        }
    }
    add_units(&mut place, path);
    place
}

/// The container that the segment is.
fn container(segments: &[&str], index: usize, in_pod: bool) -> Option<Container> {
    let segment = *segments.get(index)?;
    let parent = index.checked_sub(1).and_then(|index| segments.get(index));
    let found = |engine, id: &str| {
        Some(Container {
            engine,
            id: unescape(id).into_owned(),
            namespace: None,
        })
    };
    for shape in &SHAPES {
        let id = segment.strip_prefix(shape.prefix);
        if let Some(id) = id.and_then(|rest| rest.strip_suffix(shape.suffix))
            && shape.id.fits(id)
            && !is_virtual_machine(shape, id)
        {
            return found(Some(shape.engine), id);
        }
    }
    if let Some(parent) = parent {
        // `slice:cri-containerd:id`: the middle is the prefix of a scope's name.
        let scope = format!("{parent}-");
        if Id::Hex.fits(segment)
            && let Some(shape) = SHAPES.iter().find(|shape| shape.prefix == scope)
        {
            return found(Some(shape.engine), segment);
        }
        for (name, id, engine) in BELOW {
            if *parent == name && id.fits(segment) {
                return found(Some(engine), segment);
            }
        }
    }
    if Id::Hex.fits(segment) {
        // Kubernetes' pods have the ID alone; elsewhere it is Docker that is given parents of any name.
        let engine = (!in_pod).then_some(Engine::Docker);
        return found(engine, segment);
    }
    if index == 1
        && let Some(&namespace) = parent
        && CONTAINERD_NAMESPACES.contains(&namespace)
        && Id::Name.fits(segment)
        && !UNITS.iter().any(|unit| segment.ends_with(unit))
    {
        return Some(Container {
            engine: Some(Engine::Containerd),
            id: segment.to_owned(),
            namespace: Some(namespace.to_owned()),
        });
    }
    None
}

/// libvirt's machines are registered like systemd's, and are no containers.
fn is_virtual_machine(shape: &Shape, id: &str) -> bool {
    shape.prefix == "machine-" && id.starts_with("qemu\\x2d")
}

/// The UID of the pod that a directory is: `pod6b1c...` (cgroupfs) or `kubepods-burstable-pod6b1c_....slice` (systemd).
fn pod_uid(segment: &str, parent: Option<&&str>) -> Option<String> {
    let uid = match segment.strip_suffix(".slice") {
        Some(slice) => {
            let (before, uid) = slice.rsplit_once("-pod")?;
            before
                .split('-')
                .any(|part| part == "kubepods")
                .then_some(uid)?
        }
        None => {
            let parent = *parent?;
            ["kubepods", "besteffort", "burstable", "guaranteed"]
                .contains(&parent)
                .then_some(segment.strip_prefix("pod")?)?
        }
    };
    let uid = uid.replace('_', "-");
    // A static pod's is a hash, without dashes.
    let sound = (32..=36).contains(&uid.len())
        && uid
            .bytes()
            .all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
    sound.then_some(uid)
}

/// The unit on the host, its slice and the user's unit, as systemd's `cg_path_get_unit` finds them: slices, then one
/// unit; below a user manager's service slices and one unit again.
fn add_units(place: &mut Place, path: &str) {
    let mut segments = path
        .split('/')
        .filter(|segment| !segment.is_empty() && *segment != "..")
        .map(|segment| segment.strip_prefix('_').unwrap_or(segment))
        .peekable();
    let mut slice = None;
    while let Some(next) = segments.next_if(|segment| is_unit(segment, &[".slice"])) {
        slice = Some(next);
    }
    let Some(unit) = segments.next_if(|segment| is_unit(segment, &UNITS)) else {
        place.slice = slice.map(str::to_owned);
        return;
    };
    place.unit = Some(unit.to_owned());
    place.slice = Some(slice.unwrap_or("-.slice").to_owned());
    if unit.starts_with("user@") {
        while segments
            .next_if(|segment| is_unit(segment, &[".slice"]))
            .is_some()
        {}
        let user_unit = segments.next_if(|segment| is_unit(segment, &UNITS));
        place.user_unit = user_unit.map(str::to_owned);
    }
}

fn is_unit(segment: &str, suffixes: &[&str]) -> bool {
    segment.len() <= 255
        && suffixes.iter().any(|suffix| {
            segment
                .strip_suffix(suffix)
                .is_some_and(|name| !name.is_empty())
        })
}

/// systemd's escapes in a unit's name: `\x2d` is a dash.
fn unescape(name: &str) -> Cow<'_, str> {
    if !name.contains("\\x") {
        return Cow::Borrowed(name);
    }
    let mut bytes = Vec::with_capacity(name.len());
    let mut rest = name;
    while let Some((before, after)) = rest.split_once("\\x") {
        bytes.extend_from_slice(before.as_bytes());
        match after
            .get(..2)
            .and_then(|digits| u8::from_str_radix(digits, 16).ok())
        {
            Some(byte) => {
                bytes.push(byte);
                rest = after.get(2..).unwrap_or_default();
            }
            None => {
                bytes.extend_from_slice(b"\\x");
                rest = after;
            }
        }
    }
    bytes.extend_from_slice(rest.as_bytes());
    Cow::Owned(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests;
