/*
 * Load generator: thousands of subscribers of one server in one epoll loop, told what to do by
 * lines on standard input, answering each with a line of JSON on standard output.
 *
 *   loadgen HOST PORT sse|websocket|poll REQUESTS PIDS [READY]
 *
 * REQUESTS is a file of records, each two texts with their lengths before them (32 bits, little
 * endian): the head that opens a connection, and what follows it (a WebSocket's first frame, or
 * the next request of a poll with {offset}, {handle} and {cursor} in it). Connection i takes
 * record i modulo their number. PIDS (1,2,3) are the processes whose CPU time is the server's.
 * A connection is ready when READY was seen in what it received, or else when its head ended.
 *
 * A message is recognised by a stamp inside of it: ~<nanoseconds of CLOCK_MONOTONIC>~. A message
 * may have several; each counts as a delivery, and the greatest one seen is kept per connection.
 *
 *   connect N SECONDS   open N connections and wait until all are ready
 *   close N             drop the N oldest
 *   asleep SECONDS      answers "go"; after "published STAMP" waits, without reading, until the
 *                       server is done; then reads. CPU of the server without a client in the way
 *   awake SECONDS       the same, reading all the time
 *   watch SECONDS       read for so long
 *   measure             CPU time and memory of the server as they are
 *
 * CPU time is /proc/<pid>/task/<tid>/schedstat: nanoseconds, exact, not sampled by ticks.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define MAX_PIDS 64
#define AT_ONCE 200
#define ANSWER_BYTES 8192

enum mode { SSE, WEBSOCKET, POLL };
enum state { CONNECTING, HEAD, BODY, CLOSED };

typedef struct {
  uint32_t head_length, next_length;
  char *head, *next;
} request;

typedef struct {
  int fd;
  uint8_t state, ready, head_match, in_number;
  uint16_t ready_match;
  uint32_t which; /* of the requests */
  char status[16];
  uint8_t status_length;
  uint64_t number, stamp;
  /* WebSocket: the header of the frame that is being read, and what is left of it. */
  uint8_t frame[14], frame_length, control_length;
  uint64_t frame_left;
  struct poll *poll;
} connection;

/* What only a connection that polls needs: the answer's head, what is left of its body. */
struct poll {
  char head[ANSWER_BYTES];
  uint32_t length;
  int64_t left;
  char offset[192], handle[192], cursor[192];
};

static enum mode mode;
static const char *host, *ready_text;
static int port, epoll_fd;
static request *requests;
static int request_count;
static int pids[MAX_PIDS], pid_count;

static connection **all;
static int count, capacity, opened, ready_count, lost;
static uint64_t deliveries, bytes_read;

static float *latencies;
static size_t latency_count, latency_capacity;

static char buffer[1 << 18];

