/*
 * Places in code whose function, file and line are known: three functions that cannot be inlined, one that is, and with
 * WITH_LIBRARY two in a shared library. tests/src/places.rs builds it in several ways and each time with another build ID.
 *
 * Usage: places-NAME [SECONDS]
 */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#ifdef WITH_LIBRARY
unsigned long p_library(unsigned long x);
#endif

static inline __attribute__((always_inline)) unsigned long p_inlined(unsigned long x) {
	for (int i = 0; i < 20000; i++)
		x = x * 6364136223846793005u + 1442695040888963407u;
	return x;
}

__attribute__((noinline)) unsigned long p_leaf(unsigned long x) {
	x = p_inlined(x);
	__asm__ volatile("" : "+r"(x));
	return x + SEED;
}

__attribute__((noinline)) unsigned long p_middle(unsigned long x) {
	x = p_leaf(x);
	__asm__ volatile("" : "+r"(x));
	return x + 1;
}

__attribute__((noinline)) unsigned long p_outer(unsigned long x) {
	x = p_middle(x);
	__asm__ volatile("" : "+r"(x));
#ifdef WITH_LIBRARY
	x = p_library(x);
	__asm__ volatile("" : "+r"(x));
#endif
	return x + 1;
}

int main(int argc, char **argv) {
	unsigned long x = 1;
	alarm(argc > 1 ? (unsigned)atoi(argv[1]) : 600);
	printf("started 1 thread\n");
	fflush(stdout);
	for (;;) {
		x = p_outer(x);
		__asm__ volatile("" : "+r"(x));
	}
}
