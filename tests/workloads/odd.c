/* Threads whose stacks are made or left in odd ways: jumps, nested signals, stacks laid out by hand, libraries that come
 * and go, system calls interrupted by signals, page faults, children that share their parent's memory. Named and checked as
 * those of chains.c; the chains stand in tests/src/odd.rs and must be changed together with this file.
 *
 * Usage: odd [SECONDS]
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define NODE __attribute__((noipa))
#define AFTER_CALL() __asm__ volatile("" ::: "memory")

static volatile uint64_t sink;
static char directory[PATH_MAX];
extern char **environ;

/* The bottom of most chains: some milliseconds of arithmetic with an empty frame. */
NODE void w_spin(void) {
    uint64_t x = sink | 1;
    for (int i = 0; i < 3000000; i++)
        x = x * 6364136223846793005u + 1442695040888963407u;
    sink = x;
}

/* === longjmp out of two frames === */
static jmp_buf landing;
NODE void w_long_b(void) { w_spin(); longjmp(landing, 1); }
NODE void w_long_a(void) { w_long_b(); AFTER_CALL(); }
NODE void w_long_landed(void) { w_spin(); AFTER_CALL(); }
NODE void *w_longjmp_main(void *unused) {
    for (;;) {
        if (setjmp(landing) == 0) w_long_a();
        w_long_landed();
        AFTER_CALL();
    }
    return unused;
}

/* === a signal within a signal handler, both on an alternate stack === */
NODE void w_on_second(int number) { (void)number; w_spin(); AFTER_CALL(); }
NODE void w_on_first(int number) { (void)number; raise(SIGRTMIN + 5); AFTER_CALL(); }
NODE void *w_nested_main(void *unused) {
    stack_t alternate = {.ss_sp = malloc(65536), .ss_size = 65536};
    sigaltstack(&alternate, NULL);
    struct sigaction first = {.sa_handler = w_on_first, .sa_flags = SA_ONSTACK};
    struct sigaction second = {.sa_handler = w_on_second, .sa_flags = SA_ONSTACK};
    sigaction(SIGRTMIN + 4, &first, NULL);
    sigaction(SIGRTMIN + 5, &second, NULL);
    for (;;) { raise(SIGRTMIN + 4); AFTER_CALL(); }
    return unused;
}

/* === a handler that interrupts a system call, which is restarted behind it === */
NODE void w_on_interrupt(int number) { (void)number; w_spin(); AFTER_CALL(); }
NODE void w_wait_for_nothing(int pipe_end) {
    char byte;
    while (read(pipe_end, &byte, 1) < 0 && errno == EINTR) {}
    AFTER_CALL();
}
NODE void *w_eintr_main(void *unused) {
    int ends[2];
    if (pipe(ends) != 0) { perror("pipe"); exit(1); }
    struct sigaction action = {.sa_handler = w_on_interrupt, .sa_flags = SA_RESTART};
    sigaction(SIGRTMIN + 6, &action, NULL);
    struct sigevent event = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGRTMIN + 6};
    event._sigev_un._tid = (pid_t)syscall(SYS_gettid);
    timer_t timer;
    struct itimerspec every = {.it_interval = {0, 10000000}, .it_value = {0, 10000000}};
    if (timer_create(CLOCK_MONOTONIC, &event, &timer) != 0) { perror("timer_create"); exit(1); }
    timer_settime(timer, 0, &every, NULL);
    for (;;) { w_wait_for_nothing(ends[0]); AFTER_CALL(); }
    return unused;
}

/* === a context switch in assembly without call frame information, laid out as boost.context lays its own out: the new
 * stack's first return address leads to code that nobody called === */
