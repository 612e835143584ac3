/* hiredis in its ways: `redis SOCKET`. */
#include <hiredis/async.h>
#include <hiredis/hiredis.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void show(const char *what, redisReply *r)
{
    if (!r)
        printf("%s: none\n", what);
    else
        printf("%s: %d %lld %s\n", what, r->type, r->integer, r->str ? r->str : "");
    if (r)
        freeReplyObject(r);
}

static int answers;

static void answered(redisAsyncContext *c, void *reply, void *data)
{
    (void)c;
    redisReply *r = reply;
    printf("async %s: %d %s\n", (const char *)data, r ? r->type : -1, r && r->str ? r->str : "");
    answers++;
}

static short wanted;
static void read_on(void *data)
{
    (void)data;
    wanted |= POLLIN;
}
static void read_off(void *data)
{
    (void)data;
    wanted &= (short)~POLLIN;
}
static void write_on(void *data)
{
    (void)data;
    wanted |= POLLOUT;
}
static void write_off(void *data)
{
    (void)data;
    wanted &= (short)~POLLOUT;
}

static void *text(const char *literal)
{
    return (void *)(uintptr_t)literal;
}

static void async(const char *socket)
{
    const char *argv[] = {"GET", "async:key"};
    redisAsyncContext *c = redisAsyncConnectUnix(socket);
    if (!c || c->err)
        exit(1);
    c->ev.data = c;
    c->ev.addRead = read_on;
    c->ev.delRead = read_off;
    c->ev.addWrite = write_on;
    c->ev.delWrite = write_off;
    c->ev.cleanup = NULL;
    wanted = POLLOUT;
    redisAsyncCommand(c, answered, text("set"), "SET %s %s", "async:key", "async value");
    redisAsyncCommandArgv(c, answered, text("get"), 2, argv, NULL);
    redisAsyncCommand(c, NULL, NULL, "INCR async:n");
    redisAsyncCommand(c, answered, text("error"), "INCR async:key");
    for (int i = 0; i < 500 && answers < 3; i++) {
        struct pollfd p = {.fd = c->c.fd, .events = wanted};
        poll(&p, 1, 10);
        if (p.revents & POLLIN)
            redisAsyncHandleRead(c);
        else if (p.revents & POLLOUT)
            redisAsyncHandleWrite(c);
    }
    redisAsyncCommand(c, answered, text("left"), "GET async:key");
    redisAsyncFree(c);
}

int main(int argc, char **argv)
{
    const char *words[] = {"hset", "hash", "field", "value"};
    const size_t lengths[] = {4, 4, 5, 5};
    redisReply *r = NULL;
    char *formatted = NULL;
    if (argc < 2)
        return 2;
    redisContext *c = redisConnectUnix(argv[1]);
    if (!c || c->err)
        return 1;
    show("set", redisCommand(c, "SET key:%d %s", 7, "secret value"));
    show("get", redisCommand(c, "%s key:7", "get"));
    show("binary", redisCommand(c, "SET %b %b", "bin", (size_t)3, "a\0b", (size_t)3));
    show("argv", redisCommandArgv(c, 4, words, lengths));
    show("wrong", redisCommand(c, "INCR key:7"));
    redisAppendCommand(c, "INCR n");
    redisAppendCommandArgv(c, 4, words, lengths);
    int len = redisFormatCommand(&formatted, "GET key:7");
    redisAppendFormattedCommand(c, formatted, (size_t)len);
    redisFreeCommand(formatted);
    for (int i = 0; i < 3; i++) {
        if (redisGetReply(c, (void **)&r) != REDIS_OK)
            return 1;
        show("appended", r);
    }
    redisFree(c);
    async(argv[1]);
    return 0;
}
