/* A clock that is LATER_S seconds ahead, for `shardlake sweep`, which keeps everything that is younger than an hour.
 *
 * Only CLOCK_REALTIME is changed; nothing that waits is affected. `judge.py` builds it with the C compiler that the product needs.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <time.h>

int clock_gettime(clockid_t clock, struct timespec *now) {
  static int (*real)(clockid_t, struct timespec *);
  if (!real) real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
  int result = real(clock, now);
  const char *later = getenv("LATER_S");
  if (result == 0 && clock == CLOCK_REALTIME && later) now->tv_sec += atol(later);
  return result;
}
