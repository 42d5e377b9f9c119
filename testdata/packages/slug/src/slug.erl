%% Makes text a part of a URL. It compiles only when rebar3 finds the header of the package that it needs.
-module(slug).

-export([make/1]).

-include_lib("letters/include/letters.hrl").

-spec make(unicode:chardata()) -> string().
make(Text) ->
    Kept = [small(Base) || #letter{base = Base} <- letters:split(Text)],
    string:join(string:lexemes(Kept, " "), "-").

small(C) when C >= $A, C =< $Z -> C + 32;
small(C) when C >= $a, C =< $z; C >= $0, C =< $9 -> C;
small(_) -> $\s.