__asm__(".text\n"
        ".type context_switch, @function\n"
        "context_switch:\n" /* (void **save, void *load) */
        "  push %rbp\n  push %rbx\n  push %r15\n  push %r14\n  push %r13\n  push %r12\n"
        "  mov %rsp, (%rdi)\n"
        "  mov %rsi, %rsp\n"
        "  pop %r12\n  pop %r13\n  pop %r14\n  pop %r15\n  pop %rbx\n  pop %rbp\n"
        "  ret\n"
        ".size context_switch, .-context_switch\n"
        ".type context_make, @function\n"
        "context_make:\n" /* (void *top, void (*body)(void)) -> void *load */
        "  lea -64(%rdi), %rax\n"
        "  and $-16, %rax\n"
        "  mov %rsi, 32(%rax)\n" /* rbx: the body */
        "  lea context_finish(%rip), %rcx\n"
        "  mov %rcx, 40(%rax)\n" /* rbp: where the body would return to */
        "  lea context_trampoline(%rip), %rcx\n"
        "  mov %rcx, 48(%rax)\n"
        "  ret\n"
        "context_trampoline:\n"
        "  push %rbp\n"
        "  jmp *%rbx\n"
        "context_finish:\n"
        "  xor %edi, %edi\n"
        "  call _exit@PLT\n"
        "  hlt\n"
        ".size context_make, .-context_make\n");
extern void context_switch(void **save, void *load);
extern void *context_make(void *top, void (*body)(void));
static void *context_main, *context_other;
NODE void w_context_step(void) { w_spin(); AFTER_CALL(); }
NODE void w_context_body(void) {
    for (;;) {
        w_context_step();
        context_switch(&context_other, context_main);
        AFTER_CALL();
    }
}
NODE void w_context_resume(void) { w_spin(); context_switch(&context_main, context_other); AFTER_CALL(); }
NODE void *w_context_main(void *unused) {
    static char stack[65536] __attribute__((aligned(16)));
    /* Not what a fresh mapping would hold. */
    memset(stack, 0xa5, sizeof stack);
    context_other = context_make(stack + sizeof stack, w_context_body);
    for (;;) { w_context_resume(); AFTER_CALL(); }
    return unused;
}

/* === a stack made by hand and left and entered with setjmp and longjmp; its first function has no return address === */
static jmp_buf jump_main, jump_other;
NODE void w_jump_step(void) { w_spin(); AFTER_CALL(); }
NODE __attribute__((noreturn, used)) void w_jump_body(void) {
    for (;;) {
        w_jump_step();
        if (_setjmp(jump_other) == 0) _longjmp(jump_main, 1);
        AFTER_CALL();
    }
}
NODE void w_jump_start(void *top) {
    __asm__ volatile("mov %0, %%rsp\n xor %%ebp, %%ebp\n push $0\n jmp w_jump_body" : : "r"(top) : "memory");
    __builtin_unreachable();
}
NODE void w_jump_resume(int is_started, void *top) {
    w_spin();
    if (_setjmp(jump_main) == 0) {
        if (is_started) _longjmp(jump_other, 1);
        w_jump_start(top);
    }
    AFTER_CALL();
}
NODE void *w_jump_main(void *unused) {
    static char stack[65536] __attribute__((aligned(16)));
    for (int n = 0;; n = 1) { w_jump_resume(n, stack + sizeof stack); AFTER_CALL(); }
    return unused;
}

/* === libraries that come and go, at the same address, with other code === */
NODE void w_plugin_callback(void) { w_spin(); AFTER_CALL(); }
static void call_plugin(const char *name, const char *entry) {
    char path[PATH_MAX + 32];
    snprintf(path, sizeof path, "%s/%s", directory, name);
    void *library = dlopen(path, RTLD_NOW);
    if (!library) { fprintf(stderr, "odd: %s\n", dlerror()); exit(1); }
    void (*function)(void (*)(void)) = (void (*)(void (*)(void)))dlsym(library, entry);
    if (!function) { fprintf(stderr, "odd: no %s in %s\n", entry, path); exit(1); }
    for (int n = 0; n < 5; n++) function(w_plugin_callback);
    dlclose(library);
}
NODE void *w_dlclose_main(void *unused) {
    for (;;) {
        call_plugin("libchains-plugin.so", "w_plugin_entry");
        call_plugin("libchains-other.so", "w_other_entry");
    }
    return unused;
}

