/* Threads with known stacks. Each thread is named by prctl(PR_SET_NAME) and spins in one known chain of functions, so
 * that a profile can be checked thread by thread. Every function whose name starts with `w_` belongs to a chain; the
 * chains stand in tests/src/workloads.rs and must be changed together with this file.
 *
 * Usage: chains [SECONDS [THREAD...]]   (default: 600 seconds, all threads; names with or without the leading "w-")
 */
#define _GNU_SOURCE
#include <alloca.h>
#include <errno.h>
#include <fcntl.h>
#include <immintrin.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>
#ifndef WORKLOAD_STATIC
#include <dlfcn.h>
#endif

/* noipa: no inlining, cloning or interprocedural guessing, so the chain is the same at every optimisation level. */
#define NODE __attribute__((noipa))
/* Keeps a call from becoming a tail call: something is left to do after it. */
#define AFTER_CALL() __asm__ volatile("" ::: "memory")

static volatile uint64_t sink;
static char directory[PATH_MAX];
extern char **environ;

/* The bottom of most chains: about 20 ms of arithmetic with an empty frame. */
NODE void w_spin(void) {
    uint64_t x = sink | 1;
    for (int i = 0; i < 10000000; i++)
        x = x * 6364136223846793005u + 1442695040888963407u;
    sink = x;
}

/* Burns without touching libc, about half a nanosecond a turn; the exact time does not matter. */
static inline __attribute__((always_inline)) void burn_turns(long turns) {
    uint64_t x = 1;
    for (long i = 0; i < turns; i++)
        x = x * 6364136223846793005u + 1442695040888963407u;
    sink = x;
}

/* === plain === */
NODE void w_plain_c(int n) { w_spin(); sink += n; AFTER_CALL(); }
NODE int w_plain_b(int n) { char local[40]; memset(local, n, sizeof local); w_plain_c(local[n & 31]); AFTER_CALL(); return local[1]; }
NODE int w_plain_a(int n) { int r = w_plain_b(n + 1); AFTER_CALL(); return r + n; }
NODE void *w_plain_main(void *unused) { for (int n = 0;; n++) sink += w_plain_a(n); return unused; }

/* === deep recursion === */
NODE int w_recurse(int depth) {
    if (depth <= 1) {
        w_spin();
        AFTER_CALL();
        return 1;
    }
    int r = w_recurse(depth - 1);
    AFTER_CALL();
    return r + depth;
}
NODE void *w_deep300_main(void *unused) { for (;;) sink += w_recurse(300); return unused; }
NODE void *w_deep5000_main(void *unused) { for (;;) sink += w_recurse(5000); return unused; }

/* === signal handler on an alternate stack === */
NODE void w_handler_burn(void) { burn_turns(3000000); AFTER_CALL(); }
NODE void w_on_signal(int signal, siginfo_t *info, void *context) {
    (void)signal; (void)info; (void)context;
    w_handler_burn();
    AFTER_CALL();
}
NODE void w_signal_victim(void) {
    uint64_t x = sink | 1;
    for (int i = 0; i < 10000000; i++)
        x = x * 6364136223846793005u + 1442695040888963407u;
    sink = x;
}
NODE void *w_signal_main(void *unused) {
    stack_t alternate = {.ss_sp = malloc(65536), .ss_size = 65536};
    if (sigaltstack(&alternate, NULL) != 0) { perror("sigaltstack"); exit(1); }
    struct sigaction action = {.sa_sigaction = w_on_signal, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART};
    if (sigaction(SIGRTMIN + 3, &action, NULL) != 0) { perror("sigaction"); exit(1); }
    struct sigevent event = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGRTMIN + 3};
    event._sigev_un._tid = (pid_t)syscall(SYS_gettid);
    timer_t timer;
    struct itimerspec every = {.it_interval = {0, 6000000}, .it_value = {0, 6000000}};
    if (timer_create(CLOCK_THREAD_CPUTIME_ID, &event, &timer) != 0) { perror("timer_create"); exit(1); }
    if (timer_settime(timer, 0, &every, NULL) != 0) { perror("timer_settime"); exit(1); }
    for (;;) { w_signal_victim(); AFTER_CALL(); }
    return unused;
}
/* === qsort callback === */
NODE int w_compare(const void *a, const void *b) {
    burn_turns(200);
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}
NODE void w_qsort_run(uint32_t *values, size_t count) { qsort(values, count, sizeof *values, w_compare); AFTER_CALL(); }
NODE void *w_qsort_main(void *unused) {
    static uint32_t values[4096];
    for (uint32_t seed = 1;;) {
        for (size_t i = 0; i < 4096; i++) values[i] = seed = seed * 1664525u + 1013904223u;
        w_qsort_run(values, 4096);
        AFTER_CALL();
    }
    return unused;
}

