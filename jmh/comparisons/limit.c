/* A minimal NBD server that shows how fast a machine can be: a thread for each connection, one recv
   for all requests that have arrived, one pread or pwrite for each, one send for all replies. It
   takes any export name, sends simple replies only, and checks nothing; it is for measurements only.

       limit SOCKET IMAGE */

#include <arpa/inet.h>
#include <endian.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

enum { REQUEST = 28, REPLY = 16, ROOM = 40 << 20 };

static int image;
static uint64_t size;

static int receive(int client, void *to, size_t count) {
  for (size_t done = 0; done < count;) {
    ssize_t n = recv(client, (char *)to + done, count - done, 0);
    if (n <= 0) return 0;
    done += n;
  }
  return 1;
}

static int sent(int client, const void *from, size_t count) {
  for (size_t done = 0; done < count;) {
    ssize_t n = send(client, (const char *)from + done, count - done, MSG_NOSIGNAL);
    if (n <= 0) return 0;
    done += n;
  }
  return 1;
}

static int reply(int client, uint32_t option, uint32_t type, const void *data, uint32_t length) {
  uint64_t magic = htobe64(0x0003e889045565a9);
  uint32_t head[3] = {htonl(option), htonl(type), htonl(length)};
  return sent(client, &magic, 8) && sent(client, head, 12) && (!length || sent(client, data, length));
}

/* Answers INFO and GO, and refuses all other options. Returns true when transmission begins. */
static int handshake(int client) {
  char greeting[18] = "NBDMAGICIHAVEOPT\0\3";
  uint32_t flags;
  if (!sent(client, greeting, 18) || !receive(client, &flags, 4)) return 0;
  for (;;) {
    struct { uint64_t magic; uint32_t option, length; } __attribute__((packed)) head;
    char data[8192];
    if (!receive(client, &head, 16) || ntohl(head.length) > sizeof data ||
        !receive(client, data, ntohl(head.length)))
      return 0;
    uint32_t option = ntohl(head.option);
    if (option == 6 || option == 7) {
      struct { uint16_t type; uint64_t size; uint16_t flags; } __attribute__((packed)) info = {
          0, htobe64(size), htons(1 | 4)};
      if (!reply(client, option, 3, &info, sizeof info) || !reply(client, option, 1, 0, 0)) return 0;
      if (option == 7) return 1;
    } else if (option == 2) {
      return 0;
    } else if (!reply(client, option, 0x80000001, 0, 0)) {
      return 0;
    }
  }
}

static void transmit(int client, char *in, char *out) {
  size_t have = 0;
  for (;;) {
    ssize_t n = recv(client, in + have, ROOM - have, 0);
    if (n <= 0) return;
    have += n;
    size_t at = 0, replies = 0;
    while (have - at >= REQUEST) {
      uint16_t command;
      uint64_t offset;
      uint32_t length;
      memcpy(&command, in + at + 6, 2);
      memcpy(&offset, in + at + 16, 8);
      memcpy(&length, in + at + 24, 4);
      command = ntohs(command);
      length = ntohl(length);
      if (command == 2) {
        sent(client, out, replies);
        return;
      }
      if (command == 1 && have - at < REQUEST + (size_t)length) break;
      if (replies + REPLY + (command == 0 ? length : 0) > ROOM) {
        if (!sent(client, out, replies)) return;
        replies = 0;
      }
      uint32_t magic = htonl(0x67446698), error = 0;
      memcpy(out + replies, &magic, 4);
      memcpy(out + replies + 8, in + at + 8, 8);
      at += REQUEST;
      if (command == 0) {
        error = pread(image, out + replies + REPLY, length, be64toh(offset)) == length ? 0 : 5;
      } else if (command == 1) {
        error = pwrite(image, in + at, length, be64toh(offset)) == length ? 0 : 5;
        at += length;
      } else if (command == 3) {
        error = fdatasync(image) ? 5 : 0;
      }
      error = htonl(error);
      memcpy(out + replies + 4, &error, 4);
      replies += REPLY + (command == 0 ? length : 0);
    }
    memmove(in, in + at, have - at);
    have -= at;
    if (replies && !sent(client, out, replies)) return;
  }
}

static void *serve(void *argument) {
  int client = (int)(intptr_t)argument;
  char *in = malloc(ROOM), *out = malloc(ROOM);
  if (in && out && handshake(client)) transmit(client, in, out);
  free(in);
  free(out);
  close(client);
  return 0;
}

int main(int count, char **arguments) {
  struct stat facts;
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  if (count != 3 || strlen(arguments[1]) >= sizeof address.sun_path) {
    fprintf(stderr, "usage: limit SOCKET IMAGE\n");
    return 2;
  }
  strcpy(address.sun_path, arguments[1]);
  image = open(arguments[2], O_RDWR);
  int listening = socket(AF_UNIX, SOCK_STREAM, 0);
  if (image < 0 || fstat(image, &facts) ||
      bind(listening, (struct sockaddr *)&address, sizeof address) || listen(listening, 64)) {
    perror("limit");
    return 1;
  }
  size = facts.st_size;
  for (;;) {
    int client = accept(listening, 0, 0);
    pthread_t thread;
    if (client >= 0 && !pthread_create(&thread, 0, serve, (void *)(intptr_t)client))
      pthread_detach(thread);
  }
}
