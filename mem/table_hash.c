/* SPDX-License-Identifier: MIT */
/*
 * table_hash.c -- SipHash: four words, stirred by additions, rotations and exclusive ors.
 *
 * (1) The last word holds the bytes that are left and, on top, the length: keys that differ only in
 *     zeros at the end have different hashes.
 * Threads: any.
 */
#include "mem/table_hash.h"

#include <string.h>
#include <sys/random.h>
#include <time.h>

struct state {
    uint64_t v0, v1, v2, v3;
};

static inline uint64_t turn(uint64_t v, unsigned bits)
{
    return v << bits | v >> (64 - bits);
}

static inline __attribute__((always_inline)) void stir(struct state *s, unsigned rounds)
{
    for (unsigned i = 0; i < rounds; i++) {
        s->v0 += s->v1;
        s->v2 += s->v3;
        s->v1 = turn(s->v1, 13) ^ s->v0;
        s->v3 = turn(s->v3, 16) ^ s->v2;
        s->v0 = turn(s->v0, 32) + s->v3;
        s->v2 += s->v1;
        s->v3 = turn(s->v3, 21) ^ s->v0;
        s->v1 = turn(s->v1, 17) ^ s->v2;
        s->v2 = turn(s->v2, 32);
    }
}

static inline uint64_t little_endian(uint64_t word)
{
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    return __builtin_bswap64(word);
#else
    return word;
#endif
}

static inline __attribute__((always_inline)) uint64_t
sip(struct rv_seed seed, unsigned c, unsigned d, const unsigned char *p, size_t len)
{
    struct state s = { seed.k0 ^ UINT64_C(0x736f6d6570736575),
                       seed.k1 ^ UINT64_C(0x646f72616e646f6d),
                       seed.k0 ^ UINT64_C(0x6c7967656e657261),
                       seed.k1 ^ UINT64_C(0x7465646279746573) };
    uint64_t word, last = (uint64_t)len << 56;
    size_t left = len % 8;
    for (const unsigned char *end = p + (len - left); p < end; p += 8) {
        memcpy(&word, p, 8);
        word = little_endian(word);
        s.v3 ^= word;
        stir(&s, c);
        s.v0 ^= word;
    }
    for (size_t i = 0; i < left; i++)
        last |= (uint64_t)p[i] << (8 * i);
    s.v3 ^= last;
    stir(&s, c);
    s.v0 ^= last;
    s.v2 ^= 0xff;
    stir(&s, d);
    return s.v0 ^ s.v1 ^ s.v2 ^ s.v3;
}

uint64_t rv_siphash(struct rv_seed seed, unsigned c, unsigned d, const void *data, size_t len)
{
    return sip(seed, c, d, len > 0 ? data : "", len);
}

uint64_t rv_hash(struct rv_seed seed, const void *data, size_t len)
{
    return sip(seed, 1, 3, len > 0 ? data : "", len);
}

struct rv_seed rv_seed_random(void)
{
    struct rv_seed seed;
    struct timespec now;
    if (getrandom(&seed, sizeof seed, GRND_NONBLOCK) == (ssize_t)sizeof seed)
        return seed;
    clock_gettime(CLOCK_REALTIME, &now);
    seed.k0 = (uint64_t)now.tv_nsec ^ (uint64_t)(uintptr_t)&seed << 16;
    seed.k1 = (uint64_t)now.tv_sec ^ (uint64_t)(uintptr_t)&rv_seed_random;
    seed.k0 = rv_hash(seed, &now, sizeof now);
    seed.k1 = rv_hash(seed, &seed.k0, sizeof seed.k0);
    return seed;
}
