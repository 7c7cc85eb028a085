//! Label sets of whole windows.

use ipc_proto::codec::{Bytes, List};
use ipc_proto::ids::{Pid, Tid};
use ipc_proto::sample::CgroupPath;
use ipc_proto::symbolized::{SymbolizedExecutable, SymbolizedMapping, SymbolizedSample};
use relabel::{Action, Definition};

use super::*;

const CONTAINER: &str = "0d1f9c6e3b5a7f2418e6c0b9d8a7f6e5d4c3b2a1908f7e6d5c4b3a2918070605";
const STRINGS: [&str; 8] = [
    "",
    "web",
    "/usr/bin/web",
    "worker",
    "GCC 12.2.0",
    "python",
    "3.11.7",
    "other",
];

/// Two threads of a process that is gone, in a container, and one of a process in a service.
fn batch() -> SymbolizedBatch {
    let sample = |process, tid, thread_name, cgroup| SymbolizedSample {
        process,
        tid: Tid(tid),
        thread_name,
        cgroup,
        count: 1,
        ..SymbolizedSample::default()
    };
    let cgroup = |id, path: String| CgroupPath {
        id,
        path: Bytes(path.into_bytes()),
    };
    SymbolizedBatch {
        strings: List(STRINGS.map(|text| Bytes(text.as_bytes().to_vec())).to_vec()),
        mappings: List(vec![SymbolizedMapping {
            file: 2,
            build_id: Bytes(vec![0xab, 1]),
            ..SymbolizedMapping::default()
        }]),
        executables: List(vec![SymbolizedExecutable {
            file_id: [0x11; 16],
            compiler: 4,
            is_static: true,
            is_stripped: false,
        }]),
        cgroups: List(vec![
            cgroup(70, format!("/system.slice/docker-{CONTAINER}.scope")),
            cgroup(80, "/system.slice/cron.service".to_owned()),
        ]),
        processes: List(vec![
            SymbolizedProcess {
                pid: Pid(u32::MAX - 1),
                start_time: 5,
                parent: Pid(3),
                comm: 1,
                executable: 0,
                facts: 1,
                runtime: 5,
                runtime_version: 6,
            },
            SymbolizedProcess {
                pid: Pid(u32::MAX - 2),
                comm: 7,
                executable: NONE,
                ..SymbolizedProcess::default()
            },
        ]),
        samples: List(vec![
            sample(0, 8, 1, 70),
            sample(0, 9, 3, 70),
            sample(1, 10, 7, 80),
        ]),
        ..SymbolizedBatch::default()
    }
}

fn labeller(rules: Vec<Definition>) -> Labeller {
    let settings = Settings {
        node: "n1".to_owned(),
        external: vec![("zone".to_owned(), "b".to_owned())],
        command_line: false,
    };
    let mut labeller = Labeller::new(settings, Sources::default());
    labeller.set_rules(
        rules
            .into_iter()
            .map(|rule| Rule::new(rule).unwrap())
            .collect(),
    );
    labeller
}

fn replace(source: &str, target: &str) -> Definition {
    Definition {
        source_labels: Some(vec![source.to_owned()]),
        target_label: target.to_owned(),
        ..Definition::default()
    }
}

fn shown(labels: &Labels) -> String {
    let pairs: Vec<String> = labels
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    pairs.join(",")
}

#[test]
fn without_rules_series_are_few_and_the_store_knows_more() {
    let labelled = labeller(Vec::new()).label(&batch(), 0).unwrap();
    assert_eq!(labelled.of_sample, [Some(0), Some(0), Some(1)]);
    let series: Vec<_> = labelled
        .series
        .iter()
        .map(|series| (shown(&series.labels), shown(&series.more)))
        .collect();
    let unit = format!(
        "container={},systemd_unit=docker-{CONTAINER}.scope",
        &CONTAINER[..12]
    );
    assert_eq!(
        series,
        [
            ("comm=web,node=n1,zone=b".to_owned(), unit),
            (
                "comm=other,node=n1,zone=b".to_owned(),
                "systemd_unit=cron.service".to_owned()
            ),
        ]
    );
}

