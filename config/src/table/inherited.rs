//! Settings under parca-agent's names (v0.31, and what its later versions added), with the few of our own that belong
//! to them.

use ipc_proto::hello::Role;

use super::{Group, Setting};
use crate::kind::Kind;

const BOOL: Kind = Kind::Bool;
const TEXT: Kind = Kind::Text;
const PATH: Kind = Kind::Path;
const TIME: Kind = Kind::Duration;
const NUMBER: Kind = Kind::Integer(0, u64::MAX);

macro_rules! in_group {
    ($function:ident, $group:ident) => {
        const fn $function(
            name: &'static str,
            kind: Kind,
            default: &'static str,
            help: &'static str,
        ) -> Setting {
            Setting::new(Group::$group, name, kind, default, help)
        }
    };
}
in_group!(profiling, Profiling);
in_group!(metadata, Metadata);
in_group!(local, LocalStore);
in_group!(remote, RemoteStore);
in_group!(debuginfo, Debuginfo);
in_group!(telemetry, Telemetry);

const fn idle(name: &'static str, kind: Kind, default: &'static str, why: &'static str) -> Setting {
    Setting::idle(name, kind, default, why)
}

pub(crate) const PROFILING: &[Setting] = &[
    profiling(
        "profiling-duration",
        TIME,
        "10s",
        "length of a window: one profile each, 1s to 1h",
    )
    .to(&[Role::Sampler]),
    profiling(
        "profiling-cpu-sampling-frequency",
        Kind::Integer(0, 1000),
        "19",
        "samples a second and CPU; 0 means 19",
    )
    .to(&[Role::Sampler])
    .reloads(),
    profiling(
        "bpf-memory-budget",
        Kind::Bytes,
        "",
        "kernel memory for unwind tables; the sampler's own default when absent",
    )
    .to(&[Role::Sampler]),
    profiling(
        "debug-process-names",
        Kind::List,
        "",
        "profile only processes whose name matches one of these patterns",
    )
    .reloads(),
    idle(
        "bpf-events-buffer-size",
        Kind::Integer(32, 1 << 30),
        "8192",
        "the sampler sizes its ring buffer by the number of CPUs and the rate",
    ),
    idle(
        "profiling-perf-event-buffer-poll-interval",
        TIME,
        "250ms",
        "the sampler is woken by the kernel when its rings fill",
    ),
    idle(
        "profiling-perf-event-buffer-processing-interval",
        TIME,
        "100ms",
        "events are taken in the order of their time as they come",
    ),
    idle(
        "profiling-perf-event-buffer-worker-count",
        NUMBER,
        "4",
        "one thread is enough: it only copies numbers",
    ),
    idle(
        "memlock-rlimit",
        NUMBER,
        "0",
        "each process starts with the limits that its rights name (docs/THREAT-MODEL.md)",
    ),
    idle(
        "dwarf-unwinding-disable",
        BOOL,
        "false",
        "stacks are walked by tables where code has them and by frame pointers elsewhere; the tables cost little",
    ),
    idle(
        "dwarf-unwinding-mixed",
        BOOL,
        "true",
        "table or frame pointer is decided for each frame",
    ),
    idle(
        "python-unwinding-disable",
        BOOL,
        "false",
        "Python's frames are those of its interpreter, until Leadsman reads them",
    ),
    idle(
        "ruby-unwinding-disable",
        BOOL,
        "false",
        "Ruby's frames are those of its interpreter, until Leadsman reads them",
    ),
    idle(
        "java-unwinding-disable",
        BOOL,
        "true",
        "Java's frames come from its perf map, if it writes one",
    ),
    idle(
        "tracers",
        TEXT,
        "all",
        "native stacks are always walked; interpreters are not read yet",
    ),
    idle(
        "bpf-verbose-logging",
        BOOL,
        "false",
        "the programs count what they do rather than print it: see /metrics",
    ),
    Setting::renamed("verbose-bpf-logging", BOOL, "bpf-verbose-logging"),
    idle(
        "bpf-log-trace-pipe",
        BOOL,
        "false",
        "the programs count what they do rather than print it: see /metrics",
    ),
    idle(
        "bpf-verifier-log-level",
        NUMBER,
        "0",
        "the verifier's words are shown when it refuses a program",
    ),
    idle(
        "bpf-map-scale-factor",
        NUMBER,
        "0",
        "maps grow on demand within --bpf-memory-budget",
    ),
    idle(
        "clock-sync-interval",
        TIME,
        "3m",
        "the kernel's records and the samples share one clock",
    ),
    idle(
        "profiling-probabilistic-interval",
        TIME,
        "1m",
        "every window is profiled",
    ),
    idle(
        "profiling-probabilistic-threshold",
        NUMBER,
        "100",
        "every window is profiled",
    ),
    idle(
        "profiling-enable-error-frames",
        BOOL,
        "false",
        "a stack that was cut says so in its profile, always",
    ),
    idle(
        "off-cpu-threshold",
        TEXT,
        "0",
        "only time on CPUs is sampled",
    ),
];

