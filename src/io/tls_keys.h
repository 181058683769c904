/*
 * The keys of TLS session tickets (RFC 5077, RFC 8446 section 4.6.1), of which the server keeps nothing else: whoever
 * has the keys can open the ticket. They live outside of any TLS settings, so that tickets, and early data with them,
 * survive a new certificate.
 *
 * The current key seals. It is followed by a new random one after a while, and is good for opening for two such whiles
 * more. Whatever is opened is renewed under the current key. Shared by all threads. Used by tls_server.c.
 */
#ifndef IO_TLS_KEYS_H
#define IO_TLS_KEYS_H

#include <stdint.h>

#include <openssl/evp.h>

#include <socks6/types.h>

struct tls_keys;

#define TLS_KEYS_ROTATE_MS ((uint64_t)8 * 3600 * 1000)
/* How long a ticket is good at least, whenever it was sealed: with the key before the current one, and the one before that. */
#define TLS_KEYS_LIFETIME_MS (2 * TLS_KEYS_ROTATE_MS)
#define TLS_KEY_NAME_LEN 16

/* With one random key. 0, -ENOMEM, or -EIO if there is no randomness. */
SOCKS6_MUST_CHECK int tls_keys_new(struct tls_keys **out);
/* Counted references, any thread. Release takes NULL; the last one wipes. */
struct tls_keys *tls_keys_retain(struct tls_keys *keys);
void tls_keys_release(struct tls_keys *keys);

/* Makes a new random key the current one, before its time. 0 or -EIO; then all stays. */
SOCKS6_MUST_CHECK int tls_keys_rotate(struct tls_keys *keys);

/* For OpenSSL's ticket callback: prepares both contexts, and writes name and iv. 0, or -EIO. */
SOCKS6_MUST_CHECK int tls_keys_seal(struct tls_keys *keys, uint8_t name[TLS_KEY_NAME_LEN],
                                    uint8_t iv[EVP_MAX_IV_LENGTH], EVP_CIPHER_CTX *cipher, EVP_MAC_CTX *mac);
/* The same for opening. 0; -ENOENT for a key that there is not (any more); -EIO. */
SOCKS6_MUST_CHECK int tls_keys_open(struct tls_keys *keys, const uint8_t name[TLS_KEY_NAME_LEN],
                                    const uint8_t iv[EVP_MAX_IV_LENGTH], EVP_CIPHER_CTX *cipher, EVP_MAC_CTX *mac);

#endif
