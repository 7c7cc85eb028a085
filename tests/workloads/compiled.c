/* Something to compile: macros make a few hundred functions of middling size, about half a second of work for cc1 at -O2. */
#include <stddef.h>
#include <stdint.h>

struct item {
    uint32_t key;
    uint32_t value;
    struct item *next;
};

#define FUNCTIONS(n)                                                                                                      \
    uint64_t mix_##n(const uint8_t *bytes, size_t length) {                                                               \
        uint64_t state = 0x9e3779b97f4a7c15u + n;                                                                         \
        for (size_t i = 0; i < length; i++) {                                                                             \
            state ^= (uint64_t)bytes[i] << (i % 8 * 8);                                                                   \
            state = (state << 13 | state >> 51) * (n * 2u + 1u);                                                          \
            if ((state & 0xff) == (n & 0xff)) state += length;                                                            \
        }                                                                                                                 \
        return state;                                                                                                     \
    }                                                                                                                     \
    struct item *insert_##n(struct item *head, struct item *new_item) {                                                   \
        struct item **place = &head;                                                                                      \
        while (*place && (*place)->key < new_item->key + n) place = &(*place)->next;                                      \
        new_item->next = *place;                                                                                          \
        *place = new_item;                                                                                                \
        return head;                                                                                                      \
    }                                                                                                                     \
    void multiply_##n(double *restrict out, const double *restrict a, const double *restrict b, size_t size) {            \
        for (size_t i = 0; i < size; i++)                                                                                 \
            for (size_t j = 0; j < size; j++) {                                                                           \
                double sum = 0;                                                                                           \
                for (size_t k = 0; k < size; k++) sum += a[i * size + k] * b[k * size + j];                               \
                out[i * size + j] = sum + n;                                                                              \
            }                                                                                                             \
    }                                                                                                                     \
    int choose_##n(int value, int other) {                                                                                \
        switch (value % 9) {                                                                                              \
        case 0: return other * n;                                                                                         \
        case 1: return other / (n + 1);                                                                                   \
        case 2: return (int)mix_##n((const uint8_t *)&other, sizeof other);                                               \
        case 3: return value ^ other;                                                                                     \
        case 4: return value << (n & 7);                                                                                  \
        case 7: return -other;                                                                                            \
        default: return choose_##n(value - 1, other + 1);                                                                 \
        }                                                                                                                 \
    }

#define TEN(n)                                                                                                            \
    FUNCTIONS(n##0) FUNCTIONS(n##1) FUNCTIONS(n##2) FUNCTIONS(n##3) FUNCTIONS(n##4)                                       \
    FUNCTIONS(n##5) FUNCTIONS(n##6) FUNCTIONS(n##7) FUNCTIONS(n##8) FUNCTIONS(n##9)

TEN(1) TEN(2) TEN(3) TEN(4)
