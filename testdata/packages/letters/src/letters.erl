%% Takes letters apart: each with the marks that stand on it.
-module(letters).

-export([split/1]).

-include("letters.hrl").

-spec split(unicode:chardata()) -> [#letter{}].
split(Text) ->
    lists:reverse(lists:foldl(fun take/2, [], unicode:characters_to_nfd_list(Text))).

take(Mark, [#letter{marks = Marks} = Letter | Before]) when Mark >= 16#300, Mark =< 16#36F ->
    [Letter#letter{marks = Marks ++ [Mark]} | Before];
take(Base, Before) ->
    [#letter{base = Base} | Before].
