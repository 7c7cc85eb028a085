//! Leadsman's BPF programs: the timer's entry, and the walk that tail-calls itself.
// SPDX-License-Identifier: GPL-2.0-only
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

mod emit;
mod lookup;
mod maps;
mod memory;
mod parent;
mod snapshot;

use aya_ebpf::EbpfContext;
use aya_ebpf::bindings::bpf_perf_event_data;
use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use aya_ebpf::helpers::generated::{
    bpf_get_current_cgroup_id, bpf_get_current_comm, bpf_get_current_task,
    bpf_get_smp_processor_id, bpf_get_stack, bpf_ktime_get_ns,
};
use aya_ebpf::macros::perf_event;
use aya_ebpf::programs::PerfEventContext;
use leadsman_ebpf::abi::Counter;
use leadsman_ebpf::code::{ends_with_call, ends_with_syscall, frame_in_the_making};
use leadsman_ebpf::limits::{FRAMES_PER_CALL, MAX_KERNEL_FRAMES, MAX_USER_FRAMES, WALK_CALLS};
use leadsman_ebpf::registers::{ALL_KNOWN, Registers, number};
use leadsman_ebpf::root::{may_hide_root, without_frame_pointer};
use leadsman_ebpf::rule::{Kind, Rule};
use leadsman_ebpf::step::{step, step_frame_pointer, step_unframed};
use leadsman_ebpf::stop::StopReason;

use crate::emit::emit;
use crate::lookup::{find_mapping, find_rule, has_no_table, is_unreadable};
use crate::maps::{OFFSETS, PROGRAMS, SCRATCH, Scratch, count};
use crate::memory::{UserStack, kernel_half, kernel_word, opaque, read_kernel, user_word};

/// `PF_IO_WORKER | PF_USER_WORKER | PF_KTHREAD` (include/linux/sched.h): threads without user registers.
const KERNEL_THREAD: u32 = 0x0000_0010 | 0x0000_4000 | 0x0020_0000;
/// The code segment selector of 32-bit user code, `__USER32_CS` (arch/x86/include/asm/segment.h).
const USER32_CS: u64 = 0x23;
/// Indexes into `struct pt_regs` (arch/x86/include/asm/ptrace.h), by DWARF register number.
const PT_REGS: [usize; 16] = [10, 12, 11, 5, 13, 14, 4, 19, 9, 8, 7, 6, 3, 2, 1, 0];
const PT_REGS_ORIG_AX: usize = 15;
const PT_REGS_IP: usize = 16;
const PT_REGS_CS: usize = 17;

#[perf_event]
pub(crate) fn sample(ctx: PerfEventContext) -> u32 {
    let pid_tgid = bpf_get_current_pid_tgid();
    if pid_tgid as u32 == 0 {
        count(Counter::Idle, 1);
        return 0;
    }
    count(Counter::Samples, 1);
    let Some(scratch) = SCRATCH.get_ptr_mut(0) else {
        count(Counter::WalkRefused, 1);
        return 0;
    };
    // SAFETY: the map value is this CPU's own, and timer ticks of one CPU do not nest.
    let scratch = unsafe { &mut *scratch };
    // SAFETY: the loader wrote the offsets before it froze the map; LLVM must not take the zeros for granted.
    let offsets = unsafe { (&raw const OFFSETS).read_volatile() };
    // SAFETY: no preconditions; `comm` has the 16 bytes of TASK_COMM_LEN.
    let task = unsafe {
        scratch.header.time = bpf_ktime_get_ns();
        scratch.header.cgroup = bpf_get_current_cgroup_id();
        scratch.header.cpu = bpf_get_smp_processor_id();
        bpf_get_current_comm(scratch.header.comm.as_mut_ptr().cast(), 16);
        bpf_get_current_task()
    };
    scratch.header.tgid = (pid_tgid >> 32) as u32;
    scratch.header.tid = pid_tgid as u32;
    let leader = kernel_word(task, offsets.task_group_leader);
    scratch.header.start_time = kernel_word(leader, offsets.task_start_time);
    scratch.header.exec_id = kernel_half(task, offsets.task_exec_id);
    scratch.header.reserved = 0;
    scratch.owner_tgid = scratch.header.tgid;
    scratch.owner_start_time = scratch.header.start_time;
    scratch.owner_exec_id = scratch.header.exec_id;
    scratch.calls = 0;
    scratch.helpers = 0;
    scratch.return_address = 0;
    scratch.guessed = 0;
    scratch.unframed = 0;
    scratch.mapping_length = 0;
    scratch.window_start = 1;

    let data = ctx.as_ptr().cast::<bpf_perf_event_data>();
    // SAFETY: the context of a perf_event program.
    let in_user_mode = unsafe { (&raw const (*data).regs.cs).read_volatile() } & 3 == 3;
    scratch.frames = if in_user_mode {
        0
    } else {
        kernel_stack(&ctx, scratch)
    };
    scratch.header.kernel_frames = scratch.frames as u16;

    // A process that ends gives up its memory, and with it its user stack, while its kernel stack still runs.
    let has_user_stack = kernel_half(task, offsets.task_flags) & KERNEL_THREAD == 0
        && kernel_word(task, offsets.task_mm) != 0;
    if !has_user_stack {
        emit(scratch, StopReason::KernelThread as u8);
        return 0;
    }
    let code_segment = if in_user_mode {
        // SAFETY: the context of a perf_event program; its fields are read one by one, as the verifier wants.
        unsafe { registers_of_context(data, &mut scratch.registers) }
    } else {
        let stack = kernel_word(task, offsets.task_stack);
        let saved = stack.wrapping_add(offsets.stack_to_registers.into());
        if !read_kernel(&raw mut scratch.saved, saved) {
            emit(scratch, StopReason::RegistersUnreadable as u8);
            return 0;
        }
        registers_of_kernel_entry(scratch)
    };
    if code_segment == USER32_CS {
        emit(scratch, StopReason::Compat32 as u8);
        return 0;
    }
    if scratch.registers.pc == 0 {
        emit(scratch, StopReason::RegistersUnreadable as u8);
        return 0;
    }
    scratch.registers.known = ALL_KNOWN;
    scratch.registers.pc_is_exact = (in_user_mode || !is_in_system_call(scratch)) as u32;
    scratch.first = scratch.registers;
    // SAFETY: the program array holds `walk`.
    unsafe {
        let _ = PROGRAMS.tail_call(&ctx, 0);
    }
    count(Counter::WalkRefused, 1);
    0
}

