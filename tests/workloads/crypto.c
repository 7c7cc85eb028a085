/* OpenSSL's assembly: modular exponentiation, hashes, ciphers, each in a thread of its own. The chains stand in
 * tests/src/odd.rs. Linked with libcrypto.so.3 without its headers.
 *
 * Usage: crypto [SECONDS]
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#define NODE __attribute__((noipa))
#define AFTER_CALL() __asm__ volatile("" ::: "memory")

typedef struct bignum_st BIGNUM;
typedef struct bignum_ctx BN_CTX;
typedef struct evp_cipher_ctx_st EVP_CIPHER_CTX;
typedef struct evp_cipher_st EVP_CIPHER;
typedef struct evp_md_st EVP_MD;
BIGNUM *BN_new(void);
BN_CTX *BN_CTX_new(void);
int BN_rand(BIGNUM *, int, int, int);
int BN_mod_exp(BIGNUM *, const BIGNUM *, const BIGNUM *, const BIGNUM *, BN_CTX *);
int BN_mod_exp_mont_consttime(BIGNUM *, const BIGNUM *, const BIGNUM *, const BIGNUM *, BN_CTX *, void *);
EVP_CIPHER_CTX *EVP_CIPHER_CTX_new(void);
int EVP_EncryptInit_ex(EVP_CIPHER_CTX *, const EVP_CIPHER *, void *, const unsigned char *, const unsigned char *);
int EVP_EncryptUpdate(EVP_CIPHER_CTX *, unsigned char *, int *, const unsigned char *, int);
const EVP_CIPHER *EVP_aes_256_gcm(void);
const EVP_CIPHER *EVP_aes_128_cbc(void);
const EVP_CIPHER *EVP_camellia_128_cbc(void);
const EVP_CIPHER *EVP_chacha20_poly1305(void);
const EVP_MD *EVP_sha256(void);
const EVP_MD *EVP_sha512(void);
const EVP_MD *EVP_sha1(void);
int EVP_Digest(const void *, size_t, unsigned char *, unsigned int *, const EVP_MD *, void *);

static unsigned char from[1 << 14];

NODE void w_power(int bits, int is_constant_time) {
    BIGNUM *base = BN_new(), *power = BN_new(), *modulus = BN_new(), *result = BN_new();
    BN_CTX *context = BN_CTX_new();
    BN_rand(base, bits - 1, 0, 0);
    BN_rand(power, bits - 1, 0, 0);
    BN_rand(modulus, bits, 0, 1);
    for (;;) {
        if (is_constant_time)
            BN_mod_exp_mont_consttime(result, base, power, modulus, context, NULL);
        else
            BN_mod_exp(result, base, power, modulus, context);
        AFTER_CALL();
    }
}
/* Sizes that are multiples of 512 and others, 1024 bits for themselves: each has code of its own. */
NODE void *w_power_main(void *unused) { w_power(2048, 0); AFTER_CALL(); return unused; }
NODE void *w_power_odd_main(void *unused) { w_power(1088, 0); AFTER_CALL(); return unused; }
NODE void *w_power_1024_main(void *unused) { w_power(1024, 1); AFTER_CALL(); return unused; }

NODE void w_encrypt(const EVP_CIPHER *cipher) {
    static __thread unsigned char to[sizeof from + 64];
    unsigned char key[64] = {1}, vector[64] = {2};
    EVP_CIPHER_CTX *context = EVP_CIPHER_CTX_new();
    EVP_EncryptInit_ex(context, cipher, NULL, key, vector);
    for (;;) {
        int length;
        EVP_EncryptUpdate(context, to, &length, from, sizeof from);
        AFTER_CALL();
    }
}
NODE void *w_gcm_main(void *unused) { w_encrypt(EVP_aes_256_gcm()); AFTER_CALL(); return unused; }
NODE void *w_cbc_main(void *unused) { w_encrypt(EVP_aes_128_cbc()); AFTER_CALL(); return unused; }
NODE void *w_camellia_main(void *unused) { w_encrypt(EVP_camellia_128_cbc()); AFTER_CALL(); return unused; }
NODE void *w_chacha_main(void *unused) { w_encrypt(EVP_chacha20_poly1305()); AFTER_CALL(); return unused; }

NODE void w_digest(void) {
    unsigned char out[64];
    unsigned int length;
    for (;;) {
        EVP_Digest(from, sizeof from, out, &length, EVP_sha256(), NULL);
        EVP_Digest(from, sizeof from, out, &length, EVP_sha512(), NULL);
        EVP_Digest(from, sizeof from, out, &length, EVP_sha1(), NULL);
        AFTER_CALL();
    }
}
NODE void *w_digest_main(void *unused) { w_digest(); AFTER_CALL(); return unused; }

struct thread {
    const char *name;
    void *(*main)(void *);
};
static const struct thread THREADS[] = {
    {"w-power", w_power_main}, {"w-power-odd", w_power_odd_main}, {"w-power-1024", w_power_1024_main},
    {"w-gcm", w_gcm_main},     {"w-cbc", w_cbc_main},             {"w-camellia", w_camellia_main},
    {"w-chacha", w_chacha_main}, {"w-digest", w_digest_main},
};

NODE void *w_enter(void *argument) {
    const struct thread *thread = argument;
    prctl(PR_SET_NAME, thread->name);
    void *result = thread->main(NULL);
    AFTER_CALL();
    return result;
}

int main(int argc, char **argv) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    for (size_t i = 0; i < sizeof THREADS / sizeof *THREADS; i++) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, w_enter, (void *)&THREADS[i]) != 0) return 1;
    }
    printf("started threads\n");
    fflush(stdout);
    sleep(argc > 1 ? (unsigned)atoi(argv[1]) : 600);
    _exit(0);
}