static uint64_t nanoseconds(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static double seconds(void) { return (double)nanoseconds() * 1e-9; }

static void say(const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  vprintf(format, arguments);
  va_end(arguments);
  putchar('\n');
  fflush(stdout);
}

static void fail(const char *format, ...) {
  char text[512];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  say("{\"error\": \"%s\"}", text);
  exit(1);
}

/* ---- the server's processes ------------------------------------------------------------- */

/* Calls visit(path of the thread) for each thread; stops, and returns 1, when it says so. */
static int each_thread(int (*visit)(const char *, void *), void *argument) {
  for (int i = 0; i < pid_count; i++) {
    char path[320];
    snprintf(path, sizeof path, "/proc/%d/task", pids[i]);
    DIR *folder = opendir(path);
    if (!folder) continue;
    struct dirent *entry;
    while ((entry = readdir(folder))) {
      if (entry->d_name[0] == '.') continue;
      snprintf(path, sizeof path, "/proc/%d/task/%.20s", pids[i], entry->d_name);
      if (visit(path, argument)) {
        closedir(folder);
        return 1;
      }
    }
    closedir(folder);
  }
  return 0;
}

static size_t read_file(const char *folder, const char *name, char *into, size_t size) {
  char path[400];
  snprintf(path, sizeof path, "%s/%s", folder, name);
  FILE *file = fopen(path, "r");
  if (!file) return 0;
  size_t length = fread(into, 1, size - 1, file);
  fclose(file);
  into[length] = 0;
  return length;
}

static int add_cpu(const char *thread, void *total) {
  char text[128];
  unsigned long long on_cpu;
  if (read_file(thread, "schedstat", text, sizeof text) && sscanf(text, "%llu", &on_cpu) == 1)
    *(uint64_t *)total += on_cpu;
  return 0;
}

static int is_running(const char *thread, void *unused) {
  (void)unused;
  char text[512];
  if (!read_file(thread, "stat", text, sizeof text)) return 0;
  char *name_end = strrchr(text, ')'); /* the name may hold anything */
  return name_end && name_end[1] && name_end[2] == 'R';
}

static uint64_t server_cpu(void) {
  uint64_t total = 0;
  each_thread(add_cpu, &total);
  return total;
}

static int server_is_busy(void) { return each_thread(is_running, NULL); }

static long server_memory_kb(void) {
  long total = 0;
  for (int i = 0; i < pid_count; i++) {
    char folder[64], text[4096];
    snprintf(folder, sizeof folder, "/proc/%d", pids[i]);
    if (!read_file(folder, "smaps_rollup", text, sizeof text)) continue;
    char *line = strstr(text, "\nPss:"); /* what forked processes share counts once */
    long kb;
    if (line && sscanf(line, "\nPss: %ld", &kb) == 1) total += kb;
  }
  return total;
}

/* ---- connections ------------------------------------------------------------------------ */

static void watch_for(connection *c, uint32_t events, int operation) {
  struct epoll_event event = {.events = events, .data.ptr = c};
  if (epoll_ctl(epoll_fd, operation, c->fd, &event)) fail("epoll_ctl: %s", strerror(errno));
}

static void drop(connection *c) {
  if (c->state == CLOSED) return;
  close(c->fd);
  c->state = CLOSED;
  if (c->ready) ready_count--;
  free(c->poll);
  c->poll = NULL;
}

static void lose(connection *c) {
  drop(c);
  lost++;
}

static void send_all(connection *c, const char *data, size_t length) {
  while (length) { /* small, on a connection that is idle: waiting here is rare and short */
    ssize_t sent = send(c->fd, data, length, MSG_NOSIGNAL);
    if (sent < 0 && (errno == EAGAIN || errno == EINTR)) continue;
    if (sent < 0) {
      lose(c);
      return;
    }
    data += sent;
    length -= (size_t)sent;
  }
}

static void open_connection(void) {
  if (count == capacity) {
    capacity = capacity ? capacity * 2 : 1024;
    all = realloc(all, (size_t)capacity * sizeof *all);
  }
  connection *c = calloc(1, sizeof *c);
  all[count++] = c;
  int i = opened++, one = 1;
  c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (c->fd < 0) fail("socket: %s", strerror(errno));
  setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  /* Many source addresses, so that ephemeral ports do not run out. */
  setsockopt(c->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
  struct sockaddr_in from = {.sin_family = AF_INET};
  from.sin_addr.s_addr = htonl((127u << 24) | (1u + (uint32_t)(i / 2000) % 250u));
  if (bind(c->fd, (void *)&from, sizeof from)) fail("bind: %s", strerror(errno));
  struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
  inet_pton(AF_INET, host, &to.sin_addr);
  if (connect(c->fd, (void *)&to, sizeof to) && errno != EINPROGRESS)
    fail("connect: %s", strerror(errno));
  c->state = CONNECTING;
  c->which = (uint32_t)(i % request_count);
  watch_for(c, EPOLLOUT, EPOLL_CTL_ADD);
}

static void become_ready(connection *c) {
  if (!c->ready) {
    c->ready = 1;
    ready_count++;
  }
}

static void deliver(connection *c, uint64_t stamp, uint64_t at) {
  deliveries++;
  if (stamp > c->stamp) c->stamp = stamp;
  if (latency_count == latency_capacity) {
    latency_capacity = latency_capacity ? latency_capacity * 2 : 1 << 16;
    latencies = realloc(latencies, latency_capacity * sizeof *latencies);
  }
  latencies[latency_count++] = at > stamp ? (float)(at - stamp) * 1e-6f : 0;
}

/* Stamps, and the text that says a connection is ready, in a piece of what was received. */
static void scan(connection *c, const char *data, size_t length, uint64_t at) {
  if (!c->ready && ready_text) {
    for (size_t i = 0; i < length && !c->ready; i++) {
      if (data[i] == ready_text[c->ready_match]) {
        if (!ready_text[++c->ready_match]) become_ready(c);
      } else {
        c->ready_match = data[i] == ready_text[0];
      }
    }
  }
  const char *end = data + length;
  while (data < end) {
    if (!c->in_number) {
      data = memchr(data, '~', (size_t)(end - data));
      if (!data) return;
      data++;
      c->in_number = 1;
      c->number = 0;
      continue;
    }
    char digit = *data++;
    if (digit >= '0' && digit <= '9') {
      c->number = c->number * 10 + (uint64_t)(digit - '0');
    } else {
      c->in_number = 0;
      if (digit == '~' && c->number) deliver(c, c->number, at);
    }
  }
}

/* WebSocket frames: payload is scanned, a ping is answered (the server drops who does not). */
static void read_frames(connection *c, const char *data, size_t length, uint64_t at) {
  while (length) {
    if (!c->frame_left) {
      c->frame[c->frame_length++] = (uint8_t)*data++;
      length--;
      if (c->frame_length < 2) continue;
      uint8_t low = c->frame[1] & 127;
      uint8_t needed = (uint8_t)(low == 127 ? 10 : low == 126 ? 4 : 2);
      if (c->frame_length < needed) continue;
      c->frame_left = low;
      if (low >= 126) {
        c->frame_left = 0;
        for (int i = 2; i < needed; i++) c->frame_left = c->frame_left << 8 | c->frame[i];
      }
      c->frame_length = c->control_length = 0;
      if ((c->frame[0] & 15) == 8) {
        lose(c);
        return;
      }
      if (!c->frame_left && (c->frame[0] & 15) == 9) send_all(c, "\x8a\x80\0\0\0\0", 6);
      continue;
    }
    size_t piece = c->frame_left < length ? (size_t)c->frame_left : length;
    if ((c->frame[0] & 15) == 9) {
      /* Four bytes of payload, as the servers here send; mask 0 leaves them as they are. */
      static char pong[6 + 125];
      for (size_t i = 0; i < piece && c->control_length < 125; i++)
        pong[6 + c->control_length++] = data[i];
      if (piece == c->frame_left) {
        pong[0] = (char)0x8a;
        pong[1] = (char)(0x80 | c->control_length);
        memset(pong + 2, 0, 4);
        send_all(c, pong, 6u + c->control_length);
        if (c->state == CLOSED) return;
      }
    } else {
      scan(c, data, piece, at);
    }
    c->frame_left -= piece;
    data += piece;
    length -= piece;
  }
}

static void take_header(const char *head, const char *name, char *into, size_t size) {
  const char *found = strcasestr(head, name);
  if (!found) return; /* as it was before */
  found += strlen(name);
  size_t length = strcspn(found, "\r\n");
  if (length >= size) fail("a header is too long");
  memcpy(into, found, length);
  into[length] = 0;
}

static void poll_again(connection *c) {
  static char next[ANSWER_BYTES];
  size_t length = 0;
  const char *from = requests[c->which].next;
  while (*from) {
    const char *value = NULL;
    size_t skip = 0;
    if (!strncmp(from, "{offset}", 8)) value = c->poll->offset, skip = 8;
    if (!strncmp(from, "{handle}", 8)) value = c->poll->handle, skip = 8;
    if (!strncmp(from, "{cursor}", 8)) value = c->poll->cursor, skip = 8;
    size_t piece = value ? strlen(value) : 1;
    if (length + piece >= sizeof next) fail("the next request is too long");
    memcpy(next + length, value ? value : from, piece);
    length += piece;
    from += value ? skip : 1;
  }
  c->poll->length = 0;
  send_all(c, next, length);
}

/* Answers to polls: their bodies are scanned, the next request follows each. */
static void read_answers(connection *c, const char *data, size_t length, uint64_t at) {
  struct poll *poll = c->poll;
  while (length) {
    if (poll->left > 0) {
      size_t piece = (size_t)poll->left < length ? (size_t)poll->left : length;
      scan(c, data, piece, at);
      poll->left -= (int64_t)piece;
      data += piece;
      length -= piece;
    } else {
      if (poll->length + 1 >= sizeof poll->head) fail("the head of an answer is too long");
      poll->head[poll->length++] = *data++;
      length--;
      if (poll->length < 4 || memcmp(poll->head + poll->length - 4, "\r\n\r\n", 4)) continue;
      poll->head[poll->length] = 0;
      if (strncmp(poll->head + 9, "200", 3)) fail("a poll was answered %.3s", poll->head + 9);
      char size[192] = "";
      take_header(poll->head, "\ncontent-length: ", size, sizeof size);
      if (!*size) fail("the answer to a poll has no content-length");
      poll->left = atoll(size);
      take_header(poll->head, "\nelectric-offset: ", poll->offset, sizeof poll->offset);
      take_header(poll->head, "\nelectric-handle: ", poll->handle, sizeof poll->handle);
      take_header(poll->head, "\nelectric-cursor: ", poll->cursor, sizeof poll->cursor);
    }
    if (!poll->left) {
      become_ready(c); /* the first answer is there, and the next poll on its way */
      poll_again(c);
      if (c->state == CLOSED) return;
    }
  }
}

static void read_head(connection *c, const char **data, size_t *length) {
  static const char blank_line[] = "\r\n\r\n";
  while (*length && c->head_match < 4) {
    char next = *(*data)++;
    (*length)--;
    if (c->status_length < sizeof c->status - 1) c->status[c->status_length++] = next;
    if (next == blank_line[c->head_match])
      c->head_match++;
    else
      c->head_match = next == '\r';
  }
  if (c->head_match < 4) return;
  if (c->status[9] != (mode == WEBSOCKET ? '1' : '2')) fail("answered %.12s", c->status);
  c->state = BODY;
  if (!ready_text) become_ready(c);
  if (mode == WEBSOCKET) send_all(c, requests[c->which].next, requests[c->which].next_length);
}

static void on_readable(connection *c) {
  while (c->state != CLOSED) {
    ssize_t received = recv(c->fd, buffer, sizeof buffer, 0);
    if (received < 0 && errno == EINTR) continue;
    if (received < 0 && errno == EAGAIN) return;
    if (received <= 0) {
      lose(c);
      return;
    }
    uint64_t at = nanoseconds();
    const char *data = buffer;
    size_t length = (size_t)received;
    bytes_read += length;
    if (c->state == HEAD && mode != POLL) read_head(c, &data, &length);
    if (c->state == HEAD && mode == POLL) read_answers(c, data, length, at);
    if (c->state == BODY && mode == SSE) scan(c, data, length, at);
    if (c->state == BODY && mode == WEBSOCKET) read_frames(c, data, length, at);
    if ((size_t)received < sizeof buffer) return;
  }
}

static void on_connected(connection *c) {
  int error = 0;
  socklen_t size = sizeof error;
  getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &size);
  if (error) fail("connect: %s", strerror(error));
  c->state = HEAD;
  if (mode == POLL) {
    c->poll = calloc(1, sizeof *c->poll);
    c->poll->left = 0;
  }
  send_all(c, requests[c->which].head, requests[c->which].head_length);
  if (c->state != CLOSED) watch_for(c, EPOLLIN, EPOLL_CTL_MOD);
}

/* One look at all connections; returns how many had something. */
static int turn(int milliseconds) {
  static struct epoll_event events[1024];
  int n = epoll_wait(epoll_fd, events, 1024, milliseconds);
  for (int i = 0; i < n; i++) {
    connection *c = events[i].data.ptr;
    if (!c) continue; /* standard input: looked at by whoever waits for it */
    if (c->state == CONNECTING)
      on_connected(c);
    else if (c->state != CLOSED)
      on_readable(c);
  }
  return n;
}

static void sweep(void) {
  int kept = 0;
  for (int i = 0; i < count; i++) {
    if (all[i]->state == CLOSED)
      free(all[i]);
    else
      all[kept++] = all[i];
  }
  count = kept;
}

/* ---- commands --------------------------------------------------------------------------- */

static void begin(void) {
  latency_count = 0;
  deliveries = bytes_read = 0;
  lost = 0;
}

static int ascending(const void *a, const void *b) {
  float x = *(const float *)a, y = *(const float *)b;
  return (x > y) - (x < y);
}

static double quantile(double q) {
  if (!latency_count) return 0;
  size_t i = (size_t)((double)(latency_count - 1) * q + 0.5);
  return latencies[i];
}

static void report(double since, uint64_t cpu, int whole) {
  double took = seconds() - since;
  qsort(latencies, latency_count, sizeof *latencies, ascending);
  int lost_now = lost;
  sweep();
  say("{\"connections\": %d, \"ready\": %d, \"lost\": %d, \"seconds\": %.6f, "
      "\"cpu_seconds\": %.9f, \"memory_kb\": %ld, \"deliveries\": %llu, \"bytes\": %llu, "
      "\"p50_ms\": %.4f, \"p99_ms\": %.4f, \"max_ms\": %.4f, \"whole\": %s}",
      count, ready_count, lost_now, took, (double)cpu * 1e-9, server_memory_kb(),
      (unsigned long long)deliveries, (unsigned long long)bytes_read, quantile(0.5),
      quantile(0.99), quantile(1), whole ? "true" : "false");
}

static void connect_many(int many, double limit) {
  begin();
  double since = seconds();
  uint64_t cpu = server_cpu();
  int wanted = count + many;
  while (ready_count < wanted) {
    while (count < wanted && count - ready_count < AT_ONCE) open_connection();
    turn(20);
    if (lost) fail("the server closed %d connections while others were opened", lost);
    if (seconds() - since > limit)
      fail("%d of %d connections were ready in time", ready_count, wanted);
  }
  report(since, server_cpu() - cpu, 1);
}

static void close_many(int many) {
  begin();
  double since = seconds();
  uint64_t cpu = server_cpu();
  for (int i = 0; i < many && i < count; i++) drop(all[i]);
  report(since, server_cpu() - cpu, 1);
}

static void watch(double limit) {
  begin();
  double since = seconds();
  uint64_t cpu = server_cpu();
  while (seconds() - since < limit) turn(20);
  report(since, server_cpu() - cpu, 1);
}

static int all_have(uint64_t stamp) {
  if (lost) fail("the server closed %d of %d connections", lost, count);
  static int next; /* the one that was missing last is looked at first */
  for (int i = 0; i < count; i++) {
    if (next >= count) next = 0;
    if (all[next]->stamp < stamp) return 0;
    next++;
  }
  return 1;
}

/* "published STAMP" on standard input; waits for it, asleep or reading. */
static uint64_t published(int reading, double deadline) {
  char line[128];
  if (reading) {
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, 0, &event);
    for (;;) {
      fd_set set;
      struct timeval none = {0, 0};
      FD_ZERO(&set);
      FD_SET(0, &set);
      if (select(1, &set, NULL, NULL, &none) > 0) break;
      turn(20);
      if (seconds() > deadline) fail("nothing was published in time");
    }
    epoll_ctl(epoll_fd, EPOLL_CTL_DEL, 0, NULL);
  }
  unsigned long long stamp;
  if (!fgets(line, sizeof line, stdin) || sscanf(line, "published %llu", &stamp) != 1) exit(0);
  return stamp;
}

