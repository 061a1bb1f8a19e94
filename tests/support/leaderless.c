/* A process whose first thread ends while another one runs: says "ready" when
 * that is so, and goes on until it is killed. */
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static int leader_is_zombie(void) {
  char path[64];
  char text[512] = "";
  snprintf(path, sizeof(path), "/proc/%d/stat", getpid());
  const int file = open(path, O_RDONLY | O_CLOEXEC);
  if (file < 0) return 0;
  const ssize_t size = read(file, text, sizeof(text) - 1);
  close(file);
  return size > 0 && strstr(text, ") Z ") != NULL;
}

static void* go_on(void* unused) {
  while (!leader_is_zombie()) usleep(1000);
  puts("ready");
  fflush(stdout);
  for (;;) pause();
  return unused;
}

int main(void) {
  pthread_t thread;
  if (pthread_create(&thread, NULL, go_on, NULL) != 0) return 1;
  pthread_exit(NULL);
}