/* === frames of unknown size, realigned frames, and both (the CFA is then an expression) === */
NODE void w_alloca_frame(int n) {
    char *block = alloca((size_t)(n % 7 + 1) * 48);
    __asm__ volatile("" : : "r"(block) : "memory");
    w_spin();
    __asm__ volatile("" : : "r"(block) : "memory");
}
NODE void *w_alloca_main(void *unused) { for (int n = 0;; n++) { w_alloca_frame(n); AFTER_CALL(); } return unused; }

NODE void w_realigned_inner(void) {
    char local[128] __attribute__((aligned(64)));
    __asm__ volatile("" : : "r"(local) : "memory");
    w_spin();
    __asm__ volatile("" : : "r"(local) : "memory");
}
__attribute__((noipa, target("avx2"))) void w_realigned_avx(void) {
    __m256i vector = _mm256_set1_epi32((int)sink);
    __asm__ volatile("" : : "r"(&vector) : "memory");
    w_realigned_inner();
    __asm__ volatile("" : : "r"(&vector) : "memory");
}
NODE void *w_realign_main(void *unused) { for (;;) { w_realigned_avx(); AFTER_CALL(); } return unused; }

NODE void w_drap_frame(int n, int a, int b, int c, int d, int e, int f, int g) {
    char local[64] __attribute__((aligned(64)));
    char *block = alloca((size_t)(n % 5 + 1) * 32);
    __asm__ volatile("" : : "r"(local), "r"(block) : "memory");
    w_spin();
    __asm__ volatile("" : : "r"(local), "r"(block) : "memory");
    sink += (uint64_t)(a + b + c + d + e + f + g);
}
NODE void *w_drap_main(void *unused) { for (int n = 0;; n++) { w_drap_frame(n, 1, 2, 3, 4, 5, 6, 7); AFTER_CALL(); } return unused; }

/* === libc's assembly, system calls, vDSO === */
NODE void w_memcpy_loop(char *to, const char *from, size_t size) {
    for (int i = 0; i < 500; i++) { memcpy(to, from, size); AFTER_CALL(); }
}
NODE void *w_memcpy_main(void *unused) {
    char *a = calloc(1, 1 << 18), *b = calloc(1, 1 << 18);
    for (;;) { w_memcpy_loop(a, b, (1 << 18) - 64); AFTER_CALL(); }
    return unused;
}
NODE void w_syscall_loop(int fd) {
    char buffer[4096];
    for (int i = 0; i < 2000; i++) {
        if (read(fd, buffer, sizeof buffer) < 0) abort();
        syscall(SYS_getppid);
        AFTER_CALL();
    }
}
NODE void *w_syscall_main(void *unused) {
    int fd = open("/dev/zero", O_RDONLY | O_CLOEXEC);
    if (fd < 0) { perror("/dev/zero"); exit(1); }
    for (;;) { w_syscall_loop(fd); AFTER_CALL(); }
    return unused;
}
NODE void w_vdso_loop(void) {
    struct timespec now;
    for (int i = 0; i < 100000; i++) { clock_gettime(CLOCK_MONOTONIC, &now); AFTER_CALL(); }
    sink += (uint64_t)now.tv_nsec;
}
NODE void *w_vdso_main(void *unused) { for (;;) { w_vdso_loop(); AFTER_CALL(); } return unused; }