/* === page faults === */
NODE void w_faults_touch(volatile char *block, size_t size) {
    for (size_t at = 0; at < size; at += 4096) block[at] = 1;
    AFTER_CALL();
}
NODE void *w_faults_main(void *unused) {
    const size_t size = 4 << 20;
    for (;;) {
        char *block = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (block == MAP_FAILED) { perror("mmap"); exit(1); }
        madvise(block, size, MADV_NOHUGEPAGE);
        w_faults_touch(block, size);
        munmap(block, size);
    }
    return unused;
}

/* === libc's assembly for strings === */
NODE size_t w_strings_scan(const char *text, const char *same) {
    size_t sum = 0;
    for (int i = 0; i < 300; i++) {
        sum += strlen(text) + (size_t)strcmp(text, same);
        sum += memchr(text, 'z', 60000) != NULL;
        AFTER_CALL();
    }
    return sum;
}
NODE void *w_strings_main(void *unused) {
    char *text = malloc(65536), *same = malloc(65536);
    memset(text, 'a', 65535);
    memset(same, 'a', 65535);
    text[65535] = same[65535] = 0;
    for (;;) sink += w_strings_scan(text, same);
    return unused;
}

/* === a vfork'ed child, which runs in its parent's memory and stack === */
NODE void w_vfork_child(void) { prctl(PR_SET_NAME, "w-vchild"); w_spin(); AFTER_CALL(); }
NODE void *w_vfork_main(void *unused) {
    for (;;) {
        pid_t child = vfork();
        if (child < 0) { perror("vfork"); exit(1); }
        if (child == 0) { w_vfork_child(); _exit(0); }
        while (waitpid(child, NULL, 0) < 0 && errno == EINTR) {}
    }
    return unused;
}

/* === a process whose second thread replaces the image === */
NODE void *w_texec_main(void *unused) {
    char path[PATH_MAX + 32];
    snprintf(path, sizeof path, "%s/w-texec", directory);
    char *arguments[] = {path, "thread-exec", "20", NULL};
    for (;;) {
        pid_t child;
        int error = posix_spawn(&child, path, NULL, NULL, arguments, environ);
        if (error != 0) { fprintf(stderr, "odd: cannot spawn %s: %s\n", path, strerror(error)); exit(1); }
        while (waitpid(child, NULL, 0) < 0 && errno == EINTR) {}
    }
    return unused;
}

struct thread {
    const char *name;
    void *(*main)(void *);
};
static const struct thread THREADS[] = {
    {"w-longjmp", w_longjmp_main}, {"w-nested", w_nested_main},   {"w-eintr", w_eintr_main},
    {"w-context", w_context_main}, {"w-jump", w_jump_main},       {"w-dlclose", w_dlclose_main},
    {"w-faults", w_faults_main},   {"w-strings", w_strings_main}, {"w-vfork", w_vfork_main},
    {"w-texecer", w_texec_main},
};

NODE void *w_enter(void *argument) {
    const struct thread *thread = argument;
    prctl(PR_SET_NAME, thread->name);
    void *result = thread->main(NULL);
    AFTER_CALL();
    return result;
}

int main(int argc, char **argv) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    long seconds = argc > 1 ? strtol(argv[1], NULL, 10) : 600;
    ssize_t length = readlink("/proc/self/exe", directory, sizeof directory - 1);
    if (length <= 0) { perror("/proc/self/exe"); return 1; }
    *strrchr(directory, '/') = 0;
    for (size_t i = 0; i < sizeof THREADS / sizeof *THREADS; i++) {
        pthread_t thread;
        int error = pthread_create(&thread, NULL, w_enter, (void *)&THREADS[i]);
        if (error != 0) { fprintf(stderr, "odd: cannot start %s: %s\n", THREADS[i].name, strerror(error)); return 1; }
    }
    printf("started threads\n");
    fflush(stdout);
    struct timespec end = {.tv_sec = seconds};
    while (nanosleep(&end, &end) != 0 && errno == EINTR) {}
    _exit(0);
}
