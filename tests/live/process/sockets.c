// Sockets: local and internet ones between threads of several hosts (all at the root, as descriptors are).
#include "check.h"
#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <ifaddrs.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>

static int ends[2];
static int server;
static char bytes[1 << 16];
static struct sockaddr_in name;

static int listening(void)
{
    int made = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    name = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof name;
    if (bind(made, (struct sockaddr *)&name, length) != 0 || listen(made, 16) != 0 || getsockname(made, (struct sockaddr *)&name, &length) != 0)
        say("no listener: %s\n", strerrorname_np(errno));
    return made;
}

static int connected(void)
{
    int made = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(made, (struct sockaddr *)&name, sizeof name) != 0)
        say("no connection: %s\n", strerrorname_np(errno));
    return made;
}

BEHAVIOUR(pair_between_hosts)
{
    TRY(socketpair(AF_UNIX, SOCK_STREAM, 0, ends));
    pthread_t echo = START(1, { long count; while ((count = read(ends[0], bytes, 100)) > 0) write(ends[0], bytes, count); });
    ON(2, { char answer[10]; for (int at = 0; at < 20; at++) { write(ends[1], "hello", 5); if (read(ends[1], answer, 10) != 5) say("short\n"); } say("%.5s\n", answer); shutdown(ends[1], SHUT_WR); });
    join(echo);
}

BEHAVIOUR(tcp_between_hosts)
{
    server = listening();
    pthread_t acceptor = START(1, { int peer = accept4(server, NULL, NULL, SOCK_CLOEXEC); long total = 0; long count; while ((count = recv(peer, bytes, sizeof bytes, 0)) > 0) total += count; SHOW(total); send(peer, "bye", 3, 0); close(peer); });
    ON(2, { static char block[100000]; char answer[8]; int client = connected(); long sent = 0; while (sent < 1000000) sent += send(client, block, sizeof block, 0); shutdown(client, SHUT_WR); SHOW(recv(client, answer, 8, 0)); SHOW(recv(client, answer, 8, 0)); });
    join(acceptor);
}

BEHAVIOUR(many_connections)
{
    static _Atomic int served;
    server = listening();
    void *serve(void *argument)
    {
        for (int at = 0; at < 10; at++) {
            int peer = accept(server, NULL, NULL);
            char byte;
            if (read(peer, &byte, 1) == 1 && write(peer, &byte, 1) == 1)
                served++;
            close(peer);
        }
        return argument;
    }
    pthread_t first = start_on(1, serve, NULL);
    pthread_t other = start_on(2, serve, NULL);
    for (int at = 0; at < 20; at++) {
        char byte = at;
        int client = connected();
        write(client, &byte, 1);
        if (read(client, &byte, 1) != 1 || byte != at)
            say("wrong answer\n");
        close(client);
    }
    join(first);
    join(other);
    SHOW(served);
}

BEHAVIOUR(datagrams)
{
    ends[0] = socket(AF_INET, SOCK_DGRAM, 0);
    name = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof name;
    TRY(bind(ends[0], (struct sockaddr *)&name, length));
    getsockname(ends[0], (struct sockaddr *)&name, &length);
    ON(1, { ends[1] = socket(AF_INET, SOCK_DGRAM, 0); SHOW(sendto(ends[1], "datagram", 8, 0, (struct sockaddr *)&name, sizeof name)); SHOW(sendto(ends[1], "", 0, 0, (struct sockaddr *)&name, sizeof name)); });
    ON(2, { struct sockaddr_in from; socklen_t size = sizeof from; SHOW(recvfrom(ends[0], bytes, 4, MSG_TRUNC, (struct sockaddr *)&from, &size)); YES(from.sin_addr.s_addr == htonl(INADDR_LOOPBACK)); SHOW(size); SHOW(recvfrom(ends[0], bytes, 4, 0, NULL, NULL)); TRY(recv(ends[0], bytes, 4, MSG_DONTWAIT)); });
}

BEHAVIOUR(internet_six)
{
    ON(1, { int made = socket(AF_INET6, SOCK_STREAM, 0); struct sockaddr_in6 six = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT}; TRY(bind(made, (struct sockaddr *)&six, sizeof six)); TRY(listen(made, 1)); });
}

BEHAVIOUR(local_names)
{
    ON(1, {
        struct sockaddr_un local = {.sun_family = AF_UNIX, .sun_path = "socket"};
        server = socket(AF_UNIX, SOCK_SEQPACKET, 0);
        TRY(bind(server, (struct sockaddr *)&local, sizeof local));
        TRY(bind(server, (struct sockaddr *)&local, sizeof local));
        TRY(listen(server, 1));
    });
    ON(2, {
        struct sockaddr_un local = {.sun_family = AF_UNIX, .sun_path = "socket"};
        struct sockaddr_un found;
        socklen_t length = sizeof found;
        ends[1] = socket(AF_UNIX, SOCK_SEQPACKET, 0);
        TRY(connect(ends[1], (struct sockaddr *)&local, sizeof local));
        TRY(getpeername(ends[1], (struct sockaddr *)&found, &length));
        say("%s\n", found.sun_path);
    });
    int peer = accept(server, NULL, NULL);
    ON(1, { write(ends[1], "one", 3); write(ends[1], "two!", 4); });
    SHOW(read(peer, bytes, 100));
    SHOW(read(peer, bytes, 100));
}

