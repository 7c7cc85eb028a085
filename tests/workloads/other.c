/* Opened and closed by odd.c in turn with plugin.c: other functions of other sizes where that one's were. */
#define NODE __attribute__((noipa))
#define AFTER_CALL() __asm__ volatile("" ::: "memory")

NODE static int w_other_last(void (*callback)(void), int a, int b, int c) {
    volatile char local[200];
    local[a & 31] = (char)b;
    callback();
    AFTER_CALL();
    return local[c & 31];
}

NODE static void w_other_inner(void (*callback)(void)) {
    volatile int result = w_other_last(callback, 1, 2, 3);
    (void)result;
}

NODE void w_other_entry(void (*callback)(void)) {
    w_other_inner(callback);
    AFTER_CALL();
}
