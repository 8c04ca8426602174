/* The floors: what the same work costs without us.
 *
 * Owns blocking sockets and one userfaultfd. Must not know anything of dvm.
 *
 * usage: floors udp-server
 *        floors udp-client ADDRESS COUNT            64 bytes there, 4,096 back: one `latency` each
 *        floors uffd COUNT                          a missing page filled by another thread: one `latency` each
 *        floors uffd-serial ADDRESS COUNT THREADS   THREADS threads touch COUNT missing pages each at once; one thread takes a
 *                                                   fault, fetches its page from the UDP server, blocking, fills it, and only
 *                                                   then takes the next: `all`, from the first start to the last end
 *        floors compute NANOSECONDS COUNT           a computation that takes as long undisturbed: one `latency` each
 *        floors tcp-server
 *        floors tcp-client ADDRESS MEBIBYTES        one connection, the client receives: `tcp`
 *        floors echo-server
 *        floors echo-client ADDRESS COUNT           64 bytes there and back over one TCP connection, both ends asleep meanwhile:
 *                                                   one `latency` each
 *        floors caught COUNT                        a call that Syscall User Dispatch gives to a handler of nothing: one
 *                                                   `latency` each
 * prints lines `NAME NANOSECONDS`
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#define PAGE 4096
#define PORT 7799
#define THREADS_MAX 64
#define CALL_BYTES 64

static uint64_t now_ns(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000000ull + time.tv_nsec;
}

static void print(const char *name, uint64_t nanoseconds) { printf("%s %llu\n", name, (unsigned long long)nanoseconds); }

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

static int connected(int kind, const char *server) {
    struct sockaddr_in address = address_of(server);
    int fd = socket(AF_INET, kind, 0);
    if (connect(fd, (void *)&address, sizeof address) != 0) fail("connect");
    return fd;
}

static void fetch(int fd, char *page) {
    if (send(fd, page, 64, 0) != 64) fail("send");
    if (recv(fd, page, PAGE, 0) != PAGE) fail("recv");
}

static int udp_client(const char *server, uint64_t count) {
    int fd = connected(SOCK_DGRAM, server);
    static char page[PAGE];
    for (uint64_t i = 0; i < count; i++) {
        uint64_t start = now_ns();
        fetch(fd, page);
        print("latency", now_ns() - start);
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
    int fd = connected(SOCK_STREAM, server);
    static char buffer[1 << 18];
    uint64_t start = now_ns(), left = mebibytes << 20;
    while (left > 0) {
        ssize_t got = recv(fd, buffer, sizeof buffer < left ? sizeof buffer : left, 0);
        if (got <= 0) fail("recv");
        left -= got;
    }
    print("tcp", now_ns() - start);
    return 0;
}

static void at_once(int fd) {
    int one = 1;
    if (setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one) != 0) fail("TCP_NODELAY");
}

static _Noreturn void echo_server(void) {
    int listener = bound(SOCK_STREAM);
    static char buffer[CALL_BYTES];
    if (listen(listener, 1) != 0) fail("listen");
    puts("ready");
    fflush(stdout);
    for (;;) {
        int fd = accept(listener, NULL, NULL);
        at_once(fd);
        while (recv(fd, buffer, CALL_BYTES, MSG_WAITALL) == CALL_BYTES && send(fd, buffer, CALL_BYTES, MSG_NOSIGNAL) == CALL_BYTES) {}
        close(fd);
    }
}

static int echo_client(const char *server, uint64_t count) {
    int fd = connected(SOCK_STREAM, server);
    static char buffer[CALL_BYTES];
    at_once(fd);
    for (uint64_t i = 0; i < count; i++) {
        uint64_t start = now_ns();
        if (send(fd, buffer, CALL_BYTES, 0) != CALL_BYTES) fail("send");
        if (recv(fd, buffer, CALL_BYTES, MSG_WAITALL) != CALL_BYTES) fail("recv");
        print("latency", now_ns() - start);
    }
    return 0;
}

static volatile char selector = SYSCALL_DISPATCH_FILTER_ALLOW;

static void answer_call(int number, siginfo_t *info, void *context) {
    (void)number, (void)info;
    ((ucontext_t *)context)->uc_mcontext.gregs[REG_RAX] = 1;
    selector = SYSCALL_DISPATCH_FILTER_ALLOW;
}

static int caught_calls(uint64_t count) {
    struct sigaction action = {.sa_sigaction = answer_call, .sa_flags = SA_SIGINFO};
    if (sigaction(SIGSYS, &action, NULL) != 0) fail("sigaction");
    if (prctl(PR_SET_SYSCALL_USER_DISPATCH, PR_SYS_DISPATCH_ON, 0, 0, &selector) != 0) fail("Syscall User Dispatch");
    for (uint64_t i = 0; i < count; i++) {
        uint64_t start = now_ns();
        selector = SYSCALL_DISPATCH_FILTER_BLOCK;
        if (syscall(SYS_gettid) != 1) fail("a call was not caught");
        print("latency", now_ns() - start);
    }
    return 0;
}

static int uffd, home = -1;
static volatile char *block;

/* The agent: without a home every page is the same. */
static _Noreturn void *answer(void *argument) {
    static _Alignas(PAGE) char source[PAGE] = {1};
    (void)argument;
    for (;;) {
        struct uffd_msg message;
        if (read(uffd, &message, sizeof message) != sizeof message) continue;
        if (home >= 0) fetch(home, source);
        struct uffdio_copy copy = {
            .dst = message.arg.pagefault.address & ~(uint64_t)(PAGE - 1), .src = (uintptr_t)source, .len = PAGE};
        if (ioctl(uffd, UFFDIO_COPY, &copy) != 0) fail("UFFDIO_COPY");
    }
}