BEHAVIOUR(abstract_names)
{
    ON(1, { struct sockaddr_un local = {.sun_family = AF_UNIX, .sun_path = "\0dvm-conformance"}; server = socket(AF_UNIX, SOCK_STREAM, 0); TRY(bind(server, (struct sockaddr *)&local, 2 + 16)); TRY(listen(server, 1)); });
    ON(2, { struct sockaddr_un local = {.sun_family = AF_UNIX, .sun_path = "\0dvm-conformance"}; int client = socket(AF_UNIX, SOCK_STREAM, 0); TRY(connect(client, (struct sockaddr *)&local, 2 + 16)); TRY(connect(client, (struct sockaddr *)&local, 2 + 5)); });
}

BEHAVIOUR(descriptors_travel)
{
    socketpair(AF_UNIX, SOCK_STREAM, 0, ends);
    ON(1, {
        int file = file_with("f", "through", 7);
        char control[CMSG_SPACE(sizeof(int))];
        struct iovec part = {"x", 1};
        struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
        struct cmsghdr *header = CMSG_FIRSTHDR(&message);
        *header = (struct cmsghdr){CMSG_LEN(sizeof(int)), SOL_SOCKET, SCM_RIGHTS};
        memcpy(CMSG_DATA(header), &file, sizeof file);
        SHOW(sendmsg(ends[0], &message, 0));
        close(file);
    });
    ON(2, {
        char byte;
        char control[CMSG_SPACE(sizeof(int))];
        struct iovec part = {&byte, 1};
        struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
        SHOW(recvmsg(ends[1], &message, MSG_CMSG_CLOEXEC));
        int file;
        memcpy(&file, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof file);
        SHOW(pread(file, bytes, 7, 0));
        say("%.7s\n", bytes);
        SHOW(fcntl(file, F_GETFD));
    });
}

BEHAVIOUR(credentials_travel)
{
    socketpair(AF_UNIX, SOCK_DGRAM, 0, ends);
    int on = 1;
    setsockopt(ends[1], SOL_SOCKET, SO_PASSCRED, &on, sizeof on);
    ON(1, { send(ends[0], "x", 1, 0); });
    ON(2, {
        char byte;
        char control[CMSG_SPACE(sizeof(struct ucred))];
        struct iovec part = {&byte, 1};
        struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
        SHOW(recvmsg(ends[1], &message, 0));
        struct ucred who;
        memcpy(&who, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof who);
        YES(who.pid == getpid());
        YES(who.uid == getuid());
        socklen_t length = sizeof who;
        TRY(getsockopt(ends[0], SOL_SOCKET, SO_PEERCRED, &who, &length));
        YES(who.pid == getpid());
    });
}

BEHAVIOUR(messages_of_parts)
{
    socketpair(AF_UNIX, SOCK_DGRAM, 0, ends);
    ON(1, {
        struct iovec parts[3] = {{"ab", 2}, {"cde", 3}, {"f", 1}};
        struct msghdr message = {.msg_iov = parts, .msg_iovlen = 3};
        SHOW(sendmsg(ends[0], &message, 0));
        SHOW(sendmsg(ends[0], &message, 0));
    });
    ON(2, {
        char first[4];
        char rest[10];
        struct iovec parts[2] = {{first, 4}, {rest, 10}};
        struct msghdr message = {.msg_iov = parts, .msg_iovlen = 2};
        SHOW(recvmsg(ends[1], &message, MSG_PEEK));
        SHOW(recvmsg(ends[1], &message, 0));
        say("%.4s|%.2s\n", first, rest);
        parts[1].iov_len = 0;
        SHOW(recvmsg(ends[1], &message, 0));
        SHOW((message.msg_flags & MSG_TRUNC) != 0);
    });
}

BEHAVIOUR(several_messages_at_once)
{
    socketpair(AF_UNIX, SOCK_DGRAM, 0, ends);
    ON(1, { struct iovec parts[2] = {{"a", 1}, {"bc", 2}}; struct mmsghdr messages[2] = {{.msg_hdr = {.msg_iov = &parts[0], .msg_iovlen = 1}}, {.msg_hdr = {.msg_iov = &parts[1], .msg_iovlen = 1}}}; SHOW(sendmmsg(ends[0], messages, 2, 0)); });
    ON(2, { static char buffers[2][8]; struct iovec parts[2] = {{buffers[0], 8}, {buffers[1], 8}}; struct mmsghdr messages[2] = {{.msg_hdr = {.msg_iov = &parts[0], .msg_iovlen = 1}}, {.msg_hdr = {.msg_iov = &parts[1], .msg_iovlen = 1}}}; SHOW(recvmmsg(ends[1], messages, 2, 0, NULL)); SHOW(messages[1].msg_len); });
}

