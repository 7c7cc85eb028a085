/* A short-lived process. The name of the executable (w-child, w-exec, w-pinned) is its comm.
 *
 *   child spin MS            burns MS of its own CPU time
 *   child exec MS COUNT      burns MS, then replaces itself, COUNT times
 *   child pinned CPU MS      bound to one CPU, burns MS of CPU time and prints the nanoseconds of CPU time it used in all
 *   child exit STATUS        burns 30 ms and exits with STATUS
 *   child signal NUMBER      burns 30 ms and dies by that signal
 *   child identity           burns 30 ms and prints its uid and gid
 *   child thread-exec MS     its second thread replaces the image, which then burns MS
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#define NODE __attribute__((noipa))
#define AFTER_CALL() __asm__ volatile("" ::: "memory")

static volatile uint64_t sink;

static int64_t cpu_nanoseconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return now.tv_sec * 1000000000LL + now.tv_nsec;
}

NODE void w_child_turn(void) {
    uint64_t x = sink | 1;
    for (int i = 0; i < 100000; i++)
        x = x * 6364136223846793005u + 1442695040888963407u;
    sink = x;
}

NODE void w_child_spin(long milliseconds) {
    int64_t end = cpu_nanoseconds() + milliseconds * 1000000LL;
    while (cpu_nanoseconds() < end) {
        w_child_turn();
        AFTER_CALL();
    }
}

static long number(int argc, char **argv, int index) {
    if (index >= argc) {
        fprintf(stderr, "child: argument %d is missing\n", index);
        exit(2);
    }
    return strtol(argv[index], NULL, 10);
}

static void *replace_image(void *argument) {
    char **argv = argument;
    execl(argv[0], argv[0], "spin", argv[2], (char *)NULL);
    perror(argv[0]);
    exit(1);
}

int main(int argc, char **argv) {
    const char *verb = argc > 1 ? argv[1] : "";
    if (strcmp(verb, "spin") == 0) {
        w_child_spin(number(argc, argv, 2));
    } else if (strcmp(verb, "exec") == 0) {
        w_child_spin(number(argc, argv, 2));
        long left = number(argc, argv, 3);
        if (left > 0) {
            char count[32];
            snprintf(count, sizeof count, "%ld", left - 1);
            execl(argv[0], argv[0], "exec", argv[2], count, (char *)NULL);
            perror(argv[0]);
            return 1;
        }
    } else if (strcmp(verb, "thread-exec") == 0) {
        number(argc, argv, 2);
        pthread_t thread;
        if (pthread_create(&thread, NULL, replace_image, argv) != 0) return 1;
        pthread_join(thread, NULL);
    } else if (strcmp(verb, "pinned") == 0) {
        cpu_set_t set;
        CPU_ZERO(&set);
        CPU_SET((int)number(argc, argv, 2), &set);
        if (sched_setaffinity(0, sizeof set, &set) != 0) { perror("sched_setaffinity"); return 1; }
        w_child_spin(number(argc, argv, 3));
        printf("%lld\n", (long long)cpu_nanoseconds());
    } else if (strcmp(verb, "exit") == 0) {
        w_child_spin(30);
        return (int)number(argc, argv, 2);
    } else if (strcmp(verb, "signal") == 0) {
        w_child_spin(30);
        struct rlimit none = {0, 0};
        setrlimit(RLIMIT_CORE, &none);
        raise((int)number(argc, argv, 2));
        return 99;
    } else if (strcmp(verb, "identity") == 0) {
        w_child_spin(30);
        printf("%d %d\n", (int)getuid(), (int)getgid());
    } else {
        fprintf(stderr, "child: unknown verb '%s'\n", verb);
        return 2;
    }
    return 0;
}
