//! Paths as engines on real machines make them.

use super::*;

const A: &str = "0d1f9c6e3b5a7f2418e6c0b9d8a7f6e5d4c3b2a1908f7e6d5c4b3a2918070605";
const B: &str = "f00dfeedbeefcafe0123456789abcdef0123456789abcdeffedcba9876543210";
const UID: &str = "6b1c2d3e-4f50-6172-8394-a5b6c7d8e9f0";

fn read(path: &str) -> Place {
    parse(
        &path
            .replace("{A}", A)
            .replace("{B}", B)
            .replace("{UID}", UID)
            .replace("{UID_}", &UID.replace('-', "_")),
    )
}

#[test]
fn containers_of_every_engine_and_driver() {
    use Engine::{Buildkit, Containerd, Crio, Docker, Lxc, Nspawn, Podman};
    let word = "k3v5yq0a1b2c3d4e5f6g7h8i9";
    for (path, engine, id) in [
        // Docker: cgroupfs, systemd, --cgroup-parent of both, in a private cgroup namespace's view.
        ("/docker/{A}", Some(Docker), A),
        ("/docker/{A}/init", Some(Docker), A),
        ("/system.slice/docker-{A}.scope", Some(Docker), A),
        ("/my.slice/my-batch.slice/docker-{A}.scope", Some(Docker), A),
        ("/actions_job/{A}", Some(Docker), A),
        ("/a/b/c/{A}", Some(Docker), A),
        ("/../../docker/{A}", Some(Docker), A),
        (
            "/user.slice/user-1000.slice/user@1000.service/user.slice/docker-{A}.scope",
            Some(Docker),
            A,
        ),
        (
            "/ecs/55091c13-b8cf-4801-b527-f4601742204d/{A}",
            Some(Docker),
            A,
        ),
        (
            "/ecstasks.slice/ecstasks-0123456789abcdef.slice/docker-{A}.scope",
            Some(Docker),
            A,
        ),
        // Inside a container of another one.
        ("/docker/{B}/docker/{A}", Some(Docker), A),
        ("/system.slice/docker-{B}.scope/docker/{A}", Some(Docker), A),
        // BuildKit.
        (
            "/docker/buildkit/k3v5yq0a1b2c3d4e5f6g7h8i9",
            Some(Buildkit),
            word,
        ),
        (
            "/docker/{B}/docker/buildkit/k3v5yq0a1b2c3d4e5f6g7h8i9",
            Some(Buildkit),
            word,
        ),
        (
            "/system.slice/buildkit-k3v5yq0a1b2c3d4e5f6g7h8i9.scope",
            Some(Buildkit),
            word,
        ),
        ("/buildkit/k3v5yq0a1b2c3d4e5f6g7h8i9", Some(Buildkit), word),
        // containerd: ctr, nerdctl.
        ("/default/redis", Some(Containerd), "redis"),
        ("/default/{A}", Some(Containerd), A),
        ("/k8s.io/{A}", Some(Containerd), A),
        ("/system.slice/nerdctl-{A}.scope", Some(Containerd), A),
        // Kubernetes: kubelet with either driver, k3s, static pods, kind, runc given the other driver's notation.
        (
            "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{UID_}.slice/cri-containerd-{A}.scope",
            Some(Containerd),
            A,
        ),
        (
            "/kubepods.slice/kubepods-pod{UID_}.slice/crio-{A}.scope",
            Some(Crio),
            A,
        ),
        ("/kubepods/besteffort/pod{UID}/crio-{A}", Some(Crio), A),
        (
            "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{UID_}.slice/docker-{A}.scope",
            Some(Docker),
            A,
        ),
        ("/kubepods/burstable/pod{UID}/{A}", None, A),
        ("/kubepods/pod{UID}/{A}", None, A),
        (
            "/docker/{B}/kubelet/kubepods/burstable/pod{UID}/{A}",
            None,
            A,
        ),
        (
            "/system.slice/docker-{B}.scope/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-burstable.slice/kubelet-kubepods-burstable-pod{UID_}.slice/cri-containerd-{A}.scope",
            Some(Containerd),
            A,
        ),
        (
            "/system.slice/containerd.service/kubepods-besteffort-pod{UID_}.slice:cri-containerd:{A}",
            Some(Containerd),
            A,
        ),
        (
            "/kubepods.slice/kubepods-pod{UID_}.slice/crio-{A}.scope/container",
            Some(Crio),
            A,
        ),
        // Podman: root, rootless, split, cgroupfs.
        ("/machine.slice/libpod-{A}.scope", Some(Podman), A),
        ("/machine.slice/libpod-{A}.scope/container", Some(Podman), A),
        (
            "/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{A}.scope/container",
            Some(Podman),
            A,
        ),
        (
            "/user.slice/user-1000.slice/user@1000.service/app.slice/web.service/libpod-payload-{A}",
            Some(Podman),
            A,
        ),
        ("/libpod_parent/libpod-{A}", Some(Podman), A),
        // LXC, LXD, Proxmox.
        ("/lxc.payload.web-1", Some(Lxc), "web-1"),
        (
            "/lxc.payload.web-1/system.slice/nginx.service",
            Some(Lxc),
            "web-1",
        ),
        ("/lxc/web", Some(Lxc), "web"),
        ("/lxc/101/ns", Some(Lxc), "101"),
        ("/lxc.payload/db", Some(Lxc), "db"),
        ("/lxc.monitor.db", Some(Lxc), "db"),
        // systemd-nspawn and machined.
        (
            "/machine.slice/systemd-nspawn@web.service/payload/system.slice/nginx.service",
            Some(Nspawn),
            "web",
        ),
        (
            "/machine.slice/machine-my\\x2dtree.scope/payload",
            Some(Nspawn),
            "my-tree",
        ),
    ] {
        let place = read(path);
        let found = place.containers.last();
        assert_eq!(
            found.map(|found| (found.engine, found.id.as_str())),
            Some((engine, id)),
            "{path}"
        );
    }
}

