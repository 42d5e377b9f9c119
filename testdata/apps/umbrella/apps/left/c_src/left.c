#include <erl_nif.h>

static ERL_NIF_TERM twice(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[])
{
    long number;
    (void)argc;
    if (!enif_get_long(env, argv[0], &number))
        return enif_make_badarg(env);
    return enif_make_long(env, 2 * number);
}

static ErlNifFunc functions[] = {{"twice", 1, twice, 0}};

ERL_NIF_INIT(Elixir.Left, functions, NULL, NULL, NULL, NULL)
