#include <stdio.h>
#include <stdlib.h>

static inline __attribute__((always_inline)) int square(int x) {
    return x * x + (x >> 3);
}

static inline __attribute__((always_inline)) int twice_square(int x) {
    int y = square(x);
    return y + square(y ^ 5);
}

static __attribute__((noinline)) int with_constant(int *values, int count, int mode) {
    int sum = 0;
    for (int i = 0; i < count; i++) {
        if (mode)
            sum += twice_square(values[i]);
        else
            sum -= square(values[i]);
    }
    return sum;
}

static int compare(const void *a, const void *b) {
    const int *x = a, *y = b;
    return square(*x) - square(*y);
}

__attribute__((noinline)) int exported(int *values, int count) {
    if (count > 1000) {
        fprintf(stderr, "too many: %d\n", count);
        abort();
    }
    qsort(values, count, sizeof *values, compare);
    return with_constant(values, count, 1);
}

int main(int argc, char **argv) {
    int values[64];
    for (int i = 0; i < 64; i++)
        values[i] = (i * 7919 + argc) % 101;
    printf("%d\n", exported(values, 64) + twice_square(argc));
    return argv[0] == NULL;
}