/* === coroutines: the coroutine's stack has a root of its own === */
static ucontext_t coroutine_main, coroutine_body;
NODE void w_coroutine_step(void) { w_spin(); AFTER_CALL(); }
NODE void w_coroutine_body(void) {
    for (;;) {
        w_coroutine_step();
        swapcontext(&coroutine_body, &coroutine_main);
        AFTER_CALL();
    }
}
NODE void w_coroutine_resume(void) { w_spin(); swapcontext(&coroutine_main, &coroutine_body); AFTER_CALL(); }
NODE void *w_coroutine_main(void *unused) {
    static char stack[65536] __attribute__((aligned(16)));
    getcontext(&coroutine_body);
    coroutine_body.uc_stack.ss_sp = stack;
    coroutine_body.uc_stack.ss_size = sizeof stack;
    coroutine_body.uc_link = &coroutine_main;
    makecontext(&coroutine_body, w_coroutine_body, 0);
    for (;;) { w_coroutine_resume(); AFTER_CALL(); }
    return unused;
}

/* === a tail call (the caller's frame is gone) and a call that is its function's last instruction === */
NODE void w_tail_second(int n) { w_spin(); sink += (uint64_t)n; AFTER_CALL(); }
__attribute__((noipa, optimize("O2"))) void w_tail_first(int n) { w_tail_second(n + 1); }
NODE void *w_tail_main(void *unused) { for (int n = 0;; n++) { w_tail_first(n); AFTER_CALL(); } return unused; }

NODE __attribute__((noreturn)) void w_never_returns(void) { for (;;) { w_spin(); AFTER_CALL(); } }
NODE __attribute__((noreturn)) void w_calls_noreturn(void) { w_never_returns(); }
NODE void *w_noreturn_main(void *unused) { (void)unused; w_calls_noreturn(); }

/* === shared libraries: dlopen'ed with a callback into the program, and a linked one through the PLT === */
#ifndef WORKLOAD_STATIC
NODE void w_plugin_callback(void) { w_spin(); AFTER_CALL(); }
NODE void *w_dlopen_main(void *unused) {
    char path[PATH_MAX + 32];
    snprintf(path, sizeof path, "%s/libchains-plugin.so", directory);
    void *library = dlopen(path, RTLD_NOW);
    if (!library) { fprintf(stderr, "chains: %s\n", dlerror()); exit(1); }
    void (*entry)(void (*)(void)) = (void (*)(void (*)(void)))dlsym(library, "w_plugin_entry");
    if (!entry) { fprintf(stderr, "chains: no w_plugin_entry in %s\n", path); exit(1); }
    for (;;) { entry(w_plugin_callback); AFTER_CALL(); }
    return unused;
}
extern int w_plt_leaf(int n);
NODE int w_plt_loop(int n) { int r = 0; for (int i = 0; i < 1000000; i++) r += w_plt_leaf(i + n); return r; }
NODE void *w_plt_main(void *unused) { for (int n = 0;; n++) sink += (uint64_t)w_plt_loop(n); return unused; }
#endif

/* === a stack of the smallest size === */
NODE void w_small_inner(void) { w_spin(); AFTER_CALL(); }
NODE void *w_small_main(void *unused) { for (;;) { w_small_inner(); AFTER_CALL(); } return unused; }

