// What engine-primes.disa and engine-assign.disa compute, for gcc -O2.
#include <stdint.h>
#include <stdio.h>
#include <string.h>

enum { LIMIT = 2000000, POINTS = 20000, ROUNDS = 100, K = 16, DIMENSIONS = 8 };

static uint64_t points[POINTS][DIMENSIONS], means[K][DIMENSIONS];

static uint64_t primes(uint64_t limit) {
    uint64_t count = 0;
    for (uint64_t number = 0; number < limit; number++) {
        if (number < 4) {
            count += number >= 2;
            continue;
        }
        if (!(number & 1)) continue;
        int is_prime = 1;
        for (uint64_t divisor = 3; divisor * divisor <= number; divisor += 2)
            if (number % divisor == 0) {
                is_prime = 0;
                break;
            }
        count += is_prime;
    }
    return count;
}

static uint64_t assign(void) {
    uint64_t sum = 0;
    for (int point = 0; point < POINTS; point++) {
        uint64_t least = UINT64_MAX, nearest = 0;
        for (uint64_t mean = 0; mean < K; mean++) {
            uint64_t distance = 0;
            for (int d = 0; d < DIMENSIONS; d++) {
                uint64_t difference = points[point][d] - means[mean][d];
                distance += difference * difference;
            }
            if (distance < least) {
                least = distance;
                nearest = mean;
            }
        }
        sum += nearest;
    }
    return sum;
}

int main(int count, char **arguments) {
    if (count > 1 && !strcmp(arguments[1], "primes")) {
        printf("%lu\n", primes(LIMIT));
        return 0;
    }
    uint64_t x = 1, sum = 0;
    for (int point = 0; point < POINTS; point++)
        for (int d = 0; d < DIMENSIONS; d++) {
            x = x * 6364136223846793005u + 1442695040888963407u;
            points[point][d] = x >> 48;
        }
    memcpy(means, points, sizeof means);
    for (int round = 0; round < ROUNDS; round++) {
        sum += assign();
        __asm__ volatile("" ::: "memory");
    }
    printf("%lu\n", sum);
    return 0;
}
