#include <algorithm>
#include <cstdio>
#include <map>
#include <string>
#include <vector>

namespace sea {
template <typename T> struct Line {
    std::vector<T> depths;
    __attribute__((noinline)) T deepest() const {
        T most{};
        for (const auto &depth : depths)
            most = std::max(most, depth);
        return most;
    }
};
} // namespace sea

int main(int count, char **) {
    std::map<std::string, sea::Line<double>> lines;
    for (int i = 0; i < count * 20; i++)
        lines[std::to_string(i % 3)].depths.push_back(i * 0.5);
    for (const auto &[name, line] : lines)
        std::printf("%s %f\n", name.c_str(), line.deepest());
}