/* Makes the block of missing pages and its agent. */
static void watch(uint64_t pages) {
    uffd = syscall(SYS_userfaultfd, O_CLOEXEC);
    struct uffdio_api api = {.api = UFFD_API};
    if (uffd < 0 || ioctl(uffd, UFFDIO_API, &api) != 0) fail("userfaultfd");
    block = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    struct uffdio_register registration = {
        .range = {.start = (uintptr_t)block, .len = pages * PAGE}, .mode = UFFDIO_REGISTER_MODE_MISSING};
    if (ioctl(uffd, UFFDIO_REGISTER, &registration) != 0) fail("UFFDIO_REGISTER");
    pthread_t thread;
    if (pthread_create(&thread, NULL, answer, NULL) != 0) fail("pthread_create");
}

static _Noreturn void local_faults(uint64_t count) {
    watch(count);
    for (uint64_t i = 0; i < count; i++) {
        uint64_t start = now_ns();
        (void)block[i * PAGE];
        print("latency", now_ns() - start);
    }
    fflush(stdout);
    _exit(0);
}

static uint64_t timed_computation(uint64_t steps) {
    uint64_t start = now_ns();
    for (volatile uint64_t i = 0; i < steps; i++) continue;
    return now_ns() - start;
}

/* What the machine itself (ticks, its own host) adds to any work of this length. */
static void compute(uint64_t nanoseconds, uint64_t count) {
    uint64_t probe = 10000, fastest = UINT64_MAX;
    for (int i = 0; i < 1000; i++) {
        uint64_t time = timed_computation(probe);
        if (time < fastest) fastest = time;
    }
    for (uint64_t i = 0; i < count; i++) print("latency", timed_computation(probe * nanoseconds / fastest));
}

static uint64_t share;
static pthread_barrier_t barrier;
static struct { uint64_t start, end; } spans[THREADS_MAX];

static void *touch(void *argument) {
    uint64_t me = (uintptr_t)argument;
    pthread_barrier_wait(&barrier);
    spans[me].start = now_ns();
    for (uint64_t i = 0; i < share; i++) (void)block[(me * share + i) * PAGE];
    spans[me].end = now_ns();
    return NULL;
}

static _Noreturn void serial_faults(const char *server, uint64_t count, uint64_t threads) {
    pthread_t thread[THREADS_MAX];
    uint64_t start = UINT64_MAX, end = 0;
    if (threads == 0 || threads > THREADS_MAX) exit(2);
    home = connected(SOCK_DGRAM, server);
    share = count;
    watch(count * threads);
    pthread_barrier_init(&barrier, NULL, threads);
    for (uint64_t i = 0; i < threads; i++)
        if (pthread_create(&thread[i], NULL, touch, (void *)(uintptr_t)i) != 0) fail("pthread_create");
    for (uint64_t i = 0; i < threads; i++) {
        pthread_join(thread[i], NULL);
        if (spans[i].start < start) start = spans[i].start;
        if (spans[i].end > end) end = spans[i].end;
    }
    print("all", end - start);
    fflush(stdout);
    _exit(0);
}

int main(int argc, char **argv) {
    if (argc == 2 && strcmp(argv[1], "udp-server") == 0) udp_server();
    if (argc == 2 && strcmp(argv[1], "tcp-server") == 0) tcp_server();
    if (argc == 2 && strcmp(argv[1], "echo-server") == 0) echo_server();
    if (argc == 4 && strcmp(argv[1], "echo-client") == 0) return echo_client(argv[2], strtoull(argv[3], NULL, 10));
    if (argc == 3 && strcmp(argv[1], "caught") == 0) return caught_calls(strtoull(argv[2], NULL, 10));
    if (argc == 4 && strcmp(argv[1], "udp-client") == 0) return udp_client(argv[2], strtoull(argv[3], NULL, 10));
    if (argc == 4 && strcmp(argv[1], "tcp-client") == 0) return tcp_client(argv[2], strtoull(argv[3], NULL, 10));
    if (argc == 3 && strcmp(argv[1], "uffd") == 0) local_faults(strtoull(argv[2], NULL, 10));
    if (argc == 4 && strcmp(argv[1], "compute") == 0) {
        compute(strtoull(argv[2], NULL, 10), strtoull(argv[3], NULL, 10));
        return 0;
    }
    if (argc == 5 && strcmp(argv[1], "uffd-serial") == 0)
        serial_faults(argv[2], strtoull(argv[3], NULL, 10), strtoull(argv[4], NULL, 10));
    fprintf(stderr, "usage: see the head of floors.c\n");
    return 2;
}
