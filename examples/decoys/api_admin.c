/* Users, their passwords and roles, and the settings. */
#include "api.h"

#include <crypt.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#define PASSWORD_MIN 8
#define PASSWORD_MAX 128
#define LIMIT_MAX 32          /* of the deployment limit: what the engine takes */
#define INTERVAL_S_MAX 604800 /* a week */

static char no_such_user_hash[CRYPT_OUTPUT_SIZE];

/* ---- passwords ---- */

static void hash_password(const char *password, char out[CRYPT_OUTPUT_SIZE])
{
    struct crypt_data scratch = {0};
    char salt[CRYPT_GENSALT_OUTPUT_SIZE];
    const char *hash = crypt_gensalt_rn(NULL, 0, NULL, 0, salt, sizeof salt)
                           ? crypt_r(password, salt, &scratch)
                           : NULL;
    if (!hash || *hash == '*')
        die("cannot hash a password: %s", strerror(errno));
    snprintf(out, CRYPT_OUTPUT_SIZE, "%s", hash);
}

static bool password_is(const char *password, const char *hash)
{
    struct crypt_data scratch = {0};
    const char *got = crypt_r(password, hash, &scratch);
    return got && strcmp(got, hash) == 0;
}

static bool password_good(const char *password)
{
    return password && strlen(password) >= PASSWORD_MIN && strlen(password) <= PASSWORD_MAX;
}

static const char password_rule[] = "a password has 8 to 128 bytes";

static bool role_good(const char *role)
{
    return role && (strcmp(role, "admin") == 0 || strcmp(role, "viewer") == 0);
}

static const char *text_of(const json_t *object, const char *key)
{
    return json_string_value(json_object_get(object, key));
}

/* The first start makes the user and tells its password to whoever may read the run directory. */
void make_admin(void)
{
    json_t *known = NULL;
    char password[33], hash[CRYPT_OUTPUT_SIZE], uuid[33];
    random_hex(password, 16);
    random_hex(uuid, 16);
    hash_password(password, hash);
    memcpy(no_such_user_hash, hash, sizeof hash);
    if (repo->get_user(repo, "admin", &known) != 0)
        die("cannot read the users");
    bool there = json_array_size(known) > 0;
    json_decref(known);
    if (there)
        return;
    struct user admin = {.uuid = uuid, .name = "admin", .password_hash = hash, .role = "admin"};
    int64_t n;
    if (file_replace(run_path("admin-password").text, password, 0600) != 0 ||
        repo->add_user(repo, &admin, &n) != 0)
        die("cannot make the user admin");
}

/* ---- sessions ---- */

static int login_as(struct call *c, const char *name, const char *password)
{
    json_t *rows;
    if (repo->get_user(repo, name, &rows) != 0)
        return MHD_HTTP_INTERNAL_SERVER_ERROR;
    json_t *user = json_array_get(rows, 0);
    const char *hash = text_of(user, "password_hash");
    int status = MHD_HTTP_UNAUTHORIZED;
    char token[65];
    random_hex(token, 32);
    /* The same work for users that do not exist, so that time does not tell. */
    if (password_is(password, hash ? hash : no_such_user_hash) && hash)
        status = answered(repo->add_session(repo, token, text_of(user, "uuid")));
    if (status == MHD_HTTP_OK)
        c->answer = json_pack("{s:s, s:s, s:b}", "token", token, "role", text_of(user, "role"),
                              "must_change_password",
                              json_integer_value(json_object_get(user, "must_change")) != 0);
    json_decref(rows);
    return status;
}

int login(struct call *c)
{
    json_t *body = body_object(c);
    const char *user = text_of(body, "username"), *password = text_of(body, "password");
    int status = user && password ? login_as(c, user, password)
                                  : bad(c, "username and password are missing");
    json_decref(body);
    return status;
}

/* Sets it, and ends the sessions that the old one began. */
static int set_password(struct call *c, const char *uuid, const char *password, bool must_change)
{
    char hash[CRYPT_OUTPUT_SIZE];
    int64_t n;
    if (!password_good(password))
        return bad(c, password_rule);
    hash_password(password, hash);
    if (repo->set_user_password(repo, uuid, hash, must_change, &n) != 0)
        return MHD_HTTP_INTERNAL_SERVER_ERROR;
    return n ? MHD_HTTP_OK : MHD_HTTP_NOT_FOUND;
}

