/*
 * A cable of a given length: two TUN devices, each in its own network namespace, and a queue for each direction.
 *
 *   delaylink NETNS_A DEVICE_A NETNS_B DEVICE_B DELAY_US
 *
 * NETNS_... are paths such as /proc/PID/ns/net. What one device sends comes out of the other DELAY_US microseconds later, in
 * order and unchanged. It prints "ready" once both devices are there (addresses are for others to set), and runs until it is
 * killed or its parent ends; the devices go with it. No kernel module is needed, as netem would be.
 */
#include "common.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <unistd.h>

#define QUEUE_LEN 4096u   /* packets under way in one direction; further ones are dropped, as a router would */
#define PACKET_MAX 65536u /* the largest that a TUN device hands out */

struct packet {
    uint64_t due_ns;
    size_t len;
    uint8_t *bytes;
};

/* From one device to the other. */
struct way {
    int from, to;
    size_t first, count;
    struct packet packets[QUEUE_LEN];
};

static uint64_t delay_ns;

static int open_tun(const char *netns, const char *device)
{
    struct ifreq request = {.ifr_flags = IFF_TUN | IFF_NO_PI};
    int space = open(netns, O_RDONLY | O_CLOEXEC);
    if (space < 0 || setns(space, CLONE_NEWNET) < 0) {
        die(netns);
    }
    (void)close(space);
    int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
    (void)snprintf(request.ifr_name, sizeof request.ifr_name, "%s", device);
    if (fd < 0 || ioctl(fd, TUNSETIFF, &request) < 0) {
        die("/dev/net/tun");
    }
    return fd;
}

/* Takes what the device has sent. */
static void take(struct way *way)
{
    static uint8_t bytes[PACKET_MAX];

    for (;;) {
        ssize_t len = read(way->from, bytes, sizeof bytes);
        if (len <= 0) {
            return; /* EAGAIN; or the device is down for a moment */
        }
        if (way->count == QUEUE_LEN) {
            continue;
        }
        struct packet *packet = &way->packets[(way->first + way->count++) % QUEUE_LEN];
        packet->due_ns = clock_ns(CLOCK_MONOTONIC) + delay_ns;
        packet->len = (size_t)len;
        packet->bytes = need_memory(1, packet->len);
        memcpy(packet->bytes, bytes, packet->len);
    }
}

/* Hands over what has travelled long enough. How long the next one has to go, or UINT64_MAX. */
static uint64_t hand_over(struct way *way)
{
    while (way->count > 0) {
        struct packet *packet = &way->packets[way->first];
        uint64_t now_ns = clock_ns(CLOCK_MONOTONIC);
        if (packet->due_ns > now_ns) {
            return packet->due_ns - now_ns;
        }
        (void)!write(way->to, packet->bytes, packet->len); /* a device that is down loses it, as a cable would */
        free(packet->bytes);
        way->first = (way->first + 1) % QUEUE_LEN;
        way->count--;
    }
    return UINT64_MAX;
}

static void serve(struct way ways[2])
{
    struct pollfd fds[2] = {{.fd = ways[0].from, .events = POLLIN}, {.fd = ways[1].from, .events = POLLIN}};

    for (;;) {
        uint64_t first_ns = hand_over(&ways[0]);
        uint64_t second_ns = hand_over(&ways[1]);
        uint64_t wait_ns = first_ns < second_ns ? first_ns : second_ns;
        struct timespec wait = {.tv_sec = (time_t)(wait_ns / 1000000000u), .tv_nsec = (long)(wait_ns % 1000000000u)};
        if (ppoll(fds, 2, wait_ns == UINT64_MAX ? NULL : &wait, NULL) < 0 && errno != EINTR) {
            die("ppoll");
        }
        take(&ways[0]);
        take(&ways[1]);
    }
}

int main(int argc, char **argv)
{
    if (argc != 6) {
        fprintf(stderr, "usage: delaylink NETNS_A DEVICE_A NETNS_B DEVICE_B DELAY_US\n");
        return 2;
    }
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    (void)prctl(PR_SET_TIMERSLACK, 1000ul); /* the default of 50 us would add to each packet's time */
    delay_ns = strtoull(argv[5], NULL, 10) * 1000u;
    struct way *ways = need_memory(2, sizeof *ways);
    ways[0].from = ways[1].to = open_tun(argv[1], argv[2]);
    ways[0].to = ways[1].from = open_tun(argv[3], argv[4]);
    printf("ready\n");
    (void)fflush(stdout);
    serve(ways);
}
