#include <stdarg.h>
#include <stddef.h>

#include <setjmp.h>

#include <cmocka.h>

#include "io/siphash.h"

/* The reference implementation's vectors: key 00..0f, message 00..(n-1). */
static void test_siphash_gives_the_reference_vectors(void **state)
{
    static const struct siphash_key key = {UINT64_C(0x0706050403020100), UINT64_C(0x0f0e0d0c0b0a0908)};
    static const struct {
        size_t len;
        uint64_t hash;
    } vectors[] = {
        {0, UINT64_C(0x726fdb47dd0e0e31)}, {1, UINT64_C(0x74f839c593dc67fd)},  {7, UINT64_C(0xab0200f58b01d137)},
        {8, UINT64_C(0x93f5f5799a932462)}, {15, UINT64_C(0xa129ca6149be45e5)}, {63, UINT64_C(0x958a324ceb064572)},
    };
    uint8_t message[64];

    (void)state;
    for (size_t i = 0; i < sizeof message; i++) {
        message[i] = (uint8_t)i;
    }
    for (size_t i = 0; i < sizeof vectors / sizeof *vectors; i++) {
        assert_true(siphash(&key, message, vectors[i].len) == vectors[i].hash);
    }
    assert_true(siphash(&key, NULL, 0) == vectors[0].hash);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_siphash_gives_the_reference_vectors),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
