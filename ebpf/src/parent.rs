//! A process just forked runs in its parent's mappings until it maps something or execs: the first samples of a shell's
//! children are walked before anybody heard of them.

use aya_ebpf::helpers::generated::{bpf_get_current_task, bpf_ktime_get_boot_ns};

use crate::lookup::owner;
use crate::maps::{OFFSETS, SCRATCH};
use crate::memory::{kernel_half, kernel_word};

/// How long after a fork the parent's mappings are the child's, nanoseconds: what an older child has mapped since, the
/// sampler may not have told yet.
const YOUTH: u64 = 100_000_000;
/// Forks between the sampled process and one whose mappings are known: a shell's pipeline in a subshell has two.
const GENERATIONS: u32 = 3;

/// Makes the mappings of the nearest ancestor that has any those that apply, where all from the sampled process on are
/// young copies; returns whether they do.
///
/// A fork copies `self_exec_id` and notes the parent's in `parent_exec_id` (kernel/fork.c: `copy_process`), and each exec
/// raises the former: equal ones in the child say that it has not called exec, and in the parent that it has not either.
/// Whether this is the parent that forked it, or who took over an orphan, tells the place of the first stack, which a fork
/// copies and an exec draws by lot (`mm_struct.start_stack`).
///
/// A global function in BTF's sense, as `walk_frame` is.
#[inline(never)]
#[unsafe(no_mangle)]
pub(crate) extern "C" fn take_ancestors_mappings() -> u32 {
    let Some(scratch) = SCRATCH.get_ptr_mut(0) else {
        return 0;
    };
    // SAFETY: the map value is this CPU's own; the loader wrote the offsets before it froze the map.
    let (scratch, offsets) = unsafe { (&mut *scratch, (&raw const OFFSETS).read_volatile()) };
    let start_of_stack = |task| {
        let mm = kernel_word(task, offsets.task_mm);
        kernel_word(mm, offsets.mm_start_stack)
    };
    // SAFETY: no preconditions.
    let (now, mut task) = unsafe { (bpf_ktime_get_boot_ns(), bpf_get_current_task()) };
    let mut generation = 0;
    while generation < GENERATIONS {
        if now.wrapping_sub(scratch.owner_start_time) > YOUTH {
            return 0;
        }
        let parent = kernel_word(task, offsets.task_real_parent);
        let exec_id = kernel_half(parent, offsets.task_exec_id);
        let at_fork = kernel_half(task, offsets.task_parent_exec_id);
        let is_copy = start_of_stack(parent) == start_of_stack(task);
        if scratch.owner_exec_id != at_fork || exec_id != at_fork || !is_copy {
            return 0;
        }
        let leader = kernel_word(parent, offsets.task_group_leader);
        scratch.owner_tgid = kernel_half(parent, offsets.task_tgid);
        scratch.owner_start_time = kernel_word(leader, offsets.task_start_time);
        scratch.owner_exec_id = exec_id;
        if owner(scratch).is_some() {
            return 1;
        }
        task = parent;
        generation += 1;
    }
    0
}
