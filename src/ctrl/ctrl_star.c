/* ctrl_star.c - one TCP connection between rank 0 and every other rank. */
#include "ctrl/ctrl_star.h"

#include "base/check.h"
#include "base/clock.h"
#include "ctrl/ctrl_ops.h"

#include <arpa/inet.h>
#include <errno.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

enum { MAX_ADDRESSES = 32, MAX_GUESTS = 64 };
#define ALL_S  5.0 /* for every rank to be connected */
#define EACH_S 1.0 /* for one address to answer */

typedef struct {
    int32_t family; /* AF_INET, AF_INET6 */
    int32_t loopback;
    uint8_t bytes[16];
} star_address;

/* Rank 0's to all: where to connect and what to say. */
typedef struct {
    uint64_t token;
    int32_t n_addresses; /* 0: rank 0 cannot listen */
    int32_t port;
    star_address addresses[MAX_ADDRESSES];
} star_invitation;

/* The first bytes of a connection; rank 0 answers with the token inverted. */
typedef struct {
    uint64_t token;
    int64_t rank;
} star_hello;

/* A connection that has not said who it is yet. */
typedef struct {
    int fd;
    size_t n_bytes;
    star_hello hello;
} star_guest;

static void close_fd(int *fd)
{
    if (*fd >= 0) {
        (void)close(*fd);
    }
    *fd = -1;
}

/* The end of a peer's machine or of the link is noticed in 4 s even when nothing says so. */
static void keep_alive(int fd)
{
    static const struct {
        int level, name, value;
    } options[] = {
        {SOL_SOCKET, SO_KEEPALIVE, 1},   {IPPROTO_TCP, TCP_KEEPIDLE, 1},
        {IPPROTO_TCP, TCP_KEEPINTVL, 1}, {IPPROTO_TCP, TCP_KEEPCNT, 3},
        {IPPROTO_TCP, TCP_NODELAY, 1},   {IPPROTO_TCP, TCP_USER_TIMEOUT, 4000},
    };

    for (size_t i = 0; i < sizeof(options) / sizeof(options[0]); i++) {
        (void)setsockopt(fd, options[i].level, options[i].name, &options[i].value, sizeof(int));
    }
}

static int ms_until(double deadline)
{
    const double left = deadline - rp_clock_now();

    return left > 0 ? (int)(left * 1e3) + 1 : 0;
}

/* ------------------------------------------------------------------ rank 0 */

static bool usable_address(const struct ifaddrs *it)
{
    if (it->ifa_addr == NULL || (it->ifa_flags & IFF_UP) == 0) {
        return false;
    }
    if (it->ifa_addr->sa_family == AF_INET6) {
        /* link-local ones mean nothing without the other side's interface number */
        return !IN6_IS_ADDR_LINKLOCAL(&((const struct sockaddr_in6 *)it->ifa_addr)->sin6_addr);
    }
    return it->ifa_addr->sa_family == AF_INET;
}

static int32_t list_addresses(star_address *addresses, bool ipv6)
{
    struct ifaddrs *all = NULL;
    int32_t n = 0;

    if (getifaddrs(&all) != 0) {
        return 0;
    }
    for (const struct ifaddrs *it = all; it != NULL && n < MAX_ADDRESSES; it = it->ifa_next) {
        if (!usable_address(it) || (it->ifa_addr->sa_family == AF_INET6 && !ipv6)) {
            continue;
        }
        star_address *to = &addresses[n++];
        to->family = it->ifa_addr->sa_family;
        to->loopback = (it->ifa_flags & IFF_LOOPBACK) != 0;
        if (to->family == AF_INET) {
            memcpy(to->bytes, &((const struct sockaddr_in *)it->ifa_addr)->sin_addr, 4);
        } else {
            memcpy(to->bytes, &((const struct sockaddr_in6 *)it->ifa_addr)->sin6_addr, 16);
        }
    }
    freeifaddrs(all);
    return n;
}

/* A socket on all interfaces, IPv4 and IPv6 if the machine has it; -1 if there is none to be had.
 */