int change_password(struct call *c)
{
    json_t *body = body_object(c), *rows = NULL;
    const char *old = text_of(body, "old_password"), *new = text_of(body, "new_password");
    int status;
    if (!old || !new)
        status = bad(c, "old_password and new_password are missing");
    else if (repo->get_user(repo, c->name, &rows) != 0)
        status = MHD_HTTP_INTERNAL_SERVER_ERROR;
    else if (json_array_size(rows) == 0 ||
             !password_is(old, text_of(json_array_get(rows, 0), "password_hash")))
        status = refused(c, MHD_HTTP_UNAUTHORIZED, "the old password is another one");
    else
        status = set_password(c, c->user, new, false);
    json_decref(rows);
    json_decref(body);
    return status;
}

/* ---- settings ---- */

int get_config(struct call *c)
{
    json_t *users = NULL;
    int64_t limit = deployment_limit(), interval_s = global_mutation_interval();
    if (limit < 0 || interval_s < 0 || (c->is_admin && repo->get_users(repo, &users) != 0))
        return MHD_HTTP_INTERNAL_SERVER_ERROR;
    c->answer = json_pack("{s:I, s:I, s:o*}", "deployment_limit", (json_int_t)limit,
                          "global_mutation_interval_s", (json_int_t)interval_s, "users", users);
    return MHD_HTTP_OK;
}

static int update_setting(struct call *c, const char *field, const char *key, int64_t least,
                          int64_t most)
{
    json_t *body = body_object(c), *value = json_object_get(body, field);
    int status;
    if (!json_is_integer(value) || json_integer_value(value) < least ||
        json_integer_value(value) > most) {
        char what[128];
        snprintf(what, sizeof what, "%s is a number from %lld to %lld", field, (long long)least,
                 (long long)most);
        status = bad(c, what);
    } else {
        status = answered(repo->set_setting(repo, key, json_integer_value(value)));
    }
    json_decref(body);
    return status;
}

int update_deployment_limit(struct call *c)
{
    return update_setting(c, "deployment_limit", "deployment_limit", 1, LIMIT_MAX);
}

int update_global_mutation_interval(struct call *c)
{
    return update_setting(c, "interval_s", "global_mutation_interval_s", 0, INTERVAL_S_MAX);
}

/* ---- users ---- */

int create_user(struct call *c)
{
    json_t *body = body_object(c);
    const char *name = text_of(body, "username"), *password = text_of(body, "password");
    const char *role = text_of(body, "role");
    char uuid[33], hash[CRYPT_OUTPUT_SIZE];
    int64_t n = 0;
    int status;
    if (!name || !*name || strlen(name) > 60) {
        status = bad(c, "username has 1 to 60 bytes");
    } else if (!password_good(password)) {
        status = bad(c, password_rule);
    } else if (!role_good(role)) {
        status = bad(c, "role is admin or viewer");
    } else {
        random_hex(uuid, 16);
        hash_password(password, hash);
        struct user user = {
            .uuid = uuid, .name = name, .password_hash = hash, .role = role, .must_change = true};
        status = answered(repo->add_user(repo, &user, &n));
        if (status == MHD_HTTP_OK && n == 0)
            status = refused(c, MHD_HTTP_CONFLICT, "there is a user of that name");
        else if (status == MHD_HTTP_OK)
            c->answer = json_pack("{s:s, s:s, s:s}", "uuid", uuid, "name", name, "role", role);
    }
    json_decref(body);
    return status;
}

/* Nobody takes the admin's rights from himself: somebody must be left who can give them. */
static bool himself(struct call *c)
{
    return strcmp(c->user, c->part) == 0;
}

int delete_user(struct call *c)
{
    int64_t n;
    if (himself(c))
        return refused(c, MHD_HTTP_CONFLICT, "nobody deletes himself");
    if (repo->delete_user(repo, c->part, &n) != 0)
        return MHD_HTTP_INTERNAL_SERVER_ERROR;
    return n ? MHD_HTTP_OK : MHD_HTTP_NOT_FOUND;
}

int update_user_role(struct call *c)
{
    json_t *body = body_object(c);
    const char *role = text_of(body, "role");
    int64_t n = 0;
    int status;
    if (!role_good(role))
        status = bad(c, "role is admin or viewer");
    else if (himself(c))
        status = refused(c, MHD_HTTP_CONFLICT, "nobody changes his own role");
    else if ((status = answered(repo->set_user_role(repo, c->part, role, &n))) == MHD_HTTP_OK && !n)
        status = MHD_HTTP_NOT_FOUND;
    json_decref(body);
    return status;
}

int reset_user_password(struct call *c)
{
    json_t *body = body_object(c);
    int status = set_password(c, c->part, text_of(body, "new_password"), !himself(c));
    json_decref(body);
    return status;
}

int reinit(struct call *c)
{
    (void)c;
    return answered(repo->reinit(repo));
}
