/* What both programs need of RFC 6455: the answer to a handshake, and the head of a frame. */

#ifndef WIRE_H
#define WIRE_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { CONTINUATION = 0, TEXT = 1, BINARY = 2, CLOSE = 8, PING = 9, PONG = 10 };
enum { ACCEPT_LENGTH = 28, KEY_LENGTH = 24, HEAD_MAX = 14 };

static inline uint64_t clock_ns(clockid_t which)
{
    struct timespec now;
    if (clock_gettime(which, &now)) {
        perror("clock_gettime");
        exit(1);
    }
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static inline uint32_t rotate(uint32_t value, int by) { return value << by | value >> (32 - by); }

static void sha1_block(uint32_t state[5], const uint8_t *block)
{
    uint32_t w[80], a = state[0], b = state[1], c = state[2], d = state[3], e = state[4];
    for (int i = 0; i < 16; i++)
        w[i] = (uint32_t)block[4 * i] << 24 | (uint32_t)block[4 * i + 1] << 16 | (uint32_t)block[4 * i + 2] << 8
             | block[4 * i + 3];
    for (int i = 16; i < 80; i++)
        w[i] = rotate(w[i - 3] ^ w[i - 8] ^ w[i - 14] ^ w[i - 16], 1);
    for (int i = 0; i < 80; i++) {
        uint32_t f = i < 20 ? (b & c) | (~b & d) : i < 40 ? b ^ c ^ d : i < 60 ? (b & c) | (b & d) | (c & d) : b ^ c ^ d;
        uint32_t k = i < 20 ? 0x5a827999 : i < 40 ? 0x6ed9eba1 : i < 60 ? 0x8f1bbcdc : 0xca62c1d6;
        uint32_t next = rotate(a, 5) + f + e + k + w[i];
        e = d, d = c, c = rotate(b, 30), b = a, a = next;
    }
    state[0] += a, state[1] += b, state[2] += c, state[3] += d, state[4] += e;
}

static void base64(const uint8_t *data, size_t length, char *out)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (size_t i = 0; i < length; i += 3) {
        uint32_t three = (uint32_t)data[i] << 16 | (i + 1 < length ? (uint32_t)data[i + 1] << 8 : 0)
                       | (i + 2 < length ? data[i + 2] : 0);
        *out++ = digits[three >> 18];
        *out++ = digits[three >> 12 & 63];
        *out++ = i + 1 < length ? digits[three >> 6 & 63] : '=';
        *out++ = i + 2 < length ? digits[three & 63] : '=';
    }
    *out = 0;
}

/* The value of Sec-WebSocket-Accept for a key of KEY_LENGTH; `out` has room for ACCEPT_LENGTH + 1. */
static void accept_of(const char *key, char *out)
{
    uint8_t text[128] = {0}, digest[20];
    uint32_t state[5] = {0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476, 0xc3d2e1f0};
    size_t length = KEY_LENGTH + 36; /* with its padding two blocks */
    memcpy(text, key, KEY_LENGTH);
    memcpy(text + KEY_LENGTH, "258EAFA5-E914-47DA-95CA-C5AB0DC85B11", 36);
    text[length] = 0x80;
    text[126] = (uint8_t)(length * 8 >> 8);
    text[127] = (uint8_t)(length * 8);
    sha1_block(state, text);
    sha1_block(state, text + 64);
    for (int i = 0; i < 20; i++)
        digest[i] = (uint8_t)(state[i / 4] >> (24 - i % 4 * 8));
    base64(digest, 20, out);
}

/* Write a frame of one message, masked where `mask` is not 0; return its length. `out`: HEAD_MAX more than the payload. */
static size_t frame(char *out, int opcode, const char *payload, size_t length, uint32_t mask)
{
    uint8_t *at = (uint8_t *)out, bit = mask ? 0x80 : 0;
    *at++ = (uint8_t)(0x80 | opcode);
    if (length < 126) {
        *at++ = (uint8_t)length | bit;
    } else if (length < 65536) {
        *at++ = 126 | bit;
        *at++ = (uint8_t)(length >> 8);
        *at++ = (uint8_t)length;
    } else {
        *at++ = 127 | bit;
        for (int shift = 56; shift >= 0; shift -= 8)
            *at++ = (uint8_t)((uint64_t)length >> shift);
    }
    if (!mask) {
        memcpy(at, payload, length);
        return (size_t)((char *)at - out) + length;
    }
    uint8_t key[4] = {(uint8_t)mask, (uint8_t)(mask >> 8), (uint8_t)(mask >> 16), (uint8_t)(mask >> 24)};
    memcpy(at, key, 4);
    at += 4;
    for (size_t i = 0; i < length; i++)
        at[i] = (uint8_t)payload[i] ^ key[i & 3];
    return (size_t)((char *)at - out) + length;
}

struct head {
    int opcode, final, reserved;
    size_t size;   /* of the head itself */
    size_t length; /* of the payload */
    const uint8_t *mask;
};

/* Read the head of a frame; 0 where more bytes are needed. */
static int read_head(const char *data, size_t have, struct head *found)
{
    const uint8_t *at = (const uint8_t *)data;
    if (have < 2)
        return 0;
    found->final = at[0] >> 7, found->reserved = at[0] >> 4 & 7, found->opcode = at[0] & 15;
    size_t length = at[1] & 127, wide = length == 126 ? 2 : length == 127 ? 8 : 0, masked = at[1] >> 7 ? 4 : 0;
    found->size = 2 + wide + masked;
    if (have < found->size)
        return 0;
    if (wide)
        for (size_t i = length = 0; i < wide; i++)
            length = length << 8 | at[2 + i];
    found->length = length;
    found->mask = masked ? at + 2 + wide : NULL;
    return 1;
}

#endif