static int listen_any(int family, int backlog, int32_t *port_out)
{
    const int off = 0;
    struct sockaddr_storage name = {.ss_family =
                                        (sa_family_t)family}; /* zeros: any address, any port */
    socklen_t n_bytes =
        family == AF_INET6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in);
    int fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    if (fd < 0) {
        return -1;
    }
    if (family == AF_INET6) {
        (void)setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off));
    }
    if (bind(fd, (const struct sockaddr *)&name, n_bytes) != 0 || listen(fd, backlog) != 0 ||
        getsockname(fd, (struct sockaddr *)&name, &n_bytes) != 0) {
        close_fd(&fd);
        return -1;
    }
    *port_out = ntohs(family == AF_INET6 ? ((const struct sockaddr_in6 *)&name)->sin6_port
                                         : ((const struct sockaddr_in *)&name)->sin_port);
    return fd;
}

static int invite(int n_ranks, star_invitation *invitation)
{
    const int backlog = n_ranks + MAX_GUESTS;
    bool ipv6 = true;
    int fd = listen_any(AF_INET6, backlog, &invitation->port);

    if (fd < 0) {
        ipv6 = false;
        fd = listen_any(AF_INET, backlog, &invitation->port);
    }
    if (fd < 0 || getrandom(&invitation->token, sizeof(invitation->token), 0) !=
                      (ssize_t)sizeof(invitation->token)) {
        close_fd(&fd);
        return -1;
    }
    invitation->n_addresses = list_addresses(invitation->addresses, ipv6);
    return fd;
}

/* Takes in what a guest says: true when it is done with, as a rank or as a stranger. */
static bool hear(star_guest *guest, uint64_t token, int n_ranks, int *fds, int *n_missing)
{
    const uint64_t answer = ~token;
    const ssize_t n = recv(guest->fd, (char *)&guest->hello + guest->n_bytes,
                           sizeof(guest->hello) - guest->n_bytes, 0);

    if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
        return false;
    }
    guest->n_bytes += n > 0 ? (size_t)n : 0;
    if (n > 0 && guest->n_bytes < sizeof(guest->hello)) {
        return false;
    }
    const int64_t rank = guest->hello.rank;
    if (n <= 0 || guest->hello.token != token || rank < 1 || rank >= n_ranks ||
        send(guest->fd, &answer, sizeof(answer), MSG_NOSIGNAL) != (ssize_t)sizeof(answer)) {
        close_fd(&guest->fd);
        return true;
    }
    *n_missing -= fds[rank] < 0;
    close_fd(&fds[rank]); /* a rank that tries a second address gave up the first */
    fds[rank] = guest->fd;
    guest->fd = -1;
    return true;
}

/* Who comes in when the room is full takes the place of the one who has been silent longest. */
static void let_in(int listener, star_guest *guests, int *n_guests)
{
    const int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

    if (fd < 0) {
        return;
    }
    if (*n_guests == MAX_GUESTS) {
        close_fd(&guests[0].fd);
        memmove(&guests[0], &guests[1], (MAX_GUESTS - 1) * sizeof(guests[0]));
        *n_guests -= 1;
    }
    guests[(*n_guests)++] = (star_guest){.fd = fd};
}

static void receive_all(int listener, uint64_t token, int n_ranks, int *fds)
{
    const double deadline = rp_clock_now() + ALL_S;
    star_guest guests[MAX_GUESTS];
    struct pollfd polls[MAX_GUESTS + 1];
    int n_guests = 0, n_missing = n_ranks - 1;

    while (n_missing > 0 && ms_until(deadline) > 0) {
        int n_left = 0;
        polls[0] = (struct pollfd){.fd = listener, .events = POLLIN};
        for (int i = 0; i < n_guests; i++) {
            polls[i + 1] = (struct pollfd){.fd = guests[i].fd, .events = POLLIN};
        }
        if (poll(polls, (nfds_t)n_guests + 1, ms_until(deadline)) <= 0) {
            continue;
        }
        for (int i = 0; i < n_guests; i++) {
            const bool done =
                polls[i + 1].revents != 0 && hear(&guests[i], token, n_ranks, fds, &n_missing);
            if (!done) {
                guests[n_left++] = guests[i];
            }
        }
        n_guests = n_left;
        if (polls[0].revents != 0) {
            let_in(listener, guests, &n_guests);
        }
    }
    for (int i = 0; i < n_guests; i++) {
        close_fd(&guests[i].fd);
    }
}

/* ------------------------------------------------------------ other ranks */

static bool ready(int fd, short event, double deadline)
{
    struct pollfd p = {.fd = fd, .events = event};

    for (;;) {
        const int n = poll(&p, 1, ms_until(deadline));
        if (n >= 0 || errno != EINTR) {
            return n > 0;
        }
    }
}

