// Connects to an abstract UNIX socket, and prints `theirs 0` or the name of the error. With `own` it listens first.
#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

int main(int argc, char **argv) {
    if (argc != 3) return 2;
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    size_t length = strlen(argv[1]);
    memcpy(address.sun_path + 1, argv[1], length);
    socklen_t size = offsetof(struct sockaddr_un, sun_path) + 1 + length;
    if (strcmp(argv[2], "own") == 0) {
        int listener = socket(AF_UNIX, SOCK_STREAM, 0);
        if (bind(listener, (struct sockaddr *)&address, size) != 0 || listen(listener, 1) != 0) return 3;
    }
    int client = socket(AF_UNIX, SOCK_STREAM, 0);
    int result = connect(client, (struct sockaddr *)&address, size) == 0 ? 0 : errno;
    printf("%s %s\n", argv[2], result == 0 ? "0" : result == EPERM ? "EPERM" : strerror(result));
    return 0;
}
