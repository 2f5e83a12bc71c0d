/*
 * The least that one core must do: one send() to each subscriber, from one epoll loop.
 *
 * Listens on a free port of 127.0.0.1 and says which.
 * GET subscribes; the body of a POST, as one event, goes to all subscribers.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#define MAX_SUBSCRIBERS 1000000
#define MAX_BODY (1 << 20)

static int subscribers[MAX_SUBSCRIBERS], subscriber_count, epoll_fd;
static char request[MAX_BODY + 4096], event[MAX_BODY + 256];
static unsigned long sequence;

static void watch(int fd) {
  struct epoll_event interest = {.events = EPOLLIN, .data.fd = fd};
  epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &interest);
}

static void answer(int fd, const char *text) {
  if (send(fd, text, strlen(text), MSG_NOSIGNAL) < 0) perror("send");
}

static void forget(int fd) {
  for (int i = 0; i < subscriber_count; i++)
    if (subscribers[i] == fd) {
      subscribers[i] = subscribers[--subscriber_count];
      break;
    }
  close(fd);
}

/* The whole request; the publisher waits for its answer before it sends the next one. */
static size_t receive(int fd) {
  size_t length = 0;
  for (;;) {
    ssize_t got = recv(fd, request + length, sizeof request - 1 - length, length ? 0 : MSG_DONTWAIT);
    if (got <= 0) return 0;
    length += (size_t)got;
    request[length] = 0;
    char *end = strstr(request, "\r\n\r\n"), *size = strcasestr(request, "content-length:");
    if (!end) continue;
    size_t body = size && size < end ? (size_t)atol(size + 15) : 0;
    if (length >= (size_t)(end + 4 - request) + body) return length;
  }
}

static void publish(const char *body) {
  int data = snprintf(event, 128, "id: %lu\nevent: run\ndata: ", ++sequence);
  int size = data + (int)strlen(body) + 2;
  int length = snprintf(event, sizeof event, "%x\r\nid: %lu\nevent: run\ndata: %s\n\n\r\n",
                        (unsigned)size, sequence, body);
  for (int i = 0; i < subscriber_count; i++)
    if (send(subscribers[i], event, (size_t)length, MSG_DONTWAIT | MSG_NOSIGNAL) != length)
      fprintf(stderr, "a subscriber is behind\n");
}

int main(void) {
  int listener = socket(AF_INET, SOCK_STREAM, 0), one = 1;
  struct sockaddr_in address = {.sin_family = AF_INET};
  inet_pton(AF_INET, "127.0.0.1", &address.sin_addr);
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  if (bind(listener, (void *)&address, sizeof address) || listen(listener, 4096)) {
    perror("listen");
    return 1;
  }
  socklen_t size = sizeof address;
  getsockname(listener, (void *)&address, &size);
  printf("listening %d\n", ntohs(address.sin_port));
  fflush(stdout);
  struct rlimit files;
  getrlimit(RLIMIT_NOFILE, &files);
  files.rlim_cur = files.rlim_max;
  setrlimit(RLIMIT_NOFILE, &files);
  epoll_fd = epoll_create1(0);
  watch(listener);
  static struct epoll_event events[512];
  for (;;) {
    int n = epoll_wait(epoll_fd, events, 512, -1);
    for (int i = 0; i < n; i++) {
      int fd = events[i].data.fd;
      if (fd == listener) {
        int client = accept(listener, NULL, NULL);
        if (client < 0) continue;
        setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        watch(client);
      } else if (!receive(fd)) {
        forget(fd);
      } else if (request[0] == 'G') {
        answer(fd, "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
                   "transfer-encoding: chunked\r\n\r\n");
        if (subscriber_count < MAX_SUBSCRIBERS) subscribers[subscriber_count++] = fd;
      } else {
        answer(fd, "HTTP/1.1 204 No Content\r\n\r\n");
        publish(strstr(request, "\r\n\r\n") + 4);
      }
    }
  }
}