/// Up to [`FRAMES_PER_CALL`] frames, then itself again.
#[perf_event]
pub(crate) fn walk(ctx: PerfEventContext) -> u32 {
    let Some(scratch) = SCRATCH.get_ptr_mut(0) else {
        count(Counter::WalkRefused, 1);
        return 0;
    };
    // SAFETY: as in `sample`.
    let scratch = unsafe { &mut *scratch };
    let mut remaining = FRAMES_PER_CALL as u32;
    while remaining > 0 {
        let stop = walk_frame();
        if stop != 0 {
            emit(scratch, walk_end(stop) as u8);
            return 0;
        }
        remaining -= 1;
    }
    scratch.calls += 1;
    if scratch.calls >= WALK_CALLS as u32 {
        emit(scratch, StopReason::DepthLimit as u8);
        return 0;
    }
    // SAFETY: as in `sample`.
    unsafe {
        let _ = PROGRAMS.tail_call(&ctx, 0);
    }
    emit(scratch, StopReason::WalkRefused as u8);
    0
}

/// Emits the current frame and moves to its caller; returns 0, or the number of the reason the walk ends for.
///
/// A global function in BTF's sense: the verifier checks it once, for any caller,
/// instead of once for each of the loop's iterations.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn walk_frame() -> u32 {
    let Some(scratch) = SCRATCH.get_ptr_mut(0) else {
        return StopReason::WalkRefused as u32;
    };
    // SAFETY: as in `sample`.
    match next_frame(unsafe { &mut *scratch }) {
        Ok(()) => 0,
        Err(stop) => stop as u32,
    }
}

/// The number of the reason that a walk which stopped for the one numbered `stop` really ends for: behind the root of a
/// stack that was laid out by hand it takes the frame back that is nobody's.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn walk_end(stop: u32) -> u32 {
    let Some(scratch) = SCRATCH.get_ptr_mut(0) else {
        return StopReason::WalkRefused as u32;
    };
    // SAFETY: as in `sample`.
    let scratch = unsafe { &mut *scratch };
    let is_called = scratch.return_address != 0;
    let stop = if scratch.guessed == 0 {
        let proves_root = is_called && scratch.unframed == 0;
        without_frame_pointer(stop as u8, proves_root, is_unreadable(scratch)) as u32
    } else {
        stop
    };
    if !is_called || !may_hide_root(stop as u8) {
        return stop;
    }
    match user_word(scratch.return_address.wrapping_sub(8)) {
        Some(code) if !ends_with_call(code) => {
            scratch.frames = scratch.frames.wrapping_sub(1);
            StopReason::MadeStack as u32
        }
        _ => stop,
    }
}

