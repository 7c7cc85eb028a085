//! System calls by purpose: what the seccomp filters are made of. Numbers only; [`crate::lockdown`] installs them.

use std::fmt;

/// An argument's masked value that makes a call permissible.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Argument {
    /// Which argument, from 0.
    pub index: u8,
    /// Bits looked at, of the low 32.
    pub mask: u32,
    /// What they must be.
    pub value: u32,
    /// The same in words.
    pub words: &'static str,
}

/// A permitted system call.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    constant: &'static str,
    /// Its number.
    pub number: i64,
    /// Any of these must hold; empty: always permitted.
    pub only: &'static [Argument],
}

impl Call {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.constant.trim_start_matches("SYS_")
    }
}

impl fmt::Display for Call {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())?;
        if !self.only.is_empty() {
            let words: Vec<_> = self.only.iter().map(|argument| argument.words).collect();
            write!(formatter, "({})", words.join(", "))?;
        }
        Ok(())
    }
}

/// System calls for one purpose.
#[derive(Debug)]
pub struct Group {
    /// Its name.
    pub name: &'static str,
    /// What for.
    pub why: &'static str,
    /// Its members.
    pub calls: &'static [Call],
}

macro_rules! calls {
    ($($constant:ident $(if [$($only:expr),+ $(,)?])?),* $(,)?) => {
        &[$(Call {
            constant: stringify!($constant),
            number: libc::$constant,
            only: &[$($($only),+)?],
        },)*]
    };
}

const fn argument(index: u8, mask: i32, value: i32, words: &'static str) -> Argument {
    Argument {
        index,
        mask: mask as u32,
        value: value as u32,
        words,
    }
}

const WRITING: i32 = libc::O_WRONLY | libc::O_RDWR | libc::O_CREAT | libc::O_TRUNC | libc::O_APPEND;
const NOT_EXECUTABLE: Argument = argument(2, libc::PROT_EXEC, 0, "never executable");
const THREAD: Argument = argument(0, libc::CLONE_THREAD, libc::CLONE_THREAD, "threads");
const OWN_NAME: Argument = argument(0, -1, libc::PR_SET_NAME, "own name");
const UNIX: Argument = argument(0, -1, libc::AF_UNIX, "AF_UNIX");
const INET: Argument = argument(0, -1, libc::AF_INET, "AF_INET");
const INET6: Argument = argument(0, -1, libc::AF_INET6, "AF_INET6");

const fn command(index: u8, number: i32, words: &'static str) -> Argument {
    argument(index, -1, number, words)
}

const fn read_only(index: u8) -> Argument {
    argument(index, WRITING, 0, "read-only")
}

const fn empty_path(index: u8) -> Argument {
    let flag = libc::AT_EMPTY_PATH;
    argument(index, flag, flag, "of a descriptor")
}

/// Memory of its own.
pub static MEMORY: Group = Group {
    name: "memory",
    why: "the allocator; what was read can never become code",
    calls: calls![
        SYS_mmap if [NOT_EXECUTABLE],
        SYS_mprotect if [NOT_EXECUTABLE],
        SYS_munmap,
        SYS_mremap,
        SYS_brk,
        SYS_madvise,
    ],
};

/// What the C library and Rust's need in every program.
pub static RUNTIME: Group = Group {
    name: "runtime",
    why: "locks, clocks, signals, random seeds of hash tables, the end",
    calls: calls![
        SYS_futex,
        SYS_clock_gettime,
        SYS_clock_nanosleep,
        SYS_nanosleep,
        SYS_restart_syscall,
        SYS_getrandom,
        SYS_rt_sigreturn,
        SYS_rt_sigprocmask,
        SYS_rt_sigaction,
        SYS_sigaltstack,
        SYS_tgkill,
        SYS_getpid,
        SYS_gettid,
        SYS_sched_yield,
        SYS_exit,
        SYS_exit_group,
        SYS_prctl if [OWN_NAME],
    ],
};

/// Threads of its own.
pub static THREADS: Group = Group {
    name: "threads",
    why: "worker threads; never a process",
    calls: calls![
        SYS_clone if [THREAD],
        SYS_set_robust_list,
        SYS_rseq,
        SYS_sched_getaffinity,
    ],
};