static void asleep(double limit) {
  begin();
  double since = seconds(), deadline = since + limit;
  uint64_t cpu = server_cpu();
  say("{\"go\": true}");
  uint64_t stamp = published(0, deadline);
  int seen = 0, calm = 0;
  struct timespec pause = {0, 400000};
  while (calm < 4) {
    nanosleep(&pause, NULL);
    char byte;
    while (seen < count && recv(all[seen]->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) >= 0) seen++;
    calm = seen == count && !server_is_busy() ? calm + 1 : 0;
    if (seconds() > deadline) fail("%d of %d connections got a message", seen, count);
  }
  cpu = server_cpu() - cpu;
  while (turn(0)) continue;
  int whole = all_have(stamp); /* else some of the work was still to come, or cut in two */
  while (!all_have(stamp)) {
    turn(5);
    if (seconds() > deadline) fail("not all connections got the message");
  }
  report(since, cpu, whole);
}

static void awake(double limit) {
  begin();
  double since = seconds(), deadline = since + limit;
  uint64_t cpu = server_cpu();
  say("{\"go\": true}");
  uint64_t stamp = published(1, deadline);
  while (!all_have(stamp)) {
    turn(5);
    if (seconds() > deadline) fail("not all connections got the message");
  }
  report(since, server_cpu() - cpu, 1);
}

