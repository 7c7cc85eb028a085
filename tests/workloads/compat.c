/* A 32-bit process that needs no C library: burns, and makes system calls. Built with -m32 -nostdlib. */
static volatile unsigned sink;

static inline __attribute__((always_inline)) int system_call(int number, int a, int b, int c) {
    int result;
    __asm__ volatile("int $0x80" : "=a"(result) : "a"(number), "b"(a), "c"(b), "d"(c) : "memory");
    return result;
}

__attribute__((noipa)) void w_compat_spin(void) {
    unsigned x = sink | 1;
    for (int i = 0; i < 1000000; i++) x = x * 1664525u + 1013904223u;
    sink = x;
}

void _start(void) {
    static const char text[] = "started one thread\n";
    system_call(172 /* prctl */, 1 /* PR_SET_PDEATHSIG */, 9, 0);
    system_call(4 /* write */, 1, (int)text, sizeof text - 1);
    for (;;) {
        w_compat_spin();
        for (int i = 0; i < 1000; i++) system_call(64 /* getppid */, 0, 0, 0);
    }
}
