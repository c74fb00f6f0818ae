/* A clock that is so many seconds ahead: LATER_S. For `shardlake sweep`, which leaves alone what is younger than an hour.
 *
 * Only CLOCK_REALTIME is changed; nothing that waits is. Built by `judge.py` with the C compiler that the product needs too.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <time.h>

int clock_gettime(clockid_t clock, struct timespec *now) {
  static int (*real)(clockid_t, struct timespec *);
  if (!real) real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
  int answer = real(clock, now);
  const char *later = getenv("LATER_S");
  if (answer == 0 && clock == CLOCK_REALTIME && later) now->tv_sec += atol(later);
  return answer;
}