#[test]
fn pods_have_a_uid_and_a_container() {
    for (path, uid, container) in [
        ("/kubepods/burstable/pod{UID}/{A}", UID, Some(A)),
        (
            "/kubepods/pod0123456789abcdef0123456789abcdef/{A}",
            "0123456789abcdef0123456789abcdef",
            Some(A),
        ),
        (
            "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{UID_}.slice/cri-containerd-{A}.scope",
            UID,
            Some(A),
        ),
        ("/kubepods.slice/kubepods-pod{UID_}.slice", UID, None),
        // A container that the pod's container runs is not the pod's.
        ("/kubepods/burstable/pod{UID}/{A}/docker/{B}", UID, Some(A)),
        (
            "/docker/{B}/kubelet/kubepods/burstable/pod{UID}/{A}",
            UID,
            Some(A),
        ),
    ] {
        let place = read(path);
        assert_eq!(place.pod_uid.as_deref(), Some(uid), "{path}");
        let found = place
            .pod_container
            .and_then(|index| place.containers.get(index));
        assert_eq!(found.map(|found| found.id.as_str()), container, "{path}");
    }
}

#[test]
fn nothing_else_is_a_container() {
    for path in [
        "/",
        "",
        "/init.scope",
        "/system.slice/docker.service",
        "/system.slice/containerd.service",
        "/system.slice/nginx.service",
        "/user.slice/user-1000.slice/session-3.scope",
        "/machine.slice/libpod-conmon-{A}.scope",
        "/kubepods.slice/kubepods-pod{UID_}.slice/crio-conmon-{A}.scope",
        "/machine.slice/machine-qemu\\x2d1\\x2dvm.scope",
        "/docker",
        "/docker/short",
        "/docker/0D1F9C6E3B5A7F2418E6C0B9D8A7F6E5D4C3B2A1908F7E6D5C4B3A2918070605",
        "/default/web.service",
        "/process_api/f716111f264b51a5e7886b9055ca4f4c",
        "/kubepods/burstable",
        "/lxc.payload.",
        "/lxc.payload.a b",
    ] {
        let place = read(path);
        assert!(
            place.containers.is_empty() && place.pod_container.is_none(),
            "{path}: {place:?}"
        );
    }
    assert_eq!(read("/pod{UID}/x").pod_uid, None);
    assert_eq!(read("/kubepods/burstable/podcast").pod_uid, None);
}

#[test]
fn units_and_slices_as_systemd_names_them() {
    for (path, unit, slice, user_unit) in [
        (
            "/system.slice/nginx.service",
            Some("nginx.service"),
            Some("system.slice"),
            None,
        ),
        (
            "/system.slice/system-getty.slice/getty@tty1.service",
            Some("getty@tty1.service"),
            Some("system-getty.slice"),
            None,
        ),
        (
            "/system.slice/nginx.service/worker/3",
            Some("nginx.service"),
            Some("system.slice"),
            None,
        ),
        ("/init.scope", Some("init.scope"), Some("-.slice"), None),
        (
            "/user.slice/user-1000.slice/session-3.scope",
            Some("session-3.scope"),
            Some("user-1000.slice"),
            None,
        ),
        (
            "/user.slice/user-1000.slice/user@1000.service/app.slice/app-firefox-7.scope",
            Some("user@1000.service"),
            Some("user-1000.slice"),
            Some("app-firefox-7.scope"),
        ),
        (
            "/user.slice/user-1000.slice/user@1000.service/init.scope",
            Some("user@1000.service"),
            Some("user-1000.slice"),
            Some("init.scope"),
        ),
        // The host's unit, not one inside of the container.
        (
            "/machine.slice/systemd-nspawn@web.service/payload/system.slice/nginx.service",
            Some("systemd-nspawn@web.service"),
            Some("machine.slice"),
            None,
        ),
        (
            "/system.slice/_cgroup.service",
            Some("cgroup.service"),
            Some("system.slice"),
            None,
        ),
        (
            "/system.slice/dev-hugepages.mount",
            Some("dev-hugepages.mount"),
            Some("system.slice"),
            None,
        ),
        ("/my.slice", None, Some("my.slice"), None),
        ("/docker/{A}", None, None, None),
        ("/.service", None, None, None),
        ("/", None, None, None),
    ] {
        let place = read(path);
        assert_eq!(
            (
                place.unit.as_deref(),
                place.slice.as_deref(),
                place.user_unit.as_deref()
            ),
            (unit, slice, user_unit),
            "{path}"
        );
    }
}

#[test]
fn hostile_paths_are_bounded() {
    let deep = "/docker/".to_owned() + &[A, B].join("/docker/").repeat(100);
    assert!(parse(&deep).containers.len() <= MAX_NESTED);
    let deep: String = (0..1000)
        .map(|index| format!("/lxc.payload.n{index}"))
        .collect();
    assert_eq!(parse(&deep).containers.len(), MAX_NESTED);
    let long = format!("/lxc.payload.{}", "x".repeat(4000));
    assert!(parse(&long).containers.is_empty());
    for odd in [
        "/machine-\\x.scope",
        "/machine-\\xzz.scope",
        "/machine-\\x\u{e9}.scope",
        "/machine-a\\xff.scope",
        ":::",
        "/a//b:",
    ] {
        let _no_panic = parse(odd);
    }
    assert_eq!(unescape("a\\x2db\\xzz\\x"), "a-b\\xzz\\x");
}
