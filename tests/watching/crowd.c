/* A process of THREADS threads and CHILDREN zombies: says "ready" when all are there, and waits. */
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static void *wait_for_ever(void *none) {
    for (;;) pause();
    return none;
}

int main(int count, char **words) {
    if (count < 3) return 2;
    pthread_attr_t small;
    pthread_attr_init(&small);
    pthread_attr_setstacksize(&small, 4 * PTHREAD_STACK_MIN);
    for (int at = 1; at < atoi(words[1]); at++) {
        pthread_t thread;
        int refused = pthread_create(&thread, &small, wait_for_ever, NULL);
        if (refused) {
            printf("refused: thread %d of %s: error %d\n", at, words[1], refused);
            return 3;
        }
    }
    for (int at = 0; at < atoi(words[2]); at++) {
        pid_t child = fork();
        if (child == 0) _exit(0);
        if (child < 0) {
            printf("refused: child %d of %s\n", at, words[2]);
            return 3;
        }
    }
    puts("ready");
    fflush(stdout);
    wait_for_ever(NULL);
}
