/* malloc without free: RATE in MiB a second, after CALM seconds. */
#include <stdlib.h>
#include <string.h>
#include <time.h>

static double now(void) {
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return at.tv_sec + at.tv_nsec / 1e9;
}

static void pause_for(double seconds) {
    struct timespec nap = {(time_t)seconds, (long)((seconds - (time_t)seconds) * 1e9)};
    nanosleep(&nap, NULL);
}

int main(int count, char **words) {
    if (count < 3) return 2;
    double rate = atof(words[1]);
    pause_for(atof(words[2]));
    double began = now();
    for (long kept = 0;;) {
        for (double due = (now() - began) * rate * 1024; kept < due; kept++) {
            char *request = malloc(1000);
            if (!request) return 1;
            memset(request, 'x', 1000);
        }
        pause_for(0.05);
    }
}
