/* The floors: what the same work costs without us.
 *
 * Owns blocking sockets and one userfaultfd. Must not know anything of dvm.
 *
 * usage: floors udp-server | udp-client ADDRESS COUNT     64 bytes there, 4,096 back: one latency each
 *        floors tcp-server | tcp-client ADDRESS MEBIBYTES  one connection, the client receives: seconds
 *        floors uffd COUNT                                 a missing page filled by another thread: one latency each
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096
#define PORT 7799

static uint64_t now_ns(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000000ull + time.tv_nsec;
}

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static struct sockaddr_in address_of(const char *text) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(PORT)};
    if (text && inet_pton(AF_INET, text, &address.sin_addr) != 1) fail(text);
    return address;
}

static int bound(int kind) {
    struct sockaddr_in address = address_of(NULL);
    int fd = socket(AF_INET, kind, 0), one = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(fd, (void *)&address, sizeof address) != 0) fail("bind");
    return fd;
}

static _Noreturn void udp_server(void) {
    int fd = bound(SOCK_DGRAM);
    static char buffer[PAGE];
    puts("ready");
    fflush(stdout);
    for (;;) {
        struct sockaddr_in from;
        socklen_t length = sizeof from;
        if (recvfrom(fd, buffer, sizeof buffer, 0, (void *)&from, &length) < 0) fail("recvfrom");
        if (sendto(fd, buffer, PAGE, 0, (void *)&from, length) != PAGE) fail("sendto");
    }
}

static int udp_client(const char *server, uint64_t count) {
    struct sockaddr_in address = address_of(server);
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    static char buffer[PAGE];
    if (connect(fd, (void *)&address, sizeof address) != 0) fail("connect");
    for (uint64_t i = 0; i < count; i++) {
        uint64_t start = now_ns();
        if (send(fd, buffer, 64, 0) != 64) fail("send");
        if (recv(fd, buffer, sizeof buffer, 0) != PAGE) fail("recv");
        printf("latency %llu\n", (unsigned long long)(now_ns() - start));
    }
    return 0;
}

static _Noreturn void tcp_server(void) {
    int listener = bound(SOCK_STREAM);
    static char buffer[1 << 18];
    memset(buffer, 1, sizeof buffer);
    if (listen(listener, 1) != 0) fail("listen");
    puts("ready");
    fflush(stdout);
    for (;;) {
        int fd = accept(listener, NULL, NULL);
        while (send(fd, buffer, sizeof buffer, MSG_NOSIGNAL) > 0) {}
        close(fd);
    }
}

static int tcp_client(const char *server, uint64_t mebibytes) {
    struct sockaddr_in address = address_of(server);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    static char buffer[1 << 18];
    if (connect(fd, (void *)&address, sizeof address) != 0) fail("connect");
    uint64_t start = now_ns(), left = mebibytes << 20;
    while (left > 0) {
        ssize_t got = recv(fd, buffer, sizeof buffer < left ? sizeof buffer : left, 0);
        if (got <= 0) fail("recv");
        left -= got;
    }
    printf("seconds tcp %.6f\n", (now_ns() - start) / 1e9);
    return 0;
}

static int uffd;

static _Noreturn void *fill(void *argument) {
    static _Alignas(PAGE) char source[PAGE] = {1};
    (void)argument;
    for (;;) {
        struct uffd_msg message;
        if (read(uffd, &message, sizeof message) != sizeof message) continue;
        struct uffdio_copy copy = {
            .dst = message.arg.pagefault.address & ~(uint64_t)(PAGE - 1), .src = (uintptr_t)source, .len = PAGE};
        if (ioctl(uffd, UFFDIO_COPY, &copy) != 0) fail("UFFDIO_COPY");
    }
}

static int local_faults(uint64_t count) {
    uffd = syscall(SYS_userfaultfd, O_CLOEXEC);
    struct uffdio_api api = {.api = UFFD_API};
    if (uffd < 0 || ioctl(uffd, UFFDIO_API, &api) != 0) fail("userfaultfd");
    volatile char *block = mmap(NULL, count * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    struct uffdio_register registration = {
        .range = {.start = (uintptr_t)block, .len = count * PAGE}, .mode = UFFDIO_REGISTER_MODE_MISSING};
    if (ioctl(uffd, UFFDIO_REGISTER, &registration) != 0) fail("UFFDIO_REGISTER");
    pthread_t thread;
    pthread_create(&thread, NULL, fill, NULL);
    for (uint64_t i = 0; i < count; i++) {
        uint64_t start = now_ns();
        if (block[i * PAGE] != 1) return 1;
        printf("latency %llu\n", (unsigned long long)(now_ns() - start));
    }
    fflush(stdout);
    _exit(0);
}

int main(int argc, char **argv) {
    if (argc == 2 && strcmp(argv[1], "udp-server") == 0) udp_server();
    if (argc == 2 && strcmp(argv[1], "tcp-server") == 0) tcp_server();
    if (argc == 4 && strcmp(argv[1], "udp-client") == 0) return udp_client(argv[2], strtoull(argv[3], NULL, 10));
    if (argc == 4 && strcmp(argv[1], "tcp-client") == 0) return tcp_client(argv[2], strtoull(argv[3], NULL, 10));
    if (argc == 3 && strcmp(argv[1], "uffd") == 0) return local_faults(strtoull(argv[2], NULL, 10));
    fprintf(stderr, "usage: see the head of floors.c\n");
    return 2;
}
