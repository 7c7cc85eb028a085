/* One chain in the main thread and one in a second thread, without anything that only glibc has: for the ways in which a
 * program can be linked, started and stored. With "remap" it first moves its own text into anonymous memory, as programs
 * do that want it on huge pages. With "leave" its first thread ends after three seconds. The chains stand in tests/src/odd.rs.
 *
 * Usage: simple [remap | leave]
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

/* The chain's functions have a section of their own, whole pages of it. */
#define NODE __attribute__((noipa, section("hot")))
#define AFTER_CALL() __asm__ volatile("" ::: "memory")

static volatile uint64_t sink;

__attribute__((noipa, section("hot"), aligned(4096))) void w_spin(void) {
    uint64_t x = sink | 1;
    for (int i = 0; i < 3000000; i++)
        x = x * 6364136223846793005u + 1442695040888963407u;
    sink = x;
}
NODE int w_simple_b(int n) {
    char local[72];
    memset(local, n, sizeof local);
    __asm__ volatile("" : : "r"(local) : "memory");
    w_spin();
    AFTER_CALL();
    return local[n & 63];
}
NODE int w_simple_a(int n) { int r = w_simple_b(n + 1); AFTER_CALL(); return r + n; }
NODE void w_simple_main(void) { for (int n = 0;; n++) sink += (uint64_t)w_simple_a(n); }
NODE int w_thread_a(int n) { int r = w_simple_b(n + 1); AFTER_CALL(); return r + n; }
NODE void *w_thread_main(void *unused) {
    prctl(PR_SET_NAME, "w-second");
    for (int n = 0;; n++) sink += (uint64_t)w_thread_a(n);
    return unused;
}

extern char __start_hot[], __stop_hot[];

static inline __attribute__((always_inline)) long system_call(long number, long a, long b, long c, long d, long e, long f) {
    long result;
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    register long r9 __asm__("r9") = f;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return result;
}
/* Must not lie in what it replaces: a section, and thus a page, of its own. */
__attribute__((noipa, section("mover"), aligned(4096), optimize("no-tree-loop-distribute-patterns"))) long
replace_text(char *start, size_t length, const char *copy) {
    if (system_call(SYS_mmap, (long)start, (long)length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) < 0)
        return -1;
    for (size_t at = 0; at < length; at++) ((volatile char *)start)[at] = copy[at];
    return system_call(SYS_mprotect, (long)start, (long)length, PROT_READ | PROT_EXEC, 0, 0, 0);
}
static void remap_text(void) {
    char *start = (char *)((uintptr_t)__start_hot & ~4095UL);
    size_t length = ((uintptr_t)__stop_hot - (uintptr_t)start + 4095) & ~4095UL;
    char *copy = malloc(length);
    memcpy(copy, start, length);
    if (replace_text(start, length, copy) != 0) {
        fprintf(stderr, "simple: cannot replace the text\n");
        exit(1);
    }
    madvise(start, length, MADV_HUGEPAGE);
}

int main(int argc, char **argv) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (argc > 1 && strcmp(argv[1], "remap") == 0) remap_text();
    pthread_t thread;
    if (pthread_create(&thread, NULL, w_thread_main, NULL) != 0) return 1;
    printf("started 2 threads\n");
    fflush(stdout);
    if (argc > 1 && strcmp(argv[1], "leave") == 0) {
        sleep(3);
        pthread_exit(NULL);
    }
    w_simple_main();
}