BEHAVIOUR(options)
{
    ON(1, {
        server = socket(AF_INET, SOCK_STREAM, 0);
        int value = 1;
        socklen_t length = sizeof value;
        TRY(setsockopt(server, SOL_SOCKET, SO_REUSEADDR, &value, length));
        value = 0;
        TRY(getsockopt(server, SOL_SOCKET, SO_REUSEADDR, &value, &length));
        SHOW(value);
        TRY(getsockopt(server, SOL_SOCKET, SO_TYPE, &value, &length));
        YES(value == SOCK_STREAM);
        value = 1;
        TRY(setsockopt(server, IPPROTO_TCP, TCP_NODELAY, &value, length));
        struct linger linger = {1, 2};
        TRY(setsockopt(server, SOL_SOCKET, SO_LINGER, &linger, sizeof linger));
        length = sizeof linger;
        TRY(getsockopt(server, SOL_SOCKET, SO_LINGER, &linger, &length));
        SHOW(linger.l_linger);
        TRY(getsockopt(server, SOL_SOCKET, SO_ERROR, &value, &(socklen_t){4}));
        SHOW(value);
        TRY(setsockopt(server, SOL_SOCKET, 9999, &value, 4));
        TRY(setsockopt(1, SOL_SOCKET, SO_REUSEADDR, &value, 4));
    });
}

BEHAVIOUR(receive_timeout)
{
    socketpair(AF_UNIX, SOCK_STREAM, 0, ends);
    ON(1, { struct timeval limit = {0, 30000}; TRY(setsockopt(ends[0], SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit)); long begin = now_ms(); TRY(recv(ends[0], bytes, 1, 0)); YES(now_ms() - begin >= 29); });
}

BEHAVIOUR(connection_refused_and_in_progress)
{
    close(listening());
    ON(1, { int client = socket(AF_INET, SOCK_STREAM, 0); TRY(connect(client, (struct sockaddr *)&name, sizeof name)); client = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0); server = listening(); long result = connect(client, (struct sockaddr *)&name, sizeof name); YES(result == 0 || errno == EINPROGRESS); struct pollfd wait = {client, POLLOUT, 0}; SHOW(poll(&wait, 1, 3000)); });
}

BEHAVIOUR(nonblocking_accept)
{
    server = listening();
    fcntl(server, F_SETFL, O_NONBLOCK);
    ON(1, { TRY(accept(server, NULL, NULL)); });
}

BEHAVIOUR(peer_gone)
{
    socketpair(AF_UNIX, SOCK_STREAM, 0, ends);
    close(ends[1]);
    ON(1, { SHOW(recv(ends[0], bytes, 1, 0)); TRY(send(ends[0], "x", 1, MSG_NOSIGNAL)); });
}

BEHAVIOUR(shutdown_wakes_reader)
{
    socketpair(AF_UNIX, SOCK_STREAM, 0, ends);
    pthread_t reader = START(1, { SHOW(recv(ends[0], bytes, 1, 0)); });
    ms(30);
    ON(2, { shutdown(ends[0], SHUT_RDWR); });
    join(reader);
}

BEHAVIOUR(names_of_services_and_hosts)
{
    ON(1, { struct addrinfo hints = {.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV, .ai_socktype = SOCK_STREAM}; struct addrinfo *found; SHOW(getaddrinfo("127.0.0.1", "80", &hints, &found)); SHOW(found->ai_addrlen); SHOW(getaddrinfo("localhost", NULL, NULL, &found)); });
}

BEHAVIOUR(interfaces_are_the_roots)
{
    static int of_main;
    static int of_member;
    struct ifaddrs *all;
    TRY(getifaddrs(&all));
    for (; all != NULL; all = all->ifa_next)
        of_main++;
    ON(1, { struct ifaddrs *seen; getifaddrs(&seen); for (; seen != NULL; seen = seen->ifa_next) of_member++; });
    YES(of_main == of_member && of_main > 0);
}

BEHAVIOUR(bad_sockets)
{
    ON(1, { TRY(socket(999, SOCK_STREAM, 0)); TRY(socket(AF_INET, 999, 0)); TRY(listen(1, 1)); TRY(accept(77, NULL, NULL)); server = socket(AF_INET, SOCK_STREAM, 0); TRY(accept(server, NULL, NULL)); TRY(getpeername(server, (struct sockaddr *)&name, &(socklen_t){16})); TRY(send(server, "x", 1, MSG_NOSIGNAL)); TRY(bind(server, (struct sockaddr *)&name, 1)); });
}

BEHAVIOUR(zero_copy_send)
{
    socketpair(AF_UNIX, SOCK_STREAM, 0, ends);
    server = listening();
    ON(1, { int client = connected(); int on = 1; YES(setsockopt(client, SOL_SOCKET, SO_ZEROCOPY, &on, sizeof on) <= 0); SHOW(send(client, bytes, 1000, MSG_ZEROCOPY)); });
}
