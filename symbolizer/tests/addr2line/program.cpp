#include <algorithm>
#include <cstdio>
#include <map>
#include <numeric>
#include <string>
#include <vector>

namespace shapes {
namespace {
struct Hidden {
    int factor;
    int apply(int x) const { return x * factor; }
};
} // namespace

template <typename T, int N> struct Ring {
    T values[N];
    T sum() const { return std::accumulate(values, values + N, T()); }
};

class Shape {
  public:
    virtual ~Shape() = default;
    virtual double area() const = 0;
    Shape &operator+=(int by) {
        grown += by;
        return *this;
    }
    int grown = 0;
};

class Square final : public Shape {
  public:
    explicit Square(double side) : side(side) {}
    __attribute__((noinline)) double area() const override { return side * side + grown; }

  private:
    double side;
};

template <typename F> __attribute__((noinline)) int twice(F f, int x) { return f(f(x)); }
} // namespace shapes

static __attribute__((noinline)) std::string join(const std::vector<std::string> &parts) {
    std::string all;
    for (const auto &part : parts)
        all += part + ",";
    return all;
}

extern "C" __attribute__((noinline)) int plain_c(int x) { return x ^ 0x55; }

int main(int argc, char **argv) {
    shapes::Hidden hidden{argc + 2};
    shapes::Square square(argc);
    square += 3;
    shapes::Ring<long, 8> ring{};
    std::iota(ring.values, ring.values + 8, argc);
    std::map<std::string, int> counts;
    std::vector<std::string> parts(argv, argv + argc);
    for (auto &part : parts)
        counts[part]++;
    std::sort(parts.begin(), parts.end(), [](const auto &a, const auto &b) { return b < a; });
    int lambda = shapes::twice([&](int x) { return hidden.apply(x) + 1; }, argc);
    std::printf("%f %ld %s %d %d\n", square.area(), ring.sum(), join(parts).c_str(), lambda,
                plain_c(argc));
    return counts.empty();
}