/// Descriptors that are open already.
pub static DESCRIPTORS: Group = Group {
    name: "descriptors",
    why: "read, write, wait for and close what is open",
    calls: calls![
        SYS_ioctl if [
            command(1, libc::FIONBIO as i32, "FIONBIO"),
            command(1, libc::TCGETS as i32, "TCGETS"),
        ],
        SYS_newfstatat if [empty_path(3)],
        SYS_statx if [empty_path(2)],
        SYS_fstat,
        SYS_read,
        SYS_readv,
        SYS_pread64,
        SYS_write,
        SYS_writev,
        SYS_pwrite64,
        SYS_lseek,
        SYS_close,
        SYS_fcntl,
        SYS_ftruncate,
        SYS_poll,
        SYS_ppoll,
        SYS_epoll_create1,
        SYS_epoll_ctl,
        SYS_epoll_wait,
        SYS_epoll_pwait,
        SYS_eventfd2,
    ],
};

/// Channels to the other processes.
pub static LINKS: Group = Group {
    name: "links",
    why: "messages and descriptors to and from the other processes; large bodies in memfds",
    calls: calls![
        SYS_socket if [UNIX],
        SYS_connect,
        SYS_accept4,
        SYS_sendmsg,
        SYS_recvmsg,
        SYS_sendto,
        SYS_recvfrom,
        SYS_getsockopt,
        SYS_setsockopt,
        SYS_getsockname,
        SYS_getpeername,
        SYS_shutdown,
        SYS_memfd_create,
    ],
};

/// Connections to the remote store; [`crate::lockdown`] adds them for who may have them, where a store is configured.
pub static STORE: Group = Group {
    name: "remote store",
    why: "connect to the remote store and ask the name server for it, where a store is configured",
    calls: calls![
        SYS_socket if [INET, INET6],
        SYS_bind,
        SYS_sendmmsg,
        SYS_ioctl if [command(1, libc::FIONREAD as i32, "FIONREAD")],
        SYS_uname,
    ],
};

/// BPF maps that are open already: no new map, no program.
pub static BPF_MAPS: Group = Group {
    name: "BPF maps",
    why: "install and evict unwind tables",
    // enum bpf_cmd in include/uapi/linux/bpf.h.
    calls: calls![SYS_bpf if [
        command(0, 1, "look up"),
        command(0, 2, "update"),
        command(0, 3, "delete"),
        command(0, 4, "next key"),
        command(0, 24, "look up many"),
        command(0, 25, "look up and delete many"),
        command(0, 26, "update many"),
        command(0, 27, "delete many"),
    ]],
};

/// Perf events that are open already.
pub static PERF_EVENTS: Group = Group {
    name: "perf events",
    why: "switch sampling on and off, change its rate",
    // PERF_EVENT_IOC_ENABLE, _DISABLE and _PERIOD in include/uapi/linux/perf_event.h.
    calls: calls![SYS_ioctl if [
        command(1, 0x2400, "enable"),
        command(1, 0x2401, "disable"),
        command(1, 0x4008_2404, "period"),
    ]],
};

/// Files by path, for reading.
pub static READ_FILES: Group = Group {
    name: "read files",
    why: "open and list files, never to write",
    calls: calls![
        SYS_openat if [read_only(2)],
        SYS_open if [read_only(1)],
        SYS_stat,
        SYS_lstat,
        SYS_newfstatat,
        SYS_statx,
        SYS_fstatfs,
        SYS_readlink,
        SYS_readlinkat,
        SYS_getdents64,
        SYS_fadvise64,
    ],
};

/// Files by path, for writing; Landlock says where.
pub static WRITE_FILES: Group = Group {
    name: "write files",
    why: "keep the cache or the local store: write whole, rename, remove",
    calls: calls![
        SYS_openat,
        SYS_open,
        SYS_mkdir,
        SYS_mkdirat,
        SYS_rename,
        SYS_renameat,
        SYS_renameat2,
        SYS_unlink,
        SYS_unlinkat,
        SYS_rmdir,
        SYS_fsync,
        SYS_fdatasync,
        SYS_flock,
        SYS_utimensat,
        SYS_fchmod,
    ],
};

/// All groups.
pub static GROUPS: &[&Group] = &[
    &MEMORY,
    &RUNTIME,
    &THREADS,
    &DESCRIPTORS,
    &LINKS,
    &STORE,
    &BPF_MAPS,
    &PERF_EVENTS,
    &READ_FILES,
    &WRITE_FILES,
];

/// Calls that no process makes by mistake: an attempt ends the process (unless a group permits it to this one).
pub static FATAL: &[i64] = &[
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_pidfd_getfd,
    libc::SYS_open_by_handle_at,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_userfaultfd,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_setns,
    libc::SYS_unshare,
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_fork,
    libc::SYS_vfork,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
];

/// Calls whose arguments a filter can't see: the libraries fall back to older ones, which it can.
pub static ABSENT: &[i64] = &[libc::SYS_clone3, libc::SYS_openat2];
