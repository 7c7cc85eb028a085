// Chains through C++: templates, namespaces, virtual calls, exceptions caught half way. Names of chain functions start with
// `w_` after their last `::`; the chains stand in tests/src/workloads.rs.
//
// Usage: chains-cpp [SECONDS]
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <stdexcept>
#include <sys/prctl.h>
#include <csignal>
#include <thread>
#include <unistd.h>
#include <vector>

#define NODE __attribute__((noipa))

namespace leadsman::workload {

volatile std::uint64_t sink;

NODE void w_spin() {
    std::uint64_t x = sink | 1;
    for (int i = 0; i < 10000000; i++) x = x * 6364136223846793005u + 1442695040888963407u;
    sink = x;
}

template <int Depth> struct Climber {
    NODE static int w_climb(const std::vector<int> &steps) {
        int r = Climber<Depth - 1>::w_climb(steps);
        __asm__ volatile("" ::: "memory");
        return r + steps[0];
    }
};
template <> struct Climber<0> {
    NODE static int w_climb(const std::vector<int> &steps) {
        w_spin();
        __asm__ volatile("" ::: "memory");
        return static_cast<int>(steps.size());
    }
};

NODE void w_template_main() {
    std::vector<int> steps{1, 2, 3};
    for (;;) sink = sink + static_cast<std::uint64_t>(Climber<4>::w_climb(steps));
}

struct Shape {
    virtual ~Shape() = default;
    virtual void w_draw(int n) = 0;
};
struct Circle final : Shape {
    NODE void w_draw(int n) override {
        w_spin();
        sink = sink + static_cast<std::uint64_t>(n);
    }
};

NODE void w_virtual_main() {
    Shape *shape = new Circle;
    __asm__ volatile("" : "+r"(shape));
    for (int n = 0;; n++) {
        shape->w_draw(n);
        __asm__ volatile("" ::: "memory");
    }
}

NODE void w_thrower(int n) {
    w_spin();
    if (n % 2 == 0) throw std::runtime_error("thrown on purpose");
}
NODE void w_catcher(int n) {
    try {
        w_thrower(n);
    } catch (const std::runtime_error &) {
        w_spin();
    }
    __asm__ volatile("" ::: "memory");
}
NODE void w_exception_main() {
    for (int n = 0;; n++) {
        w_catcher(n);
        __asm__ volatile("" ::: "memory");
    }
}

} // namespace leadsman::workload

int main(int argc, char **argv) {
    using namespace leadsman::workload;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    auto start = [](const char *name, void (*body)()) {
        std::thread([name, body] {
            prctl(PR_SET_NAME, name);
            body();
        }).detach();
    };
    start("w-template", w_template_main);
    start("w-virtual", w_virtual_main);
    start("w-exception", w_exception_main);
    std::puts("started 3 threads");
    std::fflush(stdout);
    sleep(argc > 1 ? static_cast<unsigned>(std::atoi(argv[1])) : 600);
    std::_Exit(0);
}