static void read_requests(const char *path) {
  FILE *file = fopen(path, "rb");
  if (!file) fail("%s: %s", path, strerror(errno));
  uint32_t length;
  while (fread(&length, sizeof length, 1, file) == 1) {
    requests = realloc(requests, (size_t)(request_count + 1) * sizeof *requests);
    request *r = &requests[request_count++];
    r->head_length = length;
    r->head = calloc(length + 1, 1);
    if (fread(r->head, 1, length, file) != length) fail("the requests are cut off");
    if (fread(&length, sizeof length, 1, file) != 1) fail("the requests are cut off");
    r->next_length = length;
    r->next = calloc(length + 1, 1);
    if (fread(r->next, 1, length, file) != length) fail("the requests are cut off");
  }
  fclose(file);
  if (!request_count) fail("no requests");
}

int main(int argc, char **argv) {
  if (argc < 6) fail("usage: loadgen HOST PORT sse|websocket|poll REQUESTS PIDS [READY]");
  host = argv[1];
  port = atoi(argv[2]);
  mode = !strcmp(argv[3], "websocket") ? WEBSOCKET : !strcmp(argv[3], "poll") ? POLL : SSE;
  read_requests(argv[4]);
  for (char *pid = strtok(argv[5], ","); pid && pid_count < MAX_PIDS; pid = strtok(NULL, ","))
    pids[pid_count++] = atoi(pid);
  if (argc > 6) ready_text = argv[6];
  struct rlimit files;
  getrlimit(RLIMIT_NOFILE, &files);
  files.rlim_cur = files.rlim_max;
  setrlimit(RLIMIT_NOFILE, &files);
  epoll_fd = epoll_create1(EPOLL_CLOEXEC);
  setvbuf(stdin, NULL, _IONBF, 0); /* so that select tells the truth about it */

  char line[128];
  while (fgets(line, sizeof line, stdin)) {
    int many = 0;
    double limit = 60;
    if (sscanf(line, "connect %d %lf", &many, &limit) == 2)
      connect_many(many, limit);
    else if (sscanf(line, "close %d", &many) == 1)
      close_many(many);
    else if (sscanf(line, "watch %lf", &limit) == 1)
      watch(limit);
    else if (sscanf(line, "asleep %lf", &limit) == 1)
      asleep(limit);
    else if (sscanf(line, "awake %lf", &limit) == 1)
      awake(limit);
    else if (!strncmp(line, "measure", 7)) {
      begin();
      report(seconds(), server_cpu(), 1);
    } else
      fail("what?");
  }
  return 0;
}
