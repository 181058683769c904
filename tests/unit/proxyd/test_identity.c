/*
 * Names of users: one copy each, counted; and the realms in which sessions live.
 */
#include <stdarg.h>
#include <stddef.h>

#include <setjmp.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "proxyd/config.h"
#include "proxyd/identity.h"
#include "proxyd/realm.h"

static struct socks6_slice slice(const char *text)
{
    return (struct socks6_slice){(const uint8_t *)text, strlen(text)};
}

static void test_a_name_has_one_copy_while_anybody_holds_it(void **state)
{
    struct identities identities;
    struct identity *alice, *bob;

    (void)state;
    assert_int_equal(identities_init(&identities), 0);
    assert_null(identity_find(&identities, slice("alice")));
    alice = identity_take(&identities, slice("alice"));
    bob = identity_take(&identities, slice("bob"));
    assert_non_null(alice);
    assert_ptr_not_equal(alice, bob);
    assert_string_equal(alice->name, "alice");
    assert_ptr_equal(identity_take(&identities, slice("alice")), alice);
    identity_release(&identities, alice);
    assert_ptr_equal(identity_find(&identities, slice("alice")), alice);
    identity_release(&identities, alice);
    assert_null(identity_find(&identities, slice("alice")));
    assert_null(identity_find(&identities, slice("bo")));
    assert_ptr_equal(identity_find(&identities, slice("bob")), bob);
    identity_release(&identities, bob);
    identity_release(&identities, NULL);
    identities_done(&identities);
}

static void test_thousands_are_found_and_go(void **state)
{
    enum { COUNT = 5000 };
    static struct identity *all[COUNT];
    struct identities identities;
    char name[32];

    (void)state;
    assert_int_equal(identities_init(&identities), 0);
    for (int round = 0; round < 2; round++) {
        for (unsigned i = 0; i < COUNT; i++) {
            (void)snprintf(name, sizeof name, "user%u", i);
            all[i] = identity_take(&identities, slice(name));
            assert_non_null(all[i]);
        }
        for (unsigned i = 0; i < COUNT; i++) {
            (void)snprintf(name, sizeof name, "user%u", i);
            assert_ptr_equal(identity_find(&identities, slice(name)), all[i]);
            identity_release(&identities, all[i]);
            assert_null(identity_find(&identities, slice(name)));
        }
        assert_int_equal(identities.count, 0);
    }
    identities_done(&identities);
}

static void test_all_can_be_marked(void **state)
{
    struct identities identities;
    struct identity *all[100];
    char name[32];

    (void)state;
    assert_int_equal(identities_init(&identities), 0);
    assert_false(identities_mark(&identities, true));
    for (unsigned i = 0; i < 100; i++) {
        (void)snprintf(name, sizeof name, "user%u", i);
        all[i] = identity_take(&identities, slice(name));
        assert_non_null(all[i]);
    }
    for (int is_gone = 1; is_gone >= 0; is_gone--) {
        assert_true(identities_mark(&identities, is_gone != 0));
        for (unsigned i = 0; i < 100; i++) {
            assert_int_equal(all[i]->is_gone, is_gone);
        }
    }
    for (unsigned i = 0; i < 100; i++) {
        identity_release(&identities, all[i]);
    }
    identities_done(&identities);
}

static void test_realms_are_told_apart_by_transport_address_and_methods(void **state)
{
    const uint8_t ip[4] = {192, 0, 2, 1}, ip6[16] = {0x20, 1, 0xd, 0xb8, [15] = 1};
    const struct socks6_addr addr = socks6_addr_ipv4(ip, 1080), addr6 = socks6_addr_ipv6(ip6, 65535);
    char realm[STORE_REALM_MAX + 1];

    (void)state;
    realm_write(realm, "tcp", &addr, CONFIG_AUTH_PASSWORD);
    assert_string_equal(realm, "tcp 192.0.2.1:1080 password");
    realm_write(realm, "tls", &addr, CONFIG_AUTH_PASSWORD);
    assert_string_equal(realm, "tls 192.0.2.1:1080 password");
    realm_write(realm, "tcp", &addr, CONFIG_AUTH_ANONYMOUS);
    assert_string_equal(realm, "tcp 192.0.2.1:1080 anonymous");
    realm_write(realm, "tcp", &addr6, CONFIG_AUTH_ANONYMOUS | CONFIG_AUTH_PASSWORD);
    assert_string_equal(realm, "tcp [2001:db8::1]:65535 anonymous password");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_name_has_one_copy_while_anybody_holds_it),
        cmocka_unit_test(test_thousands_are_found_and_go),
        cmocka_unit_test(test_all_can_be_marked),
        cmocka_unit_test(test_realms_are_told_apart_by_transport_address_and_methods),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
