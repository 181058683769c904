/*
 * AES-256-CBC and HMAC-SHA-256, as RFC 5077 recommends. There is no timer: a key whose time is over is replaced when the
 * next ticket is sealed, and none is opened with a key that is too old, even if nobody came to replace it.
 */
#include "io/tls_keys.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/params.h>
#include <openssl/rand.h>

#define KEY_LEN 32u
#define KEY_COUNT 3u

struct key {
    uint8_t name[TLS_KEY_NAME_LEN]; /* public: it stands in the ticket */
    uint8_t cipher[KEY_LEN], mac[KEY_LEN];
    uint64_t made_ms;
};

struct tls_keys {
    atomic_uint references;
    EVP_CIPHER *cipher;
    pthread_mutex_t lock;
    struct key keys[KEY_COUNT]; /* [0] is the current one */
    unsigned count;
};

static uint64_t now_ms(void)
{
    struct timespec now;

    (void)clock_gettime(CLOCK_MONOTONIC, &now); /* cannot fail for this clock */
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static bool key_make(struct key *key, uint64_t made_ms)
{
    key->made_ms = made_ms;
    if (RAND_bytes(key->name, sizeof key->name) == 1 && RAND_priv_bytes(key->cipher, sizeof key->cipher) == 1 &&
        RAND_priv_bytes(key->mac, sizeof key->mac) == 1) {
        return true;
    }
    ERR_clear_error();
    return false;
}

static bool key_is_good(const struct key *key, uint64_t now)
{
    return now - key->made_ms < TLS_KEYS_ROTATE_MS + TLS_KEYS_LIFETIME_MS;
}

/* With the lock. 0 or -EIO. */
static int rotate(struct tls_keys *keys, uint64_t now)
{
    struct key fresh;

    if (!key_make(&fresh, now)) {
        OPENSSL_cleanse(&fresh, sizeof fresh);
        return -EIO;
    }
    memmove(&keys->keys[1], &keys->keys[0], (KEY_COUNT - 1) * sizeof keys->keys[0]);
    keys->keys[0] = fresh;
    OPENSSL_cleanse(&fresh, sizeof fresh);
    keys->count = keys->count < KEY_COUNT ? keys->count + 1 : KEY_COUNT;
    while (!key_is_good(&keys->keys[keys->count - 1], now)) { /* ends at the current one */
        OPENSSL_cleanse(&keys->keys[--keys->count], sizeof keys->keys[0]);
    }
    return 0;
}

int tls_keys_new(struct tls_keys **out)
{
    struct tls_keys *keys = calloc(1, sizeof *keys);

    if (keys == NULL) {
        return -ENOMEM;
    }
    keys->cipher = EVP_CIPHER_fetch(NULL, "AES-256-CBC", NULL);
    if (keys->cipher == NULL || pthread_mutex_init(&keys->lock, NULL) != 0) {
        EVP_CIPHER_free(keys->cipher);
        ERR_clear_error();
        free(keys);
        return -ENOMEM;
    }
    atomic_init(&keys->references, 1);
    int err = rotate(keys, now_ms());
    if (err != 0) {
        tls_keys_release(keys);
        return err;
    }
    *out = keys;
    return 0;
}

struct tls_keys *tls_keys_retain(struct tls_keys *keys)
{
    (void)atomic_fetch_add_explicit(&keys->references, 1, memory_order_relaxed);
    return keys;
}

void tls_keys_release(struct tls_keys *keys)
{
    if (keys == NULL || atomic_fetch_sub_explicit(&keys->references, 1, memory_order_acq_rel) != 1) {
        return;
    }
    pthread_mutex_destroy(&keys->lock);
    EVP_CIPHER_free(keys->cipher);
    OPENSSL_cleanse(keys, sizeof *keys);
    free(keys);
}

int tls_keys_rotate(struct tls_keys *keys)
{
    pthread_mutex_lock(&keys->lock);
    int err = rotate(keys, now_ms());
    pthread_mutex_unlock(&keys->lock);
    return err;
}

static bool set_mac_key(EVP_MAC_CTX *mac, struct key *key)
{
    static char digest[] = "SHA256";
    const OSSL_PARAM params[] = {
        OSSL_PARAM_construct_octet_string(OSSL_MAC_PARAM_KEY, key->mac, sizeof key->mac),
        OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, digest, sizeof digest - 1),
        OSSL_PARAM_construct_end(),
    };

    return EVP_MAC_CTX_set_params(mac, params) == 1;
}

int tls_keys_seal(struct tls_keys *keys, uint8_t name[TLS_KEY_NAME_LEN], uint8_t iv[EVP_MAX_IV_LENGTH],
                  EVP_CIPHER_CTX *cipher, EVP_MAC_CTX *mac)
{
    uint64_t now = now_ms();
    struct key key;
    int err = 0;

    pthread_mutex_lock(&keys->lock);
    if (now - keys->keys[0].made_ms >= TLS_KEYS_ROTATE_MS) {
        err = rotate(keys, now);
    }
    key = keys->keys[0];
    pthread_mutex_unlock(&keys->lock);
    memcpy(name, key.name, sizeof key.name);
    if (err == 0 && (RAND_bytes(iv, EVP_CIPHER_get_iv_length(keys->cipher)) != 1 || !set_mac_key(mac, &key) ||
                     EVP_EncryptInit_ex(cipher, keys->cipher, NULL, key.cipher, iv) != 1)) {
        err = -EIO;
    }
    OPENSSL_cleanse(&key, sizeof key);
    return err;
}

/* The name is public: comparing it needs no care. */
static bool find_key(struct tls_keys *keys, const uint8_t name[TLS_KEY_NAME_LEN], uint64_t now, struct key *out)
{
    bool is_found = false;

    pthread_mutex_lock(&keys->lock);
    for (unsigned i = 0; i < keys->count && !is_found; i++) {
        if (memcmp(keys->keys[i].name, name, TLS_KEY_NAME_LEN) == 0 && key_is_good(&keys->keys[i], now)) {
            *out = keys->keys[i];
            is_found = true;
        }
    }
    pthread_mutex_unlock(&keys->lock);
    return is_found;
}

int tls_keys_open(struct tls_keys *keys, const uint8_t name[TLS_KEY_NAME_LEN], const uint8_t iv[EVP_MAX_IV_LENGTH],
                  EVP_CIPHER_CTX *cipher, EVP_MAC_CTX *mac)
{
    struct key key;

    if (!find_key(keys, name, now_ms(), &key)) {
        return -ENOENT;
    }
    bool is_set = set_mac_key(mac, &key) && EVP_DecryptInit_ex(cipher, keys->cipher, NULL, key.cipher, iv) == 1;
    OPENSSL_cleanse(&key, sizeof key);
    return is_set ? 0 : -EIO;
}