pub(crate) const METADATA: &[Setting] = &[
    metadata(
        "metadata-external-labels",
        Kind::Pairs,
        "",
        "labels of every profile; names that begin with __ are for relabelling only",
    )
    .to(&[Role::Shipper])
    .reloads(),
    metadata(
        "metadata-container-runtime-socket-path",
        PATH,
        "",
        "ask this container runtime's socket for names and images",
    )
    .to(&[Role::Shipper]),
    metadata(
        "metadata-enable-process-cmdline",
        BOOL,
        "false",
        "collect command lines, as __meta_process_cmdline",
    )
    .to(&[Role::Shipper]),
    metadata(
        "kubernetes-api-server",
        TEXT,
        "",
        "ask this Kubernetes API (https://HOST:PORT) for the pods of --node",
    )
    .to(&[Role::Shipper]),
    metadata(
        "kubernetes-ca-file",
        PATH,
        "",
        "authority of its certificate (PEM)",
    )
    .to(&[Role::Shipper]),
    metadata(
        "kubernetes-token-file",
        PATH,
        "",
        "file with the token to show it, read again when it changes",
    )
    .to(&[Role::Shipper]),
    idle(
        "metadata-disable-caching",
        BOOL,
        "false",
        "what is remembered of a process is bound to its pid and start time, so it is never another's",
    ),
    idle(
        "metadata-disable-cpu-label",
        BOOL,
        "false",
        "samples carry no label for the CPU",
    ),
    idle(
        "metadata-disable-thread-id-label",
        BOOL,
        "false",
        "thread ids are labels of samples, not of series: they make none",
    ),
    idle(
        "metadata-disable-thread-comm-label",
        BOOL,
        "false",
        "thread names are labels of samples, not of series: they make none",
    ),
    idle(
        "profiling-label-ttl",
        TIME,
        "10m",
        "labels are remembered as long as the process lives",
    ),
    idle(
        "include-env-var",
        Kind::List,
        "",
        "environment variables of other processes are not read",
    ),
    idle(
        "collect-custom-labels",
        BOOL,
        "false",
        "labels that a program sets in its own memory are not read",
    ),
    Setting::renamed("collect-trace-id", BOOL, "collect-custom-labels"),
    idle(
        "environment-type",
        TEXT,
        "",
        "the environment is known from the cgroup; say more with --metadata-external-labels",
    ),
    idle("machine-id", TEXT, "", "machines are told apart by --node"),
    idle("otel-tags", TEXT, "", "use --metadata-external-labels"),
];

