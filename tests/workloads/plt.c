/* Linked by chains.c: a function so small that a good part of the time is spent in the PLT entry that leads to it. */
__attribute__((noipa)) int w_plt_leaf(int n) { return n * 3 + 1; }
