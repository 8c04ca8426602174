/* Hands the frames that come to a tap device back to it, each after a time of its own: later ones overtake them.
 *
 * Owns the times, by chance from a seed. Must not know which frames are sent here, or why.
 * usage: detour DEVICE SEED MICROSECONDS_MAX; makes the device, prints `ready`, ends with its standard input
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

enum { FRAMES_MAX = 256, FRAME_BYTES_MAX = 10000 };

static struct frame {
    uint64_t due;
    ssize_t bytes;
    char data[FRAME_BYTES_MAX];
} frames[FRAMES_MAX];

static uint64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000000ull + time.tv_nsec;
}

/* SplitMix64. */
static uint64_t state;
static uint64_t random_word(void) {
    uint64_t word = state += 0x9e3779b97f4a7c15ull;
    word = (word ^ word >> 30) * 0xbf58476d1ce4e5b9ull;
    word = (word ^ word >> 27) * 0x94d049bb133111ebull;
    return word ^ word >> 31;
}

static int open_tap(const char *name) {
    struct ifreq request = {.ifr_flags = IFF_TAP | IFF_NO_PI};
    int tap = open("/dev/net/tun", O_RDWR | O_NONBLOCK);
    strncpy(request.ifr_name, name, IFNAMSIZ - 1);
    return tap >= 0 && ioctl(tap, TUNSETIFF, &request) == 0 ? tap : -1;
}

int main(int count, char **words) {
    if (count != 4) return 2;
    int tap = open_tap(words[1]);
    if (tap < 0) {
        perror("detour: cannot make the device");
        return 1;
    }
    state = strtoull(words[2], NULL, 10);
    uint64_t most = strtoull(words[3], NULL, 10) * 1000 + 1;
    puts("ready");
    fflush(stdout);
    int held = 0;
    for (;;) {
        uint64_t next = UINT64_MAX, at = now();
        for (int i = 0; i < held; i++) {
            if (frames[i].due <= at) {
                /* A device that is down takes none: then the frame is lost. */
                if (write(tap, frames[i].data, frames[i].bytes) < 0) fputs("detour: a frame is lost\n", stderr);
                frames[i--] = frames[--held];
            } else if (frames[i].due < next) {
                next = frames[i].due;
            }
        }
        struct pollfd files[2] = {{0, POLLIN, 0}, {tap, held < FRAMES_MAX ? POLLIN : 0, 0}};
        uint64_t wait = next == UINT64_MAX ? 1000000000 : next > at ? next - at : 0;
        struct timespec time = {wait / 1000000000, wait % 1000000000};
        if (ppoll(files, 2, &time, NULL) < 0) return 1;
        if (files[0].revents) return 0;
        while (held < FRAMES_MAX) {
            ssize_t bytes = read(tap, frames[held].data, FRAME_BYTES_MAX);
            if (bytes <= 0) break;
            frames[held].bytes = bytes;
            frames[held++].due = now() + random_word() % most;
        }
    }
}
