/* One chain of functions that keep frame pointers, without call frame information. Most of the time passes at the last
 * instruction of the last one, where its frame is not any more: its return address comes from memory, far behind the
 * caches. The chain stands in tests/src/odd.rs.
 *
 * Usage: unframed
 */
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/prctl.h>

#define NODE __attribute__((noipa))

__attribute__((naked, noipa)) void w_unframed_leaf(void) {
    __asm__("push %rbp\n\t"
            "mov %rsp, %rbp\n\t"
            "clflush 8(%rsp)\n\t"
            "pop %rbp\n\t"
            "ret");
}

static volatile uint64_t sink;

NODE void w_unframed_b(void) {
    for (int i = 0; i < 1000000; i++) w_unframed_leaf();
    sink++;
}
NODE void w_unframed_a(void) {
    w_unframed_b();
    sink++;
}
NODE void w_unframed_main(void) {
    for (;;) {
        w_unframed_a();
        sink++;
    }
}

int main(void) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    printf("started one thread\n");
    fflush(stdout);
    w_unframed_main();
}
