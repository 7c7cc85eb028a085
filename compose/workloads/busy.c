/* Works for a tenth of a second, rests for three: a chain of calls with known names. */
#include <time.h>
#include <unistd.h>

static volatile unsigned long sink;

__attribute__((noinline)) static void leaf_of_c(void) {
    for (unsigned long i = 0; i < 20000; i++) sink += i * i;
}
__attribute__((noinline)) static void middle_of_c(void) {
    leaf_of_c();
    sink++;
}
__attribute__((noinline)) static void top_of_c(void) {
    middle_of_c();
    sink++;
}

int main(void) {
    for (;;) {
        struct timespec start, now;
        clock_gettime(CLOCK_MONOTONIC, &start);
        do {
            top_of_c();
            clock_gettime(CLOCK_MONOTONIC, &now);
        } while ((now.tv_sec - start.tv_sec) * 1000 + (now.tv_nsec - start.tv_nsec) / 1000000 < 100);
        usleep(300000);
    }
}