#[inline(always)]
fn next_frame(scratch: &mut Scratch) -> Result<(), StopReason> {
    let pc = scratch.registers.lookup_pc();
    find_mapping(scratch, pc)?;
    let frames = opaque(u64::from(scratch.frames));
    if frames >= (MAX_KERNEL_FRAMES + MAX_USER_FRAMES) as u64 {
        return Err(StopReason::DepthLimit);
    }
    // SAFETY: checked just above.
    unsafe { *scratch.words.as_mut_ptr().add(frames as usize) = pc };
    scratch.frames = frames as u32 + 1;
    // The youngest frame was entered by nobody: in a system call it stands behind `syscall`.
    let is_first = frames == u64::from(scratch.header.kernel_frames);
    let is_called = scratch.registers.pc_is_exact | scratch.guessed == 0 && !is_first;
    scratch.return_address = if is_called { scratch.registers.pc } else { 0 };

    let mut rule = Rule::UNCOVERED;
    if !has_no_table(scratch) {
        rule = find_rule(scratch, pc)?;
        if rule.kind() == Kind::UNCOVERED && pc != scratch.registers.pc {
            // A return address that nobody pushed by a call, as makecontext's: it is a function's first byte.
            rule = find_rule(scratch, scratch.registers.pc)?;
        }
    }
    let mut stack = UserStack(scratch);
    let registers = &raw mut scratch.registers;
    // SAFETY: `stack` touches the window only.
    let registers = unsafe { &mut *registers };
    if rule.kind() != Kind::UNCOVERED {
        return step(registers, rule, &mut stack);
    }
    if is_first && leave_unframed() != 0 {
        scratch.unframed = 1;
        return Ok(());
    }
    step_frame_pointer(registers, &mut stack)?;
    scratch.guessed = 1;
    Ok(())
}

/// Moves to the caller of a youngest frame that is not made yet, or not any more; returns 0 where that is not so. A global
/// function, as above.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn leave_unframed() -> u32 {
    let Some(scratch) = SCRATCH.get_ptr_mut(0) else {
        return 0;
    };
    // SAFETY: as in `next_frame`.
    let registers = unsafe { &mut (*scratch).registers };
    let Some(pushed) = user_word(registers.pc).and_then(frame_in_the_making) else {
        return 0;
    };
    let is_behind_call =
        |address: u64| user_word(address.wrapping_sub(8)).is_some_and(ends_with_call);
    step_unframed(registers, pushed, &mut UserStack(scratch), is_behind_call) as u32
}

/// Fills the record with the kernel stack; returns its frames.
#[inline(always)]
fn kernel_stack(ctx: &PerfEventContext, scratch: &mut Scratch) -> u32 {
    let bytes = (MAX_KERNEL_FRAMES * 8) as u32;
    // SAFETY: `words` is longer than that.
    let written =
        unsafe { bpf_get_stack(ctx.as_ptr(), scratch.words.as_mut_ptr().cast(), bytes, 0) };
    if written < 0 { 0 } else { (written / 8) as u32 }
}

#[inline(always)]
unsafe fn registers_of_context(data: *const bpf_perf_event_data, registers: &mut Registers) -> u64 {
    macro_rules! read {
        ($($register:ident = $field:ident),*) => {$(
            // SAFETY: a field of the program's context.
            registers.general[number::$register as usize] = unsafe { (&raw const (*data).regs.$field).read_volatile() };
        )*};
    }
    read!(
        RAX = rax,
        RDX = rdx,
        RCX = rcx,
        RBX = rbx,
        RSI = rsi,
        RDI = rdi,
        RBP = rbp,
        RSP = rsp,
        R8 = r8,
        R9 = r9,
        R10 = r10,
        R11 = r11,
        R12 = r12,
        R13 = r13,
        R14 = r14,
        R15 = r15
    );
    // SAFETY: fields of the program's context.
    unsafe {
        registers.pc = (&raw const (*data).regs.rip).read_volatile();
        (&raw const (*data).regs.cs).read_volatile()
    }
}

/// Whether the thread stands behind a `syscall` instruction, which may end a function. One that entered the kernel by a
/// fault or an interrupt stands before an instruction, and so does one for which the kernel has just set a signal
/// handler or a new program up.
#[inline(always)]
fn is_in_system_call(scratch: &Scratch) -> bool {
    let number = scratch.saved[PT_REGS_ORIG_AX] as i64;
    number >= 0 && user_word(scratch.registers.pc.wrapping_sub(8)).is_none_or(ends_with_syscall)
}

#[inline(always)]
fn registers_of_kernel_entry(scratch: &mut Scratch) -> u64 {
    macro_rules! copy {
        ($($register:literal)*) => {$(
            scratch.registers.general[$register] = scratch.saved[PT_REGS[$register]];
        )*};
    }
    copy!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15);
    scratch.registers.pc = scratch.saved[PT_REGS_IP];
    scratch.saved[PT_REGS_CS]
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo) -> ! {
    // No program of this object can reach a panic: the verifier would refuse it.
    loop {}
}

/// The licence of this program, which the helpers it calls demand.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 4] = *b"GPL\0";