#[test]
fn a_process_that_is_gone_has_all_that_its_samples_carry() {
    let labels = labeller(Vec::new()).full_set(&batch(), 0).unwrap();
    let found: Vec<(&str, &str)> = labels
        .iter()
        .filter(|(name, _)| !name.starts_with("__meta_system_") && *name != "__meta_agent_revision")
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    let cgroup = format!("/system.slice/docker-{CONTAINER}.scope");
    let unit = format!("docker-{CONTAINER}.scope");
    let pid = (u32::MAX - 1).to_string();
    assert_eq!(
        found,
        [
            ("__meta_container_engine", "docker"),
            ("__meta_container_id", CONTAINER),
            ("__meta_docker_container_id", CONTAINER),
            ("__meta_process_cgroup", &cgroup),
            ("__meta_process_executable_build_id", "ab01"),
            ("__meta_process_executable_compiler", "GCC 12.2.0"),
            ("__meta_process_executable_file_id", &"11".repeat(16)),
            ("__meta_process_executable_name", "web"),
            ("__meta_process_executable_path", "/usr/bin/web"),
            ("__meta_process_executable_static", "true"),
            ("__meta_process_executable_stripped", "false"),
            ("__meta_process_pid", &pid),
            ("__meta_process_ppid", "3"),
            ("__meta_process_runtime_name", "python"),
            ("__meta_process_runtime_version", "3.11.7"),
            ("__meta_systemd_slice", "system.slice"),
            ("__meta_systemd_unit", &unit),
            ("__meta_thread_comm", "web"),
            ("__meta_thread_id", "8"),
            ("comm", "web"),
            ("node", "n1"),
            ("zone", "b"),
        ]
    );
}

#[test]
fn rules_decide_the_series_and_what_is_dropped() {
    let drop = Definition {
        action: Some(Action::Drop),
        regex: Some("cron.service".to_owned()),
        ..replace("__meta_systemd_unit", "")
    };
    let rules = vec![
        drop,
        replace("__meta_thread_comm", "thread"),
        Definition {
            action: Some(Action::LabelDrop),
            regex: Some("zone".to_owned()),
            ..Definition::default()
        },
    ];
    let labelled = labeller(rules).label(&batch(), 0).unwrap();
    assert_eq!(labelled.of_sample, [Some(0), Some(1), None]);
    let series: Vec<_> = labelled
        .series
        .iter()
        .map(|series| shown(&series.labels))
        .collect();
    assert_eq!(
        series,
        [
            "comm=web,node=n1,thread=web",
            "comm=web,node=n1,thread=worker"
        ]
    );
    assert!(labelled.series.iter().all(|series| series.more.is_empty()));
}

#[test]
fn an_external_label_may_be_the_node() {
    let settings = Settings {
        node: "host".to_owned(),
        external: vec![("node".to_owned(), "other".to_owned())],
        command_line: false,
    };
    assert_eq!(shown(&base(&settings)), "node=other");
}

#[test]
fn a_cgroup_known_from_the_sample_wins_over_the_root() {
    let cgroup = |path: &str| Cgroup::new(path.to_owned());
    let paths = |sampled: Option<&str>, read: &[&str]| -> Vec<String> {
        let read: Vec<Cgroup> = read.iter().map(|path| cgroup(path)).collect();
        let found = cgroups_of(sampled.map(cgroup).as_ref(), Some(&read));
        found.into_iter().map(|cgroup| cgroup.path).collect()
    };
    // cgroup1: samples are of cgroup2's root.
    assert_eq!(paths(Some("/"), &["/docker/x"]), ["/docker/x"]);
    assert_eq!(paths(Some("/a"), &["/a", "/b"]), ["/a", "/b"]);
    assert!(paths(None, &[]).is_empty());
}

#[test]
fn a_window_that_contradicts_itself_is_a_fault() {
    let breaks: [fn(&mut SymbolizedBatch); 6] = [
        |batch| batch.samples.0[0].process = 99,
        |batch| batch.processes.0[0].comm = 99,
        |batch| batch.processes.0[0].executable = 99,
        |batch| batch.processes.0[0].facts = 99,
        |batch| batch.processes.0[0].runtime = 99,
        |batch| batch.executables.0[0].compiler = 99,
    ];
    for (nth, break_it) in breaks.into_iter().enumerate() {
        let mut batch = batch();
        break_it(&mut batch);
        assert!(
            labeller(Vec::new()).label(&batch, 0).is_err(),
            "break {nth}"
        );
    }
}