pub(crate) const STORE: &[Setting] = &[
    local(
        "local-store-directory",
        PATH,
        "/var/lib/leadsman/profiles",
        "keep profiles in this directory",
    )
    .to(&[Role::Shipper, Role::Viewer]),
    local(
        "local-store-max-bytes",
        Kind::Bytes,
        "1073741824",
        "remove the oldest profiles beyond so many bytes",
    )
    .to(&[Role::Shipper]),
    local(
        "local-store-max-age",
        TIME,
        "7d",
        "remove profiles older than this",
    )
    .to(&[Role::Shipper]),
    remote(
        "remote-store-address",
        TEXT,
        "",
        "send profiles to the Parca server at HOST:PORT",
    )
    .to(&[Role::Shipper, Role::DebuginfoUploader]),
    remote(
        "remote-store-bearer-token",
        TEXT,
        "",
        "token for it; better in PARCA_BEARER_TOKEN or a file, where others can't see it",
    )
    .secret(),
    remote(
        "remote-store-bearer-token-file",
        PATH,
        "",
        "file that holds the token, read again when it changes",
    )
    .to(&[Role::Shipper, Role::DebuginfoUploader]),
    remote("remote-store-insecure", BOOL, "false", "use no TLS")
    .to(&[Role::Shipper, Role::DebuginfoUploader]),
    remote(
        "remote-store-insecure-skip-verify",
        BOOL,
        "false",
        "use TLS with whoever answers",
    )
    .to(&[Role::Shipper, Role::DebuginfoUploader]),
    remote(
        "remote-store-ca-file",
        PATH,
        "",
        "trust these authorities (PEM) instead of the system's; read again when it changes",
    )
    .to(&[Role::Shipper, Role::DebuginfoUploader]),
    remote(
        "remote-store-client-cert",
        PATH,
        "",
        "own certificate (PEM), read again when it or its key changes",
    )
    .to(&[Role::Shipper, Role::DebuginfoUploader]),
    remote("remote-store-client-key", PATH, "", "its key (PEM)")
    .to(&[Role::Shipper, Role::DebuginfoUploader]),
    remote(
        "remote-store-grpc-headers",
        Kind::Pairs,
        "",
        "headers of every call",
    )
    .to(&[Role::Shipper, Role::DebuginfoUploader]),
    remote(
        "remote-store-rpc-logging-enable",
        BOOL,
        "false",
        "log every call",
    )
    .to(&[Role::Shipper, Role::DebuginfoUploader]),
    remote(
        "remote-store-rpc-unary-timeout",
        TIME,
        "5m",
        "time for one call with all its retries",
    )
    .to(&[Role::Shipper, Role::DebuginfoUploader]),
    remote(
        "remote-store-grpc-connection-timeout",
        TIME,
        "3s",
        "time for one attempt to connect",
    )
    .to(&[Role::Shipper, Role::DebuginfoUploader]),
    remote(
        "remote-store-grpc-max-call-send-msg-size",
        NUMBER,
        "33554432",
        "bytes of the largest message sent",
    )
    .to(&[Role::Shipper, Role::DebuginfoUploader]),
    remote(
        "remote-store-grpc-max-call-recv-msg-size",
        NUMBER,
        "33554432",
        "bytes of the largest message taken",
    )
    .to(&[Role::Shipper, Role::DebuginfoUploader]),
    remote(
        "remote-store-batch-write-interval",
        TIME,
        "10s",
        "send profiles so often",
    )
    .to(&[Role::Shipper]),
    remote(
        "remote-store-protocol",
        Kind::Choice(&["parca", "otlp", "pyroscope"]),
        "parca",
        "what the store understands",
    )
    .to(&[Role::Shipper]),
    remote(
        "remote-store-symbolize",
        BOOL,
        "",
        "send names of native functions, too, which Parca finds itself from uploaded debug information",
    )
    .to(&[Role::Shipper]),
    remote(
        "remote-store-spool-directory",
        PATH,
        "/var/lib/leadsman/spool",
        "keep here what can't be sent yet",
    )
    .to(&[Role::Shipper]),
    remote(
        "remote-store-spool-max-bytes",
        Kind::Bytes,
        "1073741824",
        "drop the oldest of it beyond so many bytes",
    )
    .to(&[Role::Shipper]),
    remote(
        "remote-store-spool-max-age",
        TIME,
        "2d",
        "drop what is older than this",
    )
    .to(&[Role::Shipper]),
    idle(
        "remote-store-grpc-startup-backoff-time",
        TIME,
        "1m",
        "the processes start without the store and send when it answers",
    ),
    idle(
        "remote-store-grpc-max-connection-retries",
        NUMBER,
        "5",
        "it is tried again, at growing intervals, for as long as it takes",
    ),
    idle(
        "remote-store-use-v2-schema",
        BOOL,
        "true",
        "profiles are sent as pprof by WriteRaw, which every Parca server takes",
    ),
    idle(
        "offline-mode-storage-path",
        PATH,
        "",
        "use --local-store-directory",
    ),
    idle(
        "offline-mode-rotation-interval",
        TIME,
        "10m",
        "one file a window: see --profiling-duration",
    ),
    idle(
        "offline-mode-upload",
        BOOL,
        "false",
        "what could not be sent is kept and sent later by itself",
    ),
];

pub(crate) const DEBUGINFO: &[Setting] = &[
    debuginfo(
        "debuginfo-directories",
        Kind::List,
        "/usr/lib/debug",
        "look for separate debug information here, within the process's root",
    )
    .to(&[Role::Opener]),
    debuginfo(
        "debuginfo-temp-dir",
        PATH,
        "/tmp",
        "directory for extraction",
    )
    .to(&[Role::DebuginfoUploader]),
    debuginfo(
        "debuginfo-strip",
        BOOL,
        "true",
        "upload debug information only, not the code",
    )
    .to(&[Role::DebuginfoUploader]),
    debuginfo(
        "debuginfo-compress",
        BOOL,
        "false",
        "compress the sections of what is uploaded",
    )
    .to(&[Role::DebuginfoUploader]),
    debuginfo(
        "debuginfo-upload-disable",
        BOOL,
        "false",
        "look for nothing, upload nothing",
    )
    .to(&[Role::DebuginfoUploader]),
    debuginfo(
        "debuginfo-upload-max-parallel",
        Kind::Integer(1, 1024),
        "25",
        "uploads at once",
    )
    .to(&[Role::DebuginfoUploader]),
    debuginfo(
        "debuginfo-upload-timeout-duration",
        TIME,
        "2m",
        "time for one upload",
    )
    .to(&[Role::DebuginfoUploader]),
    debuginfo(
        "debuginfo-upload-cache-duration",
        TIME,
        "5m",
        "how long the store's refusal is remembered",
    )
    .to(&[Role::DebuginfoUploader]),
    debuginfo(
        "debuginfo-upload-queue-size",
        Kind::Integer(1, 1 << 20),
        "4096",
        "executables that may wait for their upload",
    )
    .to(&[Role::DebuginfoUploader]),
    debuginfo(
        "debuginfo-disable-caching",
        BOOL,
        "false",
        "remember no answer of the store",
    )
    .to(&[Role::DebuginfoUploader]),
    idle(
        "symbolizer-jit-disable",
        BOOL,
        "false",
        "perf maps are read when a sample needs one, by a process without rights",
    ),
    idle(
        "object-file-pool-eviction-policy",
        Kind::Choice(&["lru", "lfu"]),
        "lru",
        "files are read once and closed; what is kept of them is bounded in bytes",
    ),
    idle(
        "object-file-pool-size",
        NUMBER,
        "100",
        "files are read once and closed; what is kept of them is bounded in bytes",
    ),
];

