/* Opened by dlopen in chains.c: a chain that goes through a library and back into the program. */
#define NODE __attribute__((noipa))
#define AFTER_CALL() __asm__ volatile("" ::: "memory")

NODE static void w_plugin_inner(void (*callback)(void)) {
    callback();
    AFTER_CALL();
}

NODE void w_plugin_entry(void (*callback)(void)) {
    w_plugin_inner(callback);
    AFTER_CALL();
}
