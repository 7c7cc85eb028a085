#include <stdio.h>
#include <stdlib.h>

static int mix(int value, int with) { return value * 31 + with; }

__attribute__((noinline)) static int inner(int n) {
    int sum = 0;
    for (int i = 0; i < n; i++)
        sum = mix(sum, i ^ n);
    return sum;
}

__attribute__((noinline)) int middle(int n) {
    int sum = 0;
    while (n-- > 0)
        sum += inner(n);
    return sum;
}

int outer(int n) { return middle(n) + inner(n + 1); }

#ifndef LIBRARY
int main(int count, char **arguments) {
    (void)arguments;
    printf("%d\n", outer(count * 10));
    return 0;
}
#endif
