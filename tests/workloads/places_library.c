/* The shared library of places.c. */

__attribute__((noinline)) static unsigned long p_library_leaf(unsigned long x) {
	for (int i = 0; i < 20000; i++)
		x = x * 6364136223846793005u + 1442695040888963407u;
	__asm__ volatile("" : "+r"(x));
	return x + 1;
}

unsigned long p_library(unsigned long x) {
	x = p_library_leaf(x);
	__asm__ volatile("" : "+r"(x));
	return x + 1;
}