static bool connected(int fd, double deadline)
{
    int error = 0;
    socklen_t n_bytes = sizeof(error);

    return ready(fd, POLLOUT, deadline) &&
           getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &n_bytes) == 0 && error == 0;
}

static bool greet(int fd, uint64_t token, int rank, double deadline)
{
    const star_hello hello = {.token = token, .rank = rank};
    uint64_t answer = 0;
    size_t got = 0;

    if (send(fd, &hello, sizeof(hello), MSG_NOSIGNAL) != (ssize_t)sizeof(hello)) {
        return false;
    }
    while (got < sizeof(answer)) {
        if (!ready(fd, POLLIN, deadline)) {
            return false;
        }
        const ssize_t n = recv(fd, (char *)&answer + got, sizeof(answer) - got, 0);
        if (n <= 0) {
            return false;
        }
        got += (size_t)n;
    }
    return answer == ~token;
}

static socklen_t socket_name(const star_address *address, int32_t port,
                             struct sockaddr_storage *name)
{
    struct sockaddr_in6 a6 = {.sin6_family = AF_INET6, .sin6_port = htons((uint16_t)port)};
    struct sockaddr_in a4 = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};

    if (address->family == AF_INET6) {
        memcpy(&a6.sin6_addr, address->bytes, sizeof(a6.sin6_addr));
        memcpy(name, &a6, sizeof(a6));
        return sizeof(a6);
    }
    memcpy(&a4.sin_addr, address->bytes, sizeof(a4.sin_addr));
    memcpy(name, &a4, sizeof(a4));
    return sizeof(a4);
}

static int dial(const star_address *address, const star_invitation *invitation, int rank)
{
    const double deadline = rp_clock_now() + EACH_S;
    struct sockaddr_storage name;
    const socklen_t n_bytes = socket_name(address, invitation->port, &name);
    int fd = socket(address->family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    if (fd < 0) {
        return -1;
    }
    if ((connect(fd, (const struct sockaddr *)&name, n_bytes) != 0 && errno != EINPROGRESS) ||
        !connected(fd, deadline) || !greet(fd, invitation->token, rank, deadline)) {
        close_fd(&fd);
    }
    return fd;
}

/* The likelier kind of address first: loopback on rank 0's node, a real one elsewhere. */
static int dial_all(const star_invitation *invitation, int rank, bool same_node)
{
    const double deadline = rp_clock_now() + ALL_S;
    int fd = -1;

    for (int round = 0; round < 2; round++) {
        for (int i = 0; fd < 0 && i < invitation->n_addresses && ms_until(deadline) > 0; i++) {
            const bool first = (invitation->addresses[i].loopback != 0) == same_node;
            if (first == (round == 0)) {
                fd = dial(&invitation->addresses[i], invitation, rank);
            }
        }
    }
    return fd;
}

rp_status rp_ctrl_star_open(rp_ctrl *ctrl, int *fds)
{
    const rp_ctrl_place *place = &ctrl->place;
    star_invitation invitation = {0};
    int listener = -1;
    rp_status st = RP_OK;

    if (place->rank == 0) {
        listener = invite(place->n_ranks, &invitation);
    }
    RP_TRY_OUT(rp_ctrl_bcast(ctrl, &invitation, sizeof(invitation)));
    if (place->rank != 0) {
        fds[0] = dial_all(&invitation, place->rank, place->node == ctrl->peers[0].node);
    } else if (invitation.n_addresses > 0) {
        receive_all(listener, invitation.token, place->n_ranks, fds);
    }
    for (int i = 0; i < place->n_ranks; i++) {
        if (fds[i] >= 0) {
            keep_alive(fds[i]);
        }
    }

out:
    close_fd(&listener);
    return st;
}

rp_status rp_ctrl_star_missing(rp_ctrl *ctrl, const int *fds, int *rank_out)
{
    const rp_ctrl_vote mine = {.status = fds[0] >= 0 ? RP_OK : RP_E_IO};
    int32_t missing = -1;

    RP_TRY(rp_ctrl_gather(ctrl, &mine, sizeof(mine), ctrl->votes));
    if (ctrl->place.rank == 0) {
        for (int r = ctrl->place.n_ranks - 1; r > 0; r--) {
            missing = fds[r] < 0 || ctrl->votes[r].status != RP_OK ? r : missing;
        }
    }
    RP_TRY(rp_ctrl_bcast(ctrl, &missing, sizeof(missing)));
    *rank_out = missing;
    return RP_OK;
}