/* === short-lived children === */
static void reap(pid_t child) {
    int status;
    while (waitpid(child, &status, 0) < 0 && errno == EINTR) {}
}
/* posix_spawn (CLONE_VFORK) of w-child, which spins 3 ms: a fresh process without a history. */
NODE void *w_spawn_main(void *unused) {
    char path[PATH_MAX + 32];
    snprintf(path, sizeof path, "%s/w-child", directory);
    char *arguments[] = {path, "spin", "3", NULL};
    for (;;) {
        pid_t child;
        int error = posix_spawn(&child, path, NULL, NULL, arguments, environ);
        if (error != 0) { fprintf(stderr, "chains: cannot spawn %s: %s\n", path, strerror(error)); exit(1); }
        reap(child);
    }
    return unused;
}
/* A fork without exec: the child goes on in the same image for 3 ms. */
NODE void w_forked_child(void) { burn_turns(2000000); AFTER_CALL(); }
NODE void *w_fork_main(void *unused) {
    for (;;) {
        pid_t child = fork();
        if (child < 0) { perror("fork"); exit(1); }
        if (child == 0) { w_forked_child(); _exit(0); }
        reap(child);
    }
    return unused;
}
/* One process that replaces its own image every 5 ms, 40 times. */
NODE void *w_exec_main(void *unused) {
    char path[PATH_MAX + 32];
    snprintf(path, sizeof path, "%s/w-exec", directory);
    char *arguments[] = {path, "exec", "5", "40", NULL};
    for (;;) {
        pid_t child;
        int error = posix_spawn(&child, path, NULL, NULL, arguments, environ);
        if (error != 0) { fprintf(stderr, "chains: cannot spawn %s: %s\n", path, strerror(error)); exit(1); }
        reap(child);
    }
    return unused;
}

/* === start === */
struct thread {
    const char *name;
    void *(*main)(void *);
    size_t stack_size;
};
static const struct thread THREADS[] = {
    {"w-plain", w_plain_main, 0},
    {"w-deep300", w_deep300_main, 0},
    {"w-deep5000", w_deep5000_main, 8 << 20},
    {"w-signal", w_signal_main, 0},
    {"w-qsort", w_qsort_main, 0},
    {"w-alloca", w_alloca_main, 0},
    {"w-realign", w_realign_main, 0},
    {"w-drap", w_drap_main, 0},
    {"w-memcpy", w_memcpy_main, 0},
    {"w-syscall", w_syscall_main, 0},
    {"w-vdso", w_vdso_main, 0},
    {"w-coroutine", w_coroutine_main, 0},
    {"w-tail", w_tail_main, 0},
    {"w-noreturn", w_noreturn_main, 0},
#ifndef WORKLOAD_STATIC
    {"w-dlopen", w_dlopen_main, 0},
    {"w-plt", w_plt_main, 0},
#endif
    {"w-small", w_small_main, 16384},
    {"w-spawn", w_spawn_main, 0},
    {"w-fork", w_fork_main, 0},
    {"w-execer", w_exec_main, 0},
};

/* Names the thread, then leaves the frame: the thread's own main stands directly under libc's thread start. */
NODE void *w_enter(void *argument) {
    const struct thread *thread = argument;
    prctl(PR_SET_NAME, thread->name);
    void *result = thread->main(NULL);
    AFTER_CALL();
    return result;
}

static int wanted(const char *name, int count, char **names) {
    if (count == 0) return 1;
    for (int i = 0; i < count; i++)
        if (strcmp(name, names[i]) == 0 || strcmp(name + 2, names[i]) == 0) return 1;
    return 0;
}

int main(int argc, char **argv) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    long seconds = argc > 1 ? strtol(argv[1], NULL, 10) : 600;
    ssize_t length = readlink("/proc/self/exe", directory, sizeof directory - 1);
    if (length <= 0) { perror("/proc/self/exe"); return 1; }
    *strrchr(directory, '/') = 0;
    int started = 0;
    for (size_t i = 0; i < sizeof THREADS / sizeof *THREADS; i++) {
        if (!wanted(THREADS[i].name, argc - 2 > 0 ? argc - 2 : 0, argv + 2)) continue;
        pthread_attr_t attributes;
        pthread_attr_init(&attributes);
        if (THREADS[i].stack_size) pthread_attr_setstacksize(&attributes, THREADS[i].stack_size);
        pthread_t thread;
        int error = pthread_create(&thread, &attributes, w_enter, (void *)&THREADS[i]);
        if (error != 0) { fprintf(stderr, "chains: cannot start %s: %s\n", THREADS[i].name, strerror(error)); return 1; }
        started++;
    }
    if (started == 0) { fprintf(stderr, "chains: no such thread\n"); return 2; }
    printf("started %d threads\n", started);
    fflush(stdout);
    struct timespec end = {.tv_sec = seconds};
    while (nanosleep(&end, &end) != 0 && errno == EINTR) {}
    _exit(0);
}
