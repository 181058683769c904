/* A statically linked program, into which nothing can be preloaded: run-calls-static HOST PORT. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

int main(int argc, char **argv)
{
    struct sockaddr_in addr;
    memset(&addr, 0, sizeof addr);
    addr.sin_family = AF_INET;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (argc != 3 || inet_pton(AF_INET, argv[1], &addr.sin_addr) != 1) {
        return 2;
    }
    addr.sin_port = htons((uint16_t)atoi(argv[2]));
    if (connect(fd, (const struct sockaddr *)&addr, sizeof addr) != 0) {
        perror("connect");
        return 1;
    }
    (void)puts("connected");
    return 0;
}