pub(crate) const RUNTIME: &[Setting] = &[
    telemetry(
        "otlp-address",
        TEXT,
        "",
        "send traces of Leadsman's own work to the collector at HOST:PORT, without TLS",
    )
    .to(&[Role::Shipper, Role::DebuginfoUploader]),
    telemetry(
        "otlp-exporter",
        Kind::Choice(&["grpc", "http", "stdout"]),
        "grpc",
        "how: OTLP by gRPC or HTTP, or JSON lines on standard output, which needs no address",
    )
    .to(&[Role::Shipper, Role::DebuginfoUploader]),
    telemetry(
        "analytics-opt-out",
        BOOL,
        "false",
        "send no usage figures; none are sent anyway unless an address is given",
    ),
    telemetry(
        "telemetry-disable-panic-reporting",
        BOOL,
        "false",
        "leave no report of a crash",
    ),
    idle(
        "telemetry-stderr-buffer-size-kb",
        NUMBER,
        "4096",
        "a crash report holds the last lines of the log, nothing of standard error",
    ),
    idle(
        "otlp-logging",
        BOOL,
        "false",
        "logs go to standard error or the journal",
    ),
    idle(
        "mutex-profile-fraction",
        NUMBER,
        "0",
        "it belongs to Go's runtime, which Leadsman is not written in",
    ),
    idle(
        "block-profile-rate",
        NUMBER,
        "0",
        "it belongs to Go's runtime, which Leadsman is not written in",
    ),
    idle(
        "allow-running-as-non-root",
        BOOL,
        "false",
        "only the sampler and the opener hold capabilities, and lose them where they can",
    ),
    idle(
        "allow-running-in-non-root-pid-namespace",
        BOOL,
        "false",
        "process ids are those of the namespace that Leadsman runs in",
    ),
    idle(
        "ignore-unsafe-kernel-version",
        BOOL,
        "false",
        "what the kernel lacks is probed and named: see `leadsman doctor`",
    ),
    idle(
        "force-panic",
        BOOL,
        "false",
        "Leadsman does not crash on request",
    ),
    idle(
        "enable-python-unwinding",
        BOOL,
        "false",
        "Python's frames are those of its interpreter, until Leadsman reads them",
    ),
    idle(
        "enable-ruby-unwinding",
        BOOL,
        "false",
        "Ruby's frames are those of its interpreter, until Leadsman reads them",
    ),
    idle(
        "rate-limit-unwind-info",
        NUMBER,
        "50",
        "queues are bounded in bytes and entries instead",
    ),
    idle(
        "rate-limit-process-mappings",
        NUMBER,
        "50",
        "queues are bounded in bytes and entries instead",
    ),
    idle(
        "rate-limit-refresh-process-info",
        NUMBER,
        "50",
        "queues are bounded in bytes and entries instead",
    ),
    idle(
        "rate-limit-read",
        NUMBER,
        "50",
        "queues are bounded in bytes and entries instead",
    ),
    idle(
        "instrument-cuda-launch",
        BOOL,
        "true",
        "GPUs are not profiled",
    ),
    idle(
        "bpf-cupti-event-scale-factor",
        NUMBER,
        "0",
        "GPUs are not profiled",
    ),
    idle("merge-gpu-profiles", BOOL, "false", "GPUs are not profiled"),
    idle("enable-oom-prof", BOOL, "false", "memory is not profiled"),
    idle(
        "enable-oom-prof-allocs",
        BOOL,
        "false",
        "memory is not profiled",
    ),
    idle(
        "probe-config-file",
        PATH,
        "",
        "no probes are set but the timer",
    ),
];
